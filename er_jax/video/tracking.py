"""Hands followed from frame to frame: which hand is whose, seen as few times as is needed.

The detector searches the first frame and every few more; in between the landmark network looks
where each hand was going. A hand belongs to a person and is a right or a left one, and keeps both
when it crosses the other, leaves and comes back: one frame's doubt does not change it, only more
evidence than there was for it. Distances are in sizes of the hand (the longer side of its box).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from er_jax.detection import DetectedHand, Detector
from er_jax.detection.people import MAX_DISTANCE, pair_people
from er_jax.mano import HANDS
from er_jax.video.detected import arrays_of, hand_of, right_probability

EVERY, EVERY_IF_INCOMPLETE = 15, 6
"""Frames between two searches: where both hands of all persons are followed, and where not."""
SAME_HAND = 0.35
"""Mean distance of keypoints up to which an answer is of the hand that was followed."""
FAR = 1.5
"""Farthest that a hand goes from one frame to the next."""
SURE_SCORE = 0.5
MOST_EVIDENCE = 4.0
"""Of a side, in logits: a hand that was another's for long is still corrected within a second."""
FRAME_EVIDENCE = 0.7
"""Of a side, in logits, that one frame can give at most."""
_UNLIKE = 3.0  # cost of a hand that comes back on a side that its picture contradicts
_STRANGER = 4.0  # cost of a new person's hand
_SOUGHT_FRAMES = 5  # in which a hand that was lost is looked for where it was
_REMEMBERED_FRAMES = 15  # in which a hand that was lost is sought near to where it was


@runtime_checkable
class FollowingDetector(Detector, Protocol):
    """A detector that can also look for a hand where it is expected."""

    def follow(
        self, image: UInt8[np.ndarray, "H W 3"], keypoints_px: Float[np.ndarray, "n 21 2"]
    ) -> list[DetectedHand | None]:
        """The hands near to these keypoints; None where there is none."""
        ...


@dataclasses.dataclass(frozen=True)
class FollowedHand:
    """A hand of a frame, and whose it is.

    Attributes:
      person: number of the person.
      detected: its side is what all frames so far say, its `side_probability` what this one says
        of that side.
    """

    person: int
    detected: DetectedHand


@dataclasses.dataclass
class _Hand:
    """What is remembered of a hand that is or was there."""

    person: int
    side: int
    last: DetectedHand
    frame: int
    velocity: Float[np.ndarray, "21 2"]
    evidence: float = 0.0
    """That it is a right hand, in logits."""

    @property
    def expected(self) -> Float[np.ndarray, "21 2"]:
        return self.last.keypoints_px + self.velocity


