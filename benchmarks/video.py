"""How long a clip takes, stage by stage, and whether its hands keep their identities.

    python -m benchmarks.video [--seconds=30 --seed=0 --people=1]

A drawn clip with known truth, 640×480, 30 frames a second: two hands a person that cross, one of
them leaving and coming back. Each stage runs once before on a short clip, so that programs are
compiled. Needs PyAV and the detector's networks.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from data_pipeline.synthetic.sequence import Sequence, draw_sequence
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.mano import HANDS
from er_jax.photographs.load import load
from er_jax.photographs.photograph import blank, camera_of
from er_jax.utils.arguments import at_least
from er_jax.utils.cache import cache_dir
from er_jax.utils.xla_cpu import prepare_cpu
from er_jax.video.drawing import draw_clip
from er_jax.video.following import follow_clip
from er_jax.video.frames import Frames, written_video
from er_jax.video.observations import Observations, settled
from er_jax.video.reconstruct import fit_clip
from er_jax.video.smoothing import smooth
from er_jax.video.track import Clip
from er_jax.video.tracking import Tracker

T = TypeVar("T")
OF_NO_HAND = 0.5
"""Of the hand's size: what lies farther from every true hand is none."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=at_least(2), default=30)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--people", type=int, choices=(1, 2), default=1)
    options = parser.parse_args()
    prepare_cpu(cache_dir() / "compiled")
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        warm = _written(Path(folder) / "warm.mp4", 2, options.seed, options.people)
        _stages(*warm, Path(folder))
        seconds, clip, seen, truth = _stages(
            *_written(Path(folder) / "clip.mp4", options.seconds, options.seed, options.people),
            Path(folder),
        )
    count = len(truth)
    table = Table(title=f"{count} frames of {options.people} persons' hands")
    for column in ("stage", "ms a frame", "share"):
        table.add_column(column, justify="right")
    work = {name: value for name, value in seconds.items() if name != "decode alone"}
    total = sum(work.values())
    for name, value in seconds.items():
        share = f"{value / total:.0%}" if name in work else "(in others)"
        table.add_row(name, f"{1000 * value / count:.1f}", share)
    console.print(table)
    undrawn = total - work["draw and encode"]
    console.print(f"{count / total:.1f} frames/s, {count / undrawn:.1f} without drawing")
    console.print(_identities(seen, truth))
    seen_frames = sum(int((~track.filled).sum()) for track in clip.tracks)
    console.print(f"{seen_frames} of {int(truth.present.sum())} hands seen")


def _stages(
    frames: Frames, truth: Sequence, folder: Path
) -> tuple[dict[str, float], Clip, Observations, Sequence]:
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - started
        return result

    detector = MediaPipeHands(thorough=False)
    engine = load(detect=False)
    timed("decode alone", lambda: [frame.index for frame in frames])
    seen = timed(
        "decode and follow", lambda: settled(follow_clip(frames, lambda: Tracker(detector)))
    )
    camera = camera_of(blank(seen.size_px), truth.camera.focal_px)
    tracks = timed("fit", lambda: fit_clip(engine, seen, camera))
    hands = engine.hand_model
    smoothed = timed("smooth", lambda: [smooth(track, seen.times_s, hands) for track in tracks])
    clip = Clip(
        name="clip",
        size_px=seen.size_px,
        times_s=seen.times_s,
        camera=camera,
        tracks=tuple(smoothed),
        hand_model=hands.source,
    )
    timed("draw and encode", lambda: draw_clip(frames, clip, hands, folder / "drawn.mp4"))
    return seconds, clip, seen, truth


def _written(path: Path, seconds: float, seed: int, people: int) -> tuple[Frames, Sequence]:
    truth = draw_sequence(seed, seconds, 30.0, people=people)
    with written_video(path, 30.0) as video:
        for time_s, image in zip(truth.times_s, truth.frames(), strict=True):
            video.add(image, float(time_s))
    return Frames.of(path), truth


def _identities(seen: Observations, truth: Sequence) -> str:
    """Identity switches, frames with a wrong side, and hands where there is none."""
    switches = wrong = far = 0
    before: dict[tuple[int, int], tuple[int, int]] = {}
    for row in range(len(seen)):
        points = truth.keypoints_px[seen.frame[row]]
        apart = np.linalg.norm(points - seen.keypoints_px[row], axis=-1).mean(-1)
        size = np.ptp(points, axis=-2).max(-1)
        person, side = np.unravel_index(np.argmin(apart / size), apart.shape)
        if apart[person, side] > OF_NO_HAND * size[person, side]:
            far += 1
            continue
        true = int(person), int(side)
        wrong += true[1] != seen.side[row]
        own = int(seen.person[row]), int(seen.side[row])
        switches += before.get(own, true) != true
        before[own] = true
    sides = " and ".join(HANDS)
    return (
        f"{switches} identity switches, {wrong} of {len(seen)} hands with {sides} exchanged, {far} "
        "where there is none"
    )


if __name__ == "__main__":
    main()
