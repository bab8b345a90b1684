"""What smoothing does to the hands of a drawn clip whose truth is known, and to a still picture's.

    python -m benchmarks.video_smoothing [--seed=0 --seconds=30 --still --cache=FOLDER]

Each frame is detected and fitted by itself. A found hand goes to the true one whose keypoints are
nearest, of the same side; there is no tracker here. With --cache the frames' hands are kept there.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.synthetic.sequence import Sequence, draw_sequence
from er_jax.detection import DetectedHand, landmarks
from er_jax.detection.mediapipe_hands import LiteRTNetwork, MediaPipeHands
from er_jax.detection.regions import Pyramid
from er_jax.detection.types import box_around
from er_jax.detection.weights import LANDMARKS_FILE, weights_dir
from er_jax.mano import HANDS, HandModel, load_hands
from er_jax.photographs.engine import Engine
from er_jax.photographs.result import Hand
from er_jax.utils.progress import progress_bar
from er_jax.video.smoothing import CUTOFF_HZ, LiveFilter, smooth
from er_jax.video.track import HandTrack

FRAME_RATE = 30.0
AT_ONCE = 16
STILL_PICTURES, STILL_FRAMES, BOX_NOISE = 8, 60, 0.02
SPEEDS = (1, 2, 3)
SAME_HAND = 0.35  # of the true hand's size: mean distance of keypoints

ARRAYS = {
    "betas": "betas",
    "rotations": "rotations",
    "transl": "transl",
    "keypoints_px": "detected_px",
    "joint_sigma_m": "joint_sigma_m",
    "depth_sigma_m": "depth_sigma_m",
    "score": "score",
}
"""Of a track, and where a `Hand` has them."""


def raw_tracks(sequence: Sequence, thorough: bool = True) -> list[HandTrack]:
    """The hands of each frame by itself, by their true person and side."""
    detector = MediaPipeHands(thorough=thorough)
    engine = Engine(load_hands(None), detector=None)
    rows: dict[tuple[int, int], list[tuple[int, Hand, DetectedHand]]] = {}
    with progress_bar("frames", len(sequence), "frames") as bar:
        for first in range(0, len(sequence), AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, len(sequence)))
            pictures = [sequence.frame(number) for number in numbers]
            found = [detector(picture) for picture in pictures]
            results = engine.many(
                pictures,
                detections=found,
                focal_px=sequence.camera.focal_px,
                principal_point_px=sequence.camera.princpt_px,
            )
            for number, detected, result in zip(numbers, found, results, strict=True):
                hands = [hand for person in result.persons for hand in person.hands]
                for key, hand in associated(sequence, number, hands).items():
                    rows.setdefault(key, []).append((number, hand, _source(hand, detected)))
            bar.advance(len(pictures))
    return [_track(person, HANDS[side], own) for (person, side), own in sorted(rows.items())]


def associated(sequence: Sequence, number: int, hands: list[Hand]) -> dict[tuple[int, int], Hand]:
    """The found hand of each true one that has one: the nearest first."""
    true = sequence.keypoints_px[number]
    candidates = []
    for index, hand in enumerate(hands):
        assert hand.detected_px is not None
        side = HANDS.index(hand.side)
        for person in np.flatnonzero(sequence.present[number, :, side]).tolist():
            own = true[person, side]
            distance = float(np.linalg.norm(own - hand.detected_px, axis=-1).mean())
            if distance < SAME_HAND * np.ptp(own, axis=0).max():
                candidates.append((distance, index, person, side))
    pairs: dict[tuple[int, int], Hand] = {}
    taken: set[int] = set()
    for _, index, person, side in sorted(candidates):
        if index not in taken and (person, side) not in pairs:
            taken.add(index)
            pairs[person, side] = hands[index]
    return pairs


def _source(hand: Hand, detected: list[DetectedHand]) -> DetectedHand:
    """What a hand was fitted to."""
    assert hand.detected_px is not None
    own = hand.detected_px
    return next(one for one in detected if np.array_equal(one.keypoints_px, own))


def _track(person: int, side: str, rows: list[tuple[int, Hand, DetectedHand]]) -> HandTrack:
    arrays = {
        name: np.array([getattr(hand, own) for _, hand, _ in rows], np.float64)
        for name, own in ARRAYS.items()
    }
    return HandTrack(
        person=person,
        side=side,
        frames=np.array([number for number, _, _ in rows]),
        filled=np.zeros(len(rows), bool),
        confidence=np.array([found.confidence for _, _, found in rows], np.float64),
        **arrays,
    )


def cached(path: Path | None, sequence: Sequence) -> list[HandTrack]:
    """The raw tracks, from the file where it is there."""
    if path is not None and path.exists():
        return read_tracks(path)
    tracks = raw_tracks(sequence)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tracks(path, tracks)
    return tracks


def save_tracks(path: Path, tracks: list[HandTrack]) -> None:
    arrays: dict[str, Any] = {
        f"{number}.{name}": np.asarray(value)
        for number, track in enumerate(tracks)
        for name, value in vars(track).items()
    }
    np.savez(path, **arrays)


def read_tracks(path: Path) -> list[HandTrack]:
    with np.load(path) as file:
        count = 1 + max(int(name.split(".")[0]) for name in file.files)
        names = [field.name for field in dataclasses.fields(HandTrack)]
        return [
            HandTrack(
                **{
                    name: value.item() if value.ndim == 0 else value
                    for name in names
                    for value in [file[f"{number}.{name}"]]
                }
            )
            for number in range(count)
        ]


def live(track: HandTrack, times_s: np.ndarray, hands: HandModel) -> HandTrack:
    """As a webcam's hands are filtered, frame by frame."""
    own = LiveFilter(hands, track.side)
    poses = [
        own(times_s[frame], track.betas[k], track.rotations[k], track.transl[k])
        for k, frame in enumerate(track.frames)
    ]
    return dataclasses.replace(
        track,
        betas=np.stack([pose.betas for pose in poses]),
        rotations=np.stack([pose.rotations for pose in poses]),
        transl=np.stack([pose.transl for pose in poses]),
    )


