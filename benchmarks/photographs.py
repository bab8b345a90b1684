"""Hands found in whole pictures and their errors, by keypoints, network and both; and the times.

    python -m benchmarks.photographs --data_dir=DATASETS --weights=RUN [--split=val] [--count=100]
    python -m benchmarks.photographs --photos=PHOTOS
    python -m benchmarks.photographs --photos=PHOTOS --times [--peer_python=PYTHON --task=FILE]

DATASETS is where the stand-in dataset was built, RUN a run on it. PHOTOS is a folder of pictures
with an `annotations.json`: keypoints in the order HAND21, for some pictures camera and joints. The
peer is MediaPipe's Tasks API, in an environment of its own, with its `hand_landmarker.task`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.mano import HANDS
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import read_photograph
from er_jax.photographs.whole_images import (
    AnnotatedHand,
    AnnotatedImage,
    Score,
    annotated_image,
    evaluate_whole_images,
)

PEER = """
import sys, time
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision
options = vision.HandLandmarkerOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]), num_hands=2)
with vision.HandLandmarker.create_from_options(options) as detector:
    for path in sys.argv[2:]:
        image = mp.Image.create_from_file(path)
        hands = len(detector.detect(image).handedness)
        times = []
        for _ in range(15):
            begin = time.perf_counter()
            detector.detect(image)
            times.append(time.perf_counter() - begin)
        print(hands, 1000 * sorted(times)[7], flush=True)
"""


def of_dataset(data_dir: Path, split: str, weights: Path, count: int) -> None:
    source = AnnotatedSplit(data_dir, "interhand26m/all", split)
    chosen = np.linspace(0, source.sample_count - 1, min(count, source.sample_count)).astype(int)
    images = [annotated_image(source, index) for index in chosen]
    engines = {
        "fit": load(detect=False),
        "network": load(weights=weights, detect=False, fit_keypoints=False),
        "both": load(weights=weights, detect=False),
    }
    show(evaluate_whole_images(images, MediaPipeHands(), engines))


def of_photographs(folder: Path) -> None:
    images = []
    for picture in json.loads((folder / "annotations.json").read_text())["pictures"]:
        pixels = read_photograph(folder / picture["file"]).pixels
        middle = (np.array(pixels.shape[1::-1]) - 1) / 2
        hands = []
        for hand in picture["hands"]:
            points = np.array(hand["keypoints_px"], np.float64)
            joints = np.array(hand.get("joints_camera_mm", np.full((21, 3), np.nan))) / 1000
            side = HANDS.index(hand["side"]) if hand["side"] else 0
            hands.append(AnnotatedHand(side, joints[:, :3], points[:, :2], points[:, 2] > 0))
        images.append(
            AnnotatedImage(
                pixels=pixels,
                focal_px=tuple(picture.get("focal_px", [1.2 * max(pixels.shape[:2])] * 2)),
                principal_point_px=tuple(picture.get("princpt_px", middle)),
                interacting=len(hands) == 2,
                hands=tuple(hands),
            )
        )
    show(evaluate_whole_images(images, MediaPipeHands(), {"fit": load(detect=False)}))


def show(scores: dict[str, dict[str, Score]]) -> None:
    print("by, group: found, side right, 2D error / box, PA-MPJPE, wrist-aligned MPJPE (mm)")
    for name, groups in scores.items():
        for group, score in groups.items():
            if not score.found:
                continue
            print(
                f"{name}, {group}: {score.found}/{score.annotated} = "
                f"{score.found / score.annotated:.1%}, {score.side_right / score.found:.1%}, "
                f"{np.mean(score.keypoint_error):.3f}, {mean(score.pa_mpjpe)}, "
                f"{mean(score.wrist_aligned)} ({len(score.pa_mpjpe)} hands)"
            )


def mean(errors_mm: list[float]) -> str:
    return f"{np.mean(errors_mm):.1f}" if errors_mm else "–"


def median_ms(call: Callable[[], object], times: int = 15) -> float:
    call()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return 1000 * float(np.median(taken))


def times(folder: Path, peer_python: Path | None, task: Path | None) -> None:
    files = sorted(folder.glob("*.jpg"))
    pictures = {file: read_photograph(file).pixels for file in files}
    quick, thorough = (MediaPipeHands(thorough=value) for value in (False, True))
    empty = np.full((540, 960, 3), 128, np.uint8)
    nothing_ms = median_ms(lambda: quick(empty), 45)
    print(f"one view of a picture without hands: {nothing_ms:.1f} ms")
    peer = {}
    if peer_python and task:
        command = [str(peer_python), "-c", PEER, str(task), *map(str, files)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        peer = dict(zip(files, (line.split() for line in lines if line), strict=True))
    for file in files:
        pixels = pictures[file]
        counts = [len(detector(pixels)) for detector in (quick, thorough)]
        ms = [median_ms(partial(detector, pixels), 7) for detector in (quick, thorough)]
        said = f"{file.name}: one view {ms[0]:.1f} ms ({counts[0]} hands), "
        if counts[0]:
            said += f"{(ms[0] - nothing_ms) / counts[0]:.1f} ms a hand, "
        said += f"thorough {ms[1]:.1f} ms ({counts[1]})"
        if file in peer:
            said += f", MediaPipe {float(peer[file][1]):.1f} ms ({peer[file][0]})"
        print(said)
    engine = load(detect=False)
    found = [(pixels, thorough(pixels)) for pixels in pictures.values()]
    singles = [(pixels, [hands[0]]) for pixels, hands in found if hands]
    eight = (singles * 8)[:8]
    print(f"fit, one hand: {median_ms(lambda: fit(engine, singles[:1])):.1f} ms")
    print(f"fit, a batch of 8: {median_ms(lambda: fit(engine, eight)) / 8:.1f} ms a hand")
    code = "import er_jax, sys; er_jax.reconstruct(sys.argv[1])"
    with tempfile.TemporaryDirectory() as empty_cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": empty_cache}
        for start in ("first", "second", "third"):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", code, str(files[0])],
                check=True,
                capture_output=True,
                env=environment,
            )
            print(f"a process's first picture, {start} start: {time.perf_counter() - begin:.1f} s")


def fit(engine: Engine, hands: list) -> None:
    engine.many([pixels for pixels, _ in hands], detections=[found for _, found in hands])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--count", type=int, default=10**6)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--peer_python", type=Path)
    parser.add_argument("--task", type=Path)
    options = parser.parse_args()
    if options.data_dir:
        of_dataset(options.data_dir, options.split, options.weights, options.count)
    if options.photos and options.times:
        times(options.photos, options.peer_python, options.task)
    elif options.photos:
        of_photographs(options.photos)


if __name__ == "__main__":
    main()
