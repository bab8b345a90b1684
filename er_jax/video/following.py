"""The first pass of a clip: its hands followed through all frames. No JAX here."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from er_jax.mano.joints import HANDS
from er_jax.utils.errors import BadImageError
from er_jax.utils.progress import progress_bar
from er_jax.video import chunks
from er_jax.video.detected import arrays_of
from er_jax.video.frames import Frame, Frames
from er_jax.video.observations import ROWS, Observations
from er_jax.video.tracking import FollowedHand, Tracker


def follow_clip(
    frames: Frames, make_tracker: Callable[[], Tracker], folder: Path | None = None
) -> Observations:
    """Follows the hands through a clip.

    Args:
      frames: of the clip.
      make_tracker: a fresh tracker.
      folder: where what is done is kept, and found by a later call; None: nowhere.

    Raises:
      BadImageError: no frame can be decoded.
    """
    tracker = make_tracker()
    known = [] if folder is None else chunks.kept(folder / "seen")
    done = sum(len(chunk["times_s"]) for chunk in known)
    if known:
        tracker.restore(
            {k.removeprefix("state_"): v for k, v in known[-1].items() if "state_" in k}
        )
    size_px = tuple(known[0]["size_px"].tolist()) if known else None
    with progress_bar("Following", max(frames.count, done), "frames", done) as bar:
        waiting = itertools.dropwhile(lambda frame: frame.index < done, frames.read_ahead())
        for number, some in enumerate(_chunks(waiting, chunks.CHUNK), len(known)):
            rows: list[tuple[int, FollowedHand]] = []
            for frame in some:
                rows += [(frame.index, hand) for hand in tracker(frame.pixels)]
                bar.advance()
            size_px = size_px or (some[0].pixels.shape[1], some[0].pixels.shape[0])
            chunk = _table(rows)
            chunk["times_s"] = np.array([frame.time_s for frame in some])
            chunk["size_px"] = np.array(size_px)
            if folder is not None:
                state = {f"state_{name}": value for name, value in tracker.state().items()}
                chunks.keep(folder / "seen", number, chunk | state)
            known.append(chunk)
    if not known or size_px is None:
        raise BadImageError(f"{frames.path}: it has no frame")
    columns = {name: np.concatenate([chunk[name] for chunk in known]) for name in ROWS}
    times = np.concatenate([chunk["times_s"] for chunk in known])
    return Observations(times_s=times, size_px=(size_px[0], size_px[1]), **columns)


def _chunks(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Frames, some at a time; each list is filled while it is read."""
    while first := list(itertools.islice(frames, size)):
        yield first


def _table(rows: Sequence[tuple[int, FollowedHand]]) -> dict[str, np.ndarray]:
    hands = [hand.detected for _, hand in rows]
    return {
        "frame": np.array([frame for frame, _ in rows], np.int64),
        "person": np.array([hand.person for _, hand in rows], np.int64),
        "side": np.array([HANDS.index(hand.side) for hand in hands], np.int64),
        **arrays_of(hands),
    }