class Errors(NamedTuple):
    """Means over frames and joints, mm; accelerations mm/frame²."""

    acceleration: float
    acceleration_in_camera: float
    wrist_aligned: float
    in_camera: float


def errors(track: HandTrack, frames: np.ndarray, sequence: Sequence, hands: HandModel) -> Errors:
    """Of those of a track's frames that are given.

    The accelerations' are of the frames whose neighbours are given too, as in
    `er_jax.evaluation.acceleration`.
    """
    kept = np.isin(track.frames, frames)
    number = track.frames[kept]
    joints = track.meshes(hands)[1][kept].astype(np.float64)
    off = joints - sequence.joints[number, track.person, HANDS.index(track.side)]
    aligned = off - off[:, :1]
    between = np.flatnonzero(number[2:] - number[:-2] == 2)

    def acceleration(values: np.ndarray) -> float:
        second = values[2:] - 2 * values[1:-1] + values[:-2]
        return 1000 * float(np.linalg.norm(second[between], axis=-1).mean())

    return Errors(
        acceleration(aligned),
        acceleration(off),
        1000 * float(np.linalg.norm(aligned, axis=-1).mean()),
        1000 * float(np.linalg.norm(off, axis=-1).mean()),
    )


def moving_hands(sequence: Sequence, tracks: list[HandTrack], hands: HandModel) -> None:
    """Prints what was found, and the errors of the frames in which it was."""
    count = sum(map(len, tracks))
    present = int(sequence.present.sum())
    print(
        f"\n{present} hands in {len(sequence)} frames; found, of the right side: {count}", end=" "
    )
    print(f"({count / present:.1%})")
    print("\n| | acceleration, mm/frame² | of the hand in space | wrist-aligned | in space, mm |")
    print("|---|---|---|---|---|")

    def row(name: str, results: list[HandTrack]) -> None:
        each = [
            errors(result, track.frames, sequence, hands)
            for result, track in zip(results, tracks, strict=True)
        ]
        weights = [len(track) for track in tracks]
        print(f"| {name} |", " | ".join(f"{x:.2f}" for x in np.average(each, 0, weights)), "|")

    def offline(**options: float) -> list[HandTrack]:
        return [smooth(track, sequence.times_s, hands, **options) for track in tracks]

    row("each frame by itself", tracks)
    started = time.perf_counter()
    smoothed = offline()
    seconds = time.perf_counter() - started
    row(f"smoothed, {CUTOFF_HZ:g} Hz", smoothed)
    row("no outliers suspected", offline(outlier_sigmas=np.inf))
    row("shape alone", offline(cutoff_hz=np.inf))
    started = time.perf_counter()
    filtered = [live(track, sequence.times_s, hands) for track in tracks]
    live_seconds = time.perf_counter() - started
    row("live", filtered)
    print(f"\n{seconds:.1f} s for all tracks offline, ", end="")
    print(f"{1000 * live_seconds / max(count, 1):.2f} ms a hand and frame live")
    filled = [track.frames[track.filled] for track in smoothed]
    number = sum(map(len, filled))
    if number:
        each = [
            errors(track, own, sequence, hands)
            for track, own in zip(smoothed, filled, strict=True)
            if len(own)
        ]
        sizes = [len(own) for own in filled if len(own)]
        mean = np.average([one[2:] for one in each], 0, sizes)
        print(f"{number} frames filled: {mean[0]:.2f} mm wrist-aligned, {mean[1]:.2f} in space")