class Tracker:
    """Follows the hands of all persons through frames, which must come one after the other.

    Args:
      detector: that finds them, and where it can also follows them.
      every: frames between two searches; None: `EVERY` and `EVERY_IF_INCOMPLETE`.
    """

    def __init__(self, detector: Detector, *, every: int | None = None):
        self._detector = detector
        self._every = (every, every) if every else (EVERY, EVERY_IF_INCOMPLETE)
        self._frame = -1
        self._searched = -math.inf
        self._hands: list[_Hand] = []
        self.searches = 0

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[FollowedHand]:
        """Returns the hands of the next frame, an RGB picture."""
        self._frame += 1
        lost = self._follow(image)
        if lost or self._frame - self._searched >= self._wait():
            self._search(image)
        self._settle_sides()
        return [
            FollowedHand(hand.person, _on_side(hand))
            for hand in sorted(self._hands, key=lambda hand: (hand.person, hand.side))
            if hand.frame == self._frame
        ]

    def state(self) -> dict[str, np.ndarray]:
        """All that is remembered, as arrays; `restore` takes it."""
        hands = self._hands
        return {
            "counters": np.array([self._frame, self._searched, self.searches], float),
            "persons": np.array([[h.person, h.side, h.frame] for h in hands], int).reshape(-1, 3),
            "evidence": np.array([hand.evidence for hand in hands], float),
            "velocity": np.array([hand.velocity for hand in hands]).reshape(-1, 21, 2),
            **arrays_of([hand.last for hand in hands]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on as the tracker whose state it is would."""
        frame, self._searched, searches = state["counters"].tolist()
        self._frame, self.searches = int(frame), int(searches)
        self._hands = []
        for i, (person, side, seen) in enumerate(state["persons"].tolist()):
            last = hand_of(state, i, int(state["right"][i] < 0.5))
            evidence = float(state["evidence"][i])
            hand = _Hand(person, side, last, seen, state["velocity"][i], evidence)
            self._hands.append(hand)

    def _wait(self) -> int:
        sides = [hand for hand in self._hands if hand.frame == self._frame]
        complete = len(sides) == len(self._hands) > 0 and len(sides) % 2 == 0
        return self._every[0 if complete else 1]

    def _follow(self, image: UInt8[np.ndarray, "H W 3"]) -> bool:
        """Looks where hands were going, and where one was a moment ago; says if one was lost."""
        there = [h for h in self._hands if self._frame - h.frame <= 1 + _SOUGHT_FRAMES]
        if not there:
            return False
        if not isinstance(self._detector, FollowingDetector):
            return True
        answers = self._detector.follow(image, np.stack([hand.expected for hand in there]))
        found = [
            (hand, answer)
            for hand, answer in zip(there, answers, strict=True)
            if answer is not None and _is_near(hand, answer)
        ]
        for hand, answer in _one_each(found):
            self._see(hand, answer)
        return any(hand.frame == self._frame - 1 for hand in there)

    def _search(self, image: UInt8[np.ndarray, "H W 3"]) -> None:
        self._searched = self._frame
        self.searches += 1
        found = [hand for hand in self._detector(image) if hand.score >= SURE_SCORE]
        fresh = []
        for answer in found:
            near = [
                (_apart(hand.last if hand.frame == self._frame else hand, answer), i)
                for i, hand in enumerate(self._hands)
                if self._frame - hand.frame <= 1 + _SOUGHT_FRAMES
            ]
            distance, index = min(near, default=(math.inf, -1))
            if distance > SAME_HAND:
                fresh.append(answer)
            elif self._hands[index].frame < self._frame:
                self._see(self._hands[index], answer)
        if fresh:
            self._place(fresh)

    def _place(self, fresh: list[DetectedHand]) -> None:
        """Hands that nobody followed: one that is back, the other one of a person, or a stranger's.

        All at once, by the least sum of costs.
        """
        slots = self._slots()
        costs = np.full((len(fresh), len(slots) + len(fresh)), _STRANGER)
        for i, answer in enumerate(fresh):
            for j, slot in enumerate(slots):
                costs[i, j] = self._cost(answer, *slot)
        strangers = []
        for i, j in zip(*linear_sum_assignment(costs), strict=True):
            if j >= len(slots):
                strangers.append(fresh[i])
                continue
            person, side = slots[j]
            known = self._hand(person, side)
            if known is None:
                self._add(person, side, fresh[i])
            else:
                known.velocity = np.zeros((21, 2))
                self._see(known, fresh[i], moved=False)
        first = 1 + max((hand.person for hand in self._hands), default=-1)
        for number, person in enumerate(pair_people(strangers), first):
            for hand in person.hands:
                self._add(number, HANDS.index(hand.side), hand)

    def _slots(self) -> list[tuple[int, int]]:
        """Persons' hands that are not there."""
        persons = sorted({hand.person for hand in self._hands})
        there = {(h.person, h.side) for h in self._hands if h.frame == self._frame}
        return [(p, s) for p in persons for s in (0, 1) if (p, s) not in there]

    def _cost(self, answer: DetectedHand, person: int, side: int) -> float:
        """Of taking a hand for this one of a person."""
        right = right_probability(answer)
        unlike = _UNLIKE * max(0.0, (1 - right if side == 0 else right) - 0.5) * 2
        known = self._hand(person, side)
        other = self._hand(person, 1 - side)
        if known is not None and self._frame - known.frame <= _REMEMBERED_FRAMES:
            return unlike + min(_apart(known, answer), 3.0) / 2
        if other is not None and other.frame == self._frame:
            apart = math.dist(_middle(other.last), _middle(answer)) / _size(other.last, answer)
            return unlike + (apart / MAX_DISTANCE if apart <= MAX_DISTANCE else _STRANGER)
        nearest = min(
            (_apart(hand, answer) for hand in (known, other) if hand is not None), default=0.0
        )
        return unlike + min(nearest / MAX_DISTANCE, 1.0)

    def _hand(self, person: int, side: int) -> _Hand | None:
        of = (hand for hand in self._hands if (hand.person, hand.side) == (person, side))
        return next(of, None)

    def _add(self, person: int, side: int, answer: DetectedHand) -> None:
        hand = _Hand(person, side, answer, self._frame, np.zeros((21, 2)))
        hand.evidence = _evidence(answer)
        self._hands.append(hand)

    def _see(self, hand: _Hand, answer: DetectedHand, *, moved: bool = True) -> None:
        if moved:
            step = (answer.keypoints_px - hand.last.keypoints_px) / (self._frame - hand.frame)
            hand.velocity = np.repeat(step.mean(axis=0)[None], 21, axis=0)
        hand.last, hand.frame = answer, self._frame
        total = hand.evidence + _evidence(answer)
        hand.evidence = float(np.clip(total, -MOST_EVIDENCE, MOST_EVIDENCE))

    def _settle_sides(self) -> None:
        """Gives the hands of a person the sides that all that was seen of them speaks for."""
        for person in {hand.person for hand in self._hands}:
            right, left = (self._hand(person, side) for side in (0, 1))
            now = sum(
                sign * hand.evidence
                for sign, hand in ((1, right), (-1, left))
                if hand is not None and hand.frame == self._frame
            )
            limit = MOST_EVIDENCE / 2 * sum(hand is not None for hand in (right, left))
            if now <= -limit:
                for hand in (right, left):
                    if hand is not None:
                        hand.side = 1 - hand.side


def _one_each(found: list[tuple[_Hand, DetectedHand]]) -> list[tuple[_Hand, DetectedHand]]:
    """Where two hands were found in one place, the one that it is."""
    kept: list[tuple[_Hand, DetectedHand]] = []
    for hand, answer in sorted(found, key=lambda pair: _mismatch(*pair)):
        if all(_apart(other, answer) > SAME_HAND for _, other in kept):
            kept.append((hand, answer))
    return kept


def _mismatch(hand: _Hand, answer: DetectedHand) -> float:
    """How little an answer is like the hand that was followed."""
    right = right_probability(answer)
    return _apart(hand, answer) + (1 - right if hand.side == 0 else right)


def _is_near(hand: _Hand, answer: DetectedHand) -> bool:
    return answer.score >= SURE_SCORE and _apart(hand, answer) < FAR


def _apart(hand: _Hand | DetectedHand, answer: DetectedHand) -> float:
    """Mean distance of keypoints, in sizes of the larger one."""
    last = hand.last if isinstance(hand, _Hand) else hand
    expected = hand.expected if isinstance(hand, _Hand) else hand.keypoints_px
    distance = np.linalg.norm(expected - answer.keypoints_px, axis=1).mean()
    return float(distance / _size(last, answer))


def _size(*hands: DetectedHand) -> float:
    return max(1.0, *(float(np.max(hand.box_px[2:])) for hand in hands))


def _middle(hand: DetectedHand) -> tuple[float, float]:
    x, y = np.asarray(hand.box_px[:2]) + np.asarray(hand.box_px[2:]) / 2
    return float(x), float(y)


def _evidence(hand: DetectedHand) -> float:
    right = np.clip(right_probability(hand), 1e-3, 1 - 1e-3)
    logit = float(np.log(right / (1 - right)))
    return float(np.clip(logit, -FRAME_EVIDENCE, FRAME_EVIDENCE))


def _on_side(hand: _Hand) -> DetectedHand:
    right = right_probability(hand.last)
    return dataclasses.replace(
        hand.last,
        side="left" if hand.side else "right",
        side_probability=right if hand.side == 0 else 1 - right,
    )
