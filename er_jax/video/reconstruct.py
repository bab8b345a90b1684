"""From a clip to the hands in it, in three passes, each kept so that a killed command goes on.

Hands are followed through the clip first, since only all of it tells whose and which side each is;
then they are fitted, many frames at a time; then smoothed as whole tracks.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from er_jax.fitting.fitter import BATCH_SIZES
from er_jax.mano import HANDS
from er_jax.photographs.engine import Engine, Starts
from er_jax.photographs.photograph import Photograph, PhotographCamera, blank, camera_of
from er_jax.photographs.result import Hand, Reconstruction
from er_jax.utils.progress import progress_bar
from er_jax.video import chunks
from er_jax.video.detected import hand_of
from er_jax.video.following import follow_clip
from er_jax.video.frames import Frames
from er_jax.video.observations import ROWS, Observations, settled
from er_jax.video.smoothing import smooth
from er_jax.video.track import Clip, HandTrack
from er_jax.video.tracking import Tracker

KEY_EVERY = 10
"""Frames from one that is fitted from nothing to the next."""


def fit_clip(
    engine: Engine,
    seen: Observations,
    camera: PhotographCamera,
    folder: Path | None = None,
    frames: Frames | None = None,
) -> list[HandTrack]:
    """Fits the hands of every frame, each person's together.

    Args:
      engine: that fits; with a network, it sees the frames.
      seen: settled.
      camera: of all frames.
      folder: see `follow_clip`.
      frames: of the clip, for an engine with a network.
    """
    known = [] if folder is None else chunks.kept(folder / "fitted")
    done = len(known)
    starts = range(0, len(seen.times_s), chunks.CHUNK)
    rows_done = min(done * chunks.CHUNK, len(seen.times_s))
    pictures = _pictures(seen, frames, rows_done)
    with progress_bar("Fitting", len(seen.times_s), "frames", rows_done) as bar:
        for number, first in list(enumerate(starts))[done:]:
            count = min(chunks.CHUNK, len(seen.times_s) - first)
            some = [next(pictures) for _ in range(count)]
            chunk = _fit_some(engine, seen, camera, first, some)
            if folder is not None:
                chunks.keep(folder / "fitted", number, chunk)
            known.append(chunk)
            bar.advance(count)
    columns = {name: np.concatenate([chunk[name] for chunk in known]) for name in known[0]}
    return _tracks(columns)


def reconstruct_clip(
    path: Path,
    engine: Engine,
    make_tracker: Callable[[], Tracker],
    *,
    folder: Path | None = None,
    smoothed: bool = True,
    frame_rate: float = 30.0,
    focal_px: float | tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
) -> Clip:
    """The hands of a clip.

    Args:
      path: of a video file, or of a folder of frames.
      engine: that fits the hands.
      make_tracker: a fresh tracker.
      folder: where what is done is kept; a later call of the same goes on with it. None: nowhere.
      smoothed: False: every frame's hands as they were fitted.
      frame_rate: of a folder of frames.
      focal_px: of the camera; None: assumed.
      principal_point_px: x, y; None: the middle.

    Raises:
      BadImageError: it is no clip.
      ConfigError: a focal length that is none.
    """
    frames = Frames.of(path, frame_rate=frame_rate)
    seen = settled(follow_clip(frames, make_tracker, folder))
    camera = camera_of(blank(seen.size_px), focal_px, principal_point_px)
    pictures = frames if engine.has_network else None
    tracks = fit_clip(engine, seen, camera, folder, pictures) if len(seen) else []
    if smoothed:
        tracks = [smooth(track, seen.times_s, engine.hand_model) for track in tracks]
    return Clip(
        name=path.stem if path.is_file() else path.name,
        size_px=seen.size_px,
        times_s=seen.times_s,
        camera=camera,
        tracks=tuple(tracks),
        hand_model=engine.hand_model.source,
        messages=_messages(camera, tracks, len(seen.times_s)),
    )


def _messages(camera: PhotographCamera, tracks: Sequence[HandTrack], count: int) -> tuple[str, ...]:
    if not tracks:
        return ("no hand was found",)
    said = [camera.doubt] if camera.doubt else []
    for track in tracks:
        missing = count - len(track)
        if missing or track.filled.any():
            said.append(
                f"person {track.person + 1}, {track.side} hand: in {len(track)} of {count} frames, "
                f"{int(track.filled.sum())} of them between others"
            )
    return tuple(said)


def _pictures(seen: Observations, frames: Frames | None, first: int) -> Iterator[Photograph]:
    if frames is None:
        yield from itertools.repeat(blank(seen.size_px))
        return
    for frame in frames.read_ahead():
        if frame.index >= first:
            yield Photograph(frame.pixels, stored_size_px=seen.size_px)


def _fit_some(
    engine: Engine,
    seen: Observations,
    camera: PhotographCamera,
    first: int,
    pictures: Sequence[Photograph],
) -> dict[str, np.ndarray]:
    """The hands of some frames, fitted."""
    persons: dict[tuple[int, int], list[int]] = defaultdict(list)
    low, high = np.searchsorted(seen.frame, (first, first + len(pictures)))
    for row in range(int(low), int(high)):
        persons[int(seen.frame[row]), int(seen.person[row])].append(row)
    items = [Item(frame, person, tuple(rows)) for (frame, person), rows in persons.items()]
    columns = {name: getattr(seen, name) for name in ROWS}

    def fit(some: Sequence[Item], starts: Sequence[Starts]) -> dict[Item, tuple[Hand, ...]]:
        def fit_part(part: Sequence[int]) -> list[Reconstruction]:
            return engine.many(
                [pictures[some[i].frame - first] for i in part],
                detections=[
                    [hand_of(columns, row, int(seen.side[row])) for row in some[i].rows]
                    for i in part
                ],
                starts=[starts[i] for i in part],
                focal_px=camera.focal_px,
                principal_point_px=camera.principal_point_px,
            )

        parts = map(fit_part, _batches(range(len(some)), BATCH_SIZES[-1]))
        hands = [result.hands for part in parts for result in part]
        return dict(zip(some, hands, strict=True))

    known = keys_of(items, seen.side)
    found = fit(known, [{}] * len(known))
    others = [item for item in items if item not in found]
    found |= fit(others, [_start_of(item, found, seen.side) for item in others])
    doubtful = [i for i in others if not all(hand.explained for hand in found[i])]
    for item, again in fit(doubtful, [{}] * len(doubtful)).items():
        if sum(h.reprojection for h in again) < sum(h.reprojection for h in found[item]):
            found[item] = again
    fitted: list[tuple[int, int, int, Hand]] = []
    for item in items:
        by_side = {int(seen.side[row]): row for row in item.rows}
        for hand in found[item]:
            row = by_side[HANDS.index(hand.side)]
            fitted.append((item.frame, item.person, row, hand))
    hands = [hand for *_, hand in fitted]

    def stacked(name: str, *shape: int) -> np.ndarray:
        return np.array([getattr(hand, name) for hand in hands], np.float32).reshape(-1, *shape)

    rows = np.array([row for _, _, row, _ in fitted], np.int64)
    return {
        "frame": np.array([frame for frame, *_ in fitted], np.int64),
        "person": np.array([person for _, person, *_ in fitted], np.int64),
        "side": seen.side[rows],
        "score": seen.score[rows],
        "keypoints_px": seen.keypoints_px[rows],
        "confidence": seen.confidence[rows],
        "betas": stacked("betas", 10),
        "rotations": stacked("rotations", 16, 3, 3),
        "transl": stacked("transl", 3),
        "joint_sigma_m": stacked("joint_sigma_m", 21),
        "depth_sigma_m": stacked("depth_sigma_m"),
    }


class Item(NamedTuple):
    """A person in a frame, and the rows of its hands."""

    frame: int
    person: int
    rows: tuple[int, ...]


def keys_of(items: Sequence[Item], side: np.ndarray) -> list[Item]:
    """Those that are fitted from nothing; all others start from the nearest of these.

    Of each person the first one, every `KEY_EVERY`th frame, and wherever a hand comes.
    """
    last: dict[int, Item] = {}
    keys = []
    for item in items:
        before = last.get(item.person)
        if (
            before is None
            or item.frame - before.frame >= KEY_EVERY
            or not {*side[[*item.rows]]} <= {*side[[*before.rows]]}
        ):
            keys.append(item)
            last[item.person] = item
    return keys


def _start_of(item: Item, found: Mapping[Item, tuple[Hand, ...]], side: np.ndarray) -> Starts:
    """The rotations of the nearest frame that has all of these hands."""
    sides = {HANDS[i] for i in side[[*item.rows]]}
    near = [
        (abs(other.frame - item.frame), hands)
        for other, hands in found.items()
        if other.person == item.person and abs(other.frame - item.frame) <= KEY_EVERY
    ]
    for _, hands in sorted(near, key=lambda pair: pair[0]):
        if sides <= {hand.side for hand in hands}:
            return {hand.side: hand.rotations for hand in hands}
    return {}


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _tracks(columns: dict[str, np.ndarray]) -> list[HandTrack]:
    tracks = []
    for person, side in np.unique(np.stack([columns["person"], columns["side"]], 1), axis=0):
        own = (columns["person"] == person) & (columns["side"] == side)
        named = {n: v[own] for n, v in columns.items() if n not in ("person", "side", "frame")}
        tracks.append(
            HandTrack(
                person=int(person),
                side=HANDS[side],
                frames=columns["frame"][own],
                filled=np.zeros(int(own.sum()), bool),
                **named,
            )
        )
    return tracks
