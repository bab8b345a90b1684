"""What was seen of the hands of a clip, and which side each is by all frames together."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from er_jax.video.tracking import FRAME_EVIDENCE

SHORTEST_S = 0.15
"""Hands that were seen for less are taken for none."""
CHANGE = 2.5
"""Price, in logits, of taking a person's hands for each other."""
ALONE_FRAMES = 30
"""Before and after both hands of a person are seen, in which one may be taken for the other."""
NEAR = 1.5
"""Sizes between the middles of two hands, up to which the one may be taken for the other."""


@dataclasses.dataclass(frozen=True)
class Observations:
    """What was seen of all hands in the frames of a clip, N of them; frames ascending.

    Attributes:
      times_s: of every frame.
      size_px: width and height.
      frame: of each hand.
      person: whose it is.
      side: 0 right, 1 left, by what was seen until then.
      right: probability by this frame alone that it is a right hand.
      score, keypoints_px, confidence, joints_m: of `DetectedHand`.
    """

    times_s: Float[np.ndarray, "F"]
    size_px: tuple[int, int]
    frame: np.ndarray
    person: np.ndarray
    side: np.ndarray
    right: np.ndarray
    score: np.ndarray
    keypoints_px: np.ndarray
    confidence: np.ndarray
    joints_m: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


ROWS = ("frame", "person", "side", "right", "score", "keypoints_px", "confidence", "joints_m")
"""Columns of `Observations`, a row a hand."""


def settled(seen: Observations) -> Observations:
    """The same with the sides that all frames together say, without hands seen too shortly."""
    logits = np.log(seen.right.clip(1e-3, 1 - 1e-3) / (1 - seen.right).clip(1e-3, 1 - 1e-3))
    evidence = logits.clip(-FRAME_EVIDENCE, FRAME_EVIDENCE)
    side = seen.side.copy()
    keep = np.ones(len(seen), bool)
    frame_s = float(np.median(np.diff(seen.times_s))) if len(seen.times_s) > 1 else 0.0
    for person in np.unique(seen.person):
        own = np.flatnonzero(seen.person == person)
        frames, row = np.unique(seen.frame[own], return_inverse=True)
        renamed = _renamed(seen, own, frames)[row]
        side[own] = np.where(renamed, 1 - side[own], side[own])
        speaks = np.where(side[own] == 0, evidence[own], -evidence[own])
        votes = np.bincount(row, speaks)
        swapped = _swapped(votes, _may_change(seen, side, own, frames))
        side[own] = np.where(swapped[row], 1 - side[own], side[own])
        for one in (0, 1):
            hand = own[side[own] == one]
            if len(hand) * frame_s < SHORTEST_S:
                keep[hand] = False
    rows = {name: getattr(seen, name)[keep] for name in ROWS if name != "side"}
    return dataclasses.replace(seen, side=side[keep], **rows)


def _renamed(seen: Observations, own: np.ndarray, frames: np.ndarray) -> Bool[np.ndarray, "n"]:
    """In which frames a person's hands have each other's names of before, though they went on."""
    renamed = np.zeros(len(frames), bool)
    before: dict[int, np.ndarray] = {}
    for i, frame in enumerate(frames):
        rows = own[seen.frame[own] == frame]
        now = {int(seen.side[row]): seen.keypoints_px[row] for row in rows}
        exchanged = i > 0 and all(
            _apart(points, before.get(1 - side)) < _apart(points, before.get(side)) / 2
            for side, points in now.items()
        )
        renamed[i] = exchanged ^ (i > 0 and bool(renamed[i - 1]))
        before = now
    return renamed


def _apart(points: np.ndarray, others: np.ndarray | None) -> float:
    return np.inf if others is None else float(np.linalg.norm(points - others, axis=1).mean())


def _may_change(
    seen: Observations, side: np.ndarray, own: np.ndarray, frames: np.ndarray
) -> Bool[np.ndarray, "n"]:
    """In which frames of a person the one hand may have been taken for the other.

    Where both are near to each other, where one of them appears or was lost, and for a while before
    and after that: who was followed to the other one's place was taken for it there.
    """
    rows = [own[seen.frame[own] == frame] for frame in frames]
    sides = [tuple(sorted(side[some].tolist())) for some in rows]
    may = np.ones(len(frames), bool)
    both = np.array([frame for frame, some in zip(frames, sides, strict=True) if len(some) == 2])
    for i in range(1, len(frames)):
        points = seen.keypoints_px[rows[i]]
        near = False
        if len(points) == 2:
            apart = np.linalg.norm(points[0].mean(0) - points[1].mean(0))
            near = apart < NEAR * np.ptp(points, axis=1).max()
        alone = len(points) == 1 and bool((np.abs(both - frames[i]) <= ALONE_FRAMES).any())
        may[i] = near or alone or sides[i] != sides[i - 1] or frames[i] != frames[i - 1] + 1
    return may


def _swapped(
    votes: Float[np.ndarray, "n"], may_change: Bool[np.ndarray, "n"]
) -> Bool[np.ndarray, "n"]:
    """In which frames a person's hands are the other way round: the likeliest sequence (Viterbi).

    Args:
      votes: evidence of each frame that they are as they are, in logits.
      may_change: where that may change, at the price of `CHANGE`.
    """
    best = np.array([votes[0], -votes[0]]) / 2
    came_from = np.zeros((len(votes), 2), int)
    for i in range(1, len(votes)):
        price = CHANGE if may_change[i] else np.inf
        from_other = best[::-1] - price > best
        came_from[i] = np.where(from_other, [1, 0], [0, 1])
        best = np.where(from_other, best[::-1] - price, best) + np.array([votes[i], -votes[i]]) / 2
    state = int(np.argmax(best))
    states = np.empty(len(votes), bool)
    for i in range(len(votes) - 1, -1, -1):
        states[i] = state
        state = came_from[i, state]
    return states
