"""Hands found, their side, keypoint errors and times of the detector, on annotated pictures.

    python -m benchmarks.detection --raw_dir=RAW [--photos=PHOTOS] [--overlays=FOLDER]

RAW is a dataset in InterHand2.6M's layout, its whole test pictures; PHOTOS a folder with an
`annotations.json` of pictures, hands, sides and `HAND21` keypoints (x, y, known). A hand is found
if a detection of any side lies nearer than 0.25 of the longer side of the box around its keypoints.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from data_pipeline.build.interhand26m.reader import annotation_files
from er_jax.photographs.photograph import read_photograph
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.mano.joints import HAND21, INTERHAND21, joint_order

FOUND = 0.25
COLOURS = {"right": (255, 120, 0), "left": (0, 120, 255)}


@dataclasses.dataclass
class Case:
    """An annotated picture: side (None: not known) and keypoints (NaN: not known) of its hands."""

    name: str
    path: Path
    hands: list[tuple[str | None, np.ndarray]]


@dataclasses.dataclass
class Count:
    hands: int = 0
    side_known: int = 0
    side_right: int = 0
    surplus: int = 0
    errors: list[float] = dataclasses.field(default_factory=list)


def photographs(folder: Path) -> Iterator[Case]:
    for picture in json.loads((folder / "annotations.json").read_text())["pictures"]:
        hands = []
        for hand in picture["hands"]:
            points = np.array(hand["keypoints_px"])
            points[points[:, 2] == 0, :2] = np.nan
            hands.append((hand["side"], points[:, :2]))
        yield Case(picture["file"], folder / picture["file"], hands)


def interhand26m(raw_dir: Path, split: str = "test") -> Iterator[Case]:
    paths = annotation_files(raw_dir, split)
    data, cameras, joints = (
        json.loads(paths[name].read_text()) for name in ("data", "camera", "joint_3d")
    )
    images = {image["id"]: image for image in data["images"]}
    order = joint_order(INTERHAND21, HAND21)
    for annotation in data["annotations"]:
        image = images[annotation["image_id"]]
        capture, camera = str(image["capture"]), str(image["camera"])
        world = joints[capture][str(image["frame_idx"])]["world_coord"]
        position, rotation, focal, centre = (
            np.array(cameras[capture][name][camera])
            for name in ("campos", "camrot", "focal", "princpt")
        )
        in_camera = (np.reshape(world, (2, 21, 3))[:, order] - position) @ rotation.T
        points = in_camera[..., :2] / in_camera[..., 2:] * focal + centre
        sides = ("right", "left")
        present = [annotation["hand_type"] in (side, "interacting") for side in sides]
        hands = [(sides[s], points[s]) for s in range(2) if present[s]]
        yield Case(image["file_name"], raw_dir / "images" / split / image["file_name"], hands)


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance over the longer side of the truth's box."""
    known = ~np.isnan(truth[:, 0])
    size = np.ptp(truth[known], axis=0).max()
    return float(np.linalg.norm(found[known] - truth[known], axis=1).mean() / size)


def count(detections, hands, counts: Count) -> list[float | None]:
    """Adds a picture's hands to the counts and returns each one's error, None if not found."""
    pairs = sorted(
        (relative_error(hand.keypoints_px, truth), h, d)
        for h, (_, truth) in enumerate(hands)
        for d, hand in enumerate(detections)
    )
    errors: list[float | None] = [None] * len(hands)
    taken: set[int] = set()
    for error, h, d in pairs:
        if error >= FOUND or errors[h] is not None or d in taken:
            continue
        errors[h] = error
        taken.add(d)
        counts.errors.append(error)
        counts.side_known += hands[h][0] is not None
        counts.side_right += hands[h][0] == detections[d].side
    counts.hands += len(hands)
    counts.surplus += len(detections) - len(taken)
    return errors


def draw(image: np.ndarray, detections, path: Path) -> None:
    zoom = max(1, round(700 / max(image.shape[:2])))
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom)
    for hand in detections:
        points = ((hand.keypoints_px + 0.5) * zoom - 0.5).round().astype(int)
        for joint in range(1, 21):
            start = 0 if joint % 4 == 1 else joint - 1
            cv2.line(canvas, points[start].tolist(), points[joint].tolist(), COLOURS[hand.side], 2)
        text = f"{hand.side} {hand.side_probability:.2f} {hand.score:.2f}"
        cv2.putText(canvas, text, points[0].tolist(), 0, 0.6, (255, 255, 0), 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), canvas[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw_dir", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--detector_dir", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each n-th picture of the split")
    parser.add_argument("--quick", action="store_true", help="one view a picture only")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    begin = time.perf_counter()
    detector = MediaPipeHands(
        options.detector_dir, thorough=not options.quick, threads=options.threads
    )
    print(f"loaded in {1e3 * (time.perf_counter() - begin):.0f} ms")
    cases = list(photographs(options.photos)) if options.photos else []
    if options.raw_dir:
        cases += list(interhand26m(options.raw_dir))[:: options.every]
    counts: dict[str, Count] = {}
    times = []
    for case in cases:
        image = read_photograph(case.path).pixels
        begin = time.perf_counter()
        detections = detector(image)
        times.append(time.perf_counter() - begin)
        photograph = options.photos and case.path.parent == options.photos
        kind = "photographs" if photograph else ("single", "interacting")[len(case.hands) - 1]
        errors = count(detections, case.hands, counts.setdefault(kind, Count()))
        if photograph:
            sides = [(hand.side, round(hand.side_probability, 2)) for hand in detections]
            said = [None if e is None else round(e, 3) for e in errors]
            print(f"{case.name}: {[s for s, _ in case.hands]} errors {said}, found {sides}")
        if options.overlays and (photograph or None in errors or detections[len(errors) :]):
            draw(image, detections, options.overlays / f"{case.name.replace('/', '_')}.png")
    for kind, each in counts.items():
        print(
            f"{kind}: found {len(each.errors)} of {each.hands}; side right "
            f"{each.side_right} of {each.side_known}; mean error {np.mean(each.errors):.3f} of the "
            f"box; {each.surplus} more detections than annotated hands"
        )
    milliseconds = 1e3 * np.array(times)
    print(
        f"milliseconds a picture: median {np.median(milliseconds):.0f}, first {milliseconds[0]:.0f}"
    )


if __name__ == "__main__":
    main()