def speeds(sequence: Sequence, tracks: list[HandTrack], hands: HandModel) -> None:
    """Prints what the cut-off should be where the hands are faster: fewer frames, at the rate."""
    columns = [faster(sequence, tracks, times) for times in SPEEDS]
    print("\nas fast as drawn, and faster: acceleration, mm/frame², and wrist-aligned, mm")
    print("\n| |", " | ".join(f"{times} ×" for times in SPEEDS), "|")
    print("|---|" + "---|" * len(SPEEDS))
    for cutoff_hz in (None, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        cells = []
        for own, own_tracks in columns:
            each = [
                errors(
                    track
                    if cutoff_hz is None
                    else smooth(track, own.times_s, hands, cutoff_hz=cutoff_hz),
                    track.frames,
                    own,
                    hands,
                )
                for track in own_tracks
            ]
            mean = Errors(*np.average(each, 0, [len(track) for track in own_tracks]))
            cells.append(f"{mean.acceleration:.2f}, {mean.wrist_aligned:.2f}")
        name = "each frame by itself" if cutoff_hz is None else f"{cutoff_hz:g} Hz"
        print(f"| {name} |", " | ".join(cells), "|")


def faster(
    sequence: Sequence, tracks: list[HandTrack], times: int
) -> tuple[Sequence, list[HandTrack]]:
    """Every second frame, or every third, as if they followed each other at the same rate."""
    rows = []
    for track in tracks:
        kept = track.frames % times == 0
        arrays = {
            name: value[kept]
            for name, value in vars(track).items()
            if isinstance(value, np.ndarray)
        }
        arrays["frames"] = arrays["frames"] // times
        rows.append(dataclasses.replace(track, **arrays))
    own = dataclasses.replace(
        sequence, times_s=sequence.times_s[::times] / times, joints=sequence.joints[::times]
    )
    return own, rows


def still_tracks(sequence: Sequence, number: int, noise: str) -> list[HandTrack]:
    """A frame's hands over and over, each time with other noise of 2 % of their boxes.

    Args:
      sequence: whose frame it is.
      number: of the frame.
      noise: "box": of middle and side of the square that the landmark network sees, and in the
        picture a camera's; "keypoints": of each keypoint by itself.
    """
    folder = weights_dir(None)
    network = LiteRTNetwork(folder / LANDMARKS_FILE, 2)
    engine = Engine(load_hands(None), detector=None)
    picture = sequence.frame(number)
    random = np.random.default_rng(number)
    found = {hand.side: hand for hand in MediaPipeHands()(picture)}
    detections = []
    for _ in range(STILL_FRAMES):
        noisy = np.clip(picture + random.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
        hands = []
        for hand in found.values():
            if noise == "keypoints":
                scale = BOX_NOISE * max(hand.box_px[2:])
                points = hand.keypoints_px + random.normal(0, scale, (21, 2))
                hands.append(
                    dataclasses.replace(hand, keypoints_px=points, box_px=box_around(points))
                )
                continue
            region = landmarks.region_of_hand(hand.keypoints_px)
            x, y, larger = BOX_NOISE * region.side * random.normal(0, 1, 3)
            region = dataclasses.replace(
                region, x=region.x + x, y=region.y + y, side=region.side + larger
            )
            crop = Pyramid(noisy).crop(region, landmarks.INPUT_SIZE)
            points, presence, right, world = network(crop)
            own = landmarks.place_landmarks(region, points, world, presence.item(), right.item())
            hands.append(
                dataclasses.replace(
                    hand,
                    keypoints_px=own.keypoints_px,
                    box_px=box_around(own.keypoints_px),
                    joints_m=own.joints_m,
                )
            )
        detections.append(hands)
    rows: dict[str, list[tuple[int, Hand, DetectedHand]]] = {side: [] for side in found}
    results = engine.many(
        [picture] * STILL_FRAMES,
        detections=detections,
        focal_px=sequence.camera.focal_px,
        principal_point_px=sequence.camera.princpt_px,
    )
    for index, (detected, result) in enumerate(zip(detections, results, strict=True)):
        for fitted in (hand for person in result.persons for hand in person.hands):
            if fitted.side in rows:
                rows[fitted.side].append((index, fitted, _source(fitted, detected)))
    return [_track(0, side, own) for side, own in rows.items() if own]


def still_hands(sequence: Sequence, hands: HandModel) -> None:
    """Prints how far a still picture's joints go from their mean place."""
    print(f"\nstill pictures, noise of {BOX_NOISE:.0%} of the box, {STILL_FRAMES} frames: standard")
    print("deviation of joints, mm, wrist-relative (in space), the worst hand's in brackets")
    print("\n| | the network's box | each keypoint |")
    print("|---|---|---|")
    numbers = np.linspace(0, len(sequence) - 1, STILL_PICTURES + 2).astype(int)[1:-1]
    times = np.arange(STILL_FRAMES) / FRAME_RATE
    tracks = {
        noise: [track for number in numbers for track in still_tracks(sequence, number, noise)]
        for noise in ("box", "keypoints")
    }
    ways: dict[str, Callable[[HandTrack], HandTrack]] = {
        "each frame by itself": lambda track: track,
        "smoothed": lambda track: smooth(track, times, hands),
        "live": lambda track: live(track, times, hands),
    }
    for name, way in ways.items():
        cells = []
        for own in tracks.values():
            deviations = []
            for track in own:
                joints = way(track).meshes(hands)[1].astype(np.float64)
                relative = joints - joints[:, :1]
                deviations.append([1000 * _deviation(x) for x in (relative, joints)])
            mean, worst = np.mean(deviations, 0), np.max(deviations, 0)
            cells.append(f"{mean[0]:.2f} [{worst[0]:.2f}] ({mean[1]:.2f} [{worst[1]:.2f}])")
        print(f"| {name} |", " | ".join(cells), "|")


def _deviation(joints: np.ndarray) -> float:
    off = joints - joints.mean(0)
    return float(np.sqrt((off**2).sum(-1).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--cache", type=Path, help="folder")
    parser.add_argument("--still", action="store_true", help="still pictures too")
    options = parser.parse_args()
    hands = load_hands(None)
    sequence = draw_sequence(options.seed, options.seconds, FRAME_RATE, options.people)
    name = f"raw_{options.people}_{options.seed}_{options.seconds:g}.npz"
    tracks = cached(None if options.cache is None else options.cache / name, sequence)
    moving_hands(sequence, tracks, hands)
    speeds(sequence, tracks, hands)
    if options.still:
        still_hands(sequence, hands)


if __name__ == "__main__":
    main()
