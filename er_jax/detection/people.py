"""Hands of a picture paired into persons."""

import dataclasses
import math

import numpy as np

from er_jax.detection.types import DetectedHand, Side

MAX_DISTANCE = 6.0
"""Between the middles of a person's hands, in sizes of the larger one.

A hand is about 0.18 m long, folded half of that; arms hang or gesture less than 1 m apart. Hands
farther apart are paired too where no other hand is in the picture.
"""
MAX_SIZE_RATIO = 2.5
"""Of a person's hands: one may be folded, seen from its end, or nearer to the camera."""
RELABEL_DISTANCE = 1.5
"""In sizes of the larger: two hands of one side as near as this may be one person's."""
RELABEL_SIZE_RATIO = 1.6


@dataclasses.dataclass(frozen=True)
class Person:
    """The hands of one person; at least one is there."""

    right: DetectedHand | None
    left: DetectedHand | None

    @property
    def hands(self) -> tuple[DetectedHand, ...]:
        """Those that are there, the right one first."""
        return tuple(hand for hand in (self.right, self.left) if hand is not None)


def pair_people(hands: list[DetectedHand]) -> list[Person]:
    """Each hand in exactly one person, from the left of the picture to its right.

    The cost of a pair is the distance of its middles over the larger hand's size, times the ratio
    of the sizes. The cheapest pair of a right and a left hand is made first, and so on, of hands
    not farther apart than `MAX_DISTANCE` and of sizes within `MAX_SIZE_RATIO`. Two hands that are
    alone in a picture may be any distance apart.

    Two hands of one side that are left over then, nearly touch (`RELABEL_DISTANCE`) and are of
    about one size are taken for one person's: the one with the lower `side_probability` becomes the
    other side's, with the probability that this side had. (Two persons who shake right hands keep
    theirs where their left hands are seen too.)
    """
    free = sorted(hands, key=lambda hand: (*_middle(hand), hand.side, hand.score))
    limit = math.inf if len(free) == 2 else MAX_DISTANCE
    people = [
        _person(one, two)
        for one, two in _pairs(free, same_side=False, distance=limit, ratio=MAX_SIZE_RATIO)
    ]
    people += [
        _person(one, two)
        for one, two in _pairs(
            free, same_side=True, distance=RELABEL_DISTANCE, ratio=RELABEL_SIZE_RATIO
        )
    ]
    people += [_person(hand) for hand in free]
    return sorted(people, key=lambda person: min(_middle(hand) for hand in person.hands))


def _pairs(
    free: list[DetectedHand], *, same_side: bool, distance: float, ratio: float
) -> list[tuple[DetectedHand, DetectedHand]]:
    """The pairs among the free hands, cheapest first; they are free no more."""
    candidates = []
    for i, one in enumerate(free):
        for j, two in enumerate(free[:i]):
            if (one.side == two.side) != same_side:
                continue
            small, large = sorted((_size(one), _size(two)))
            apart = math.dist(_middle(one), _middle(two)) / large
            if apart <= distance and large <= ratio * small:
                candidates.append((apart * large / small, j, i))
    taken: set[int] = set()
    pairs = []
    for _, j, i in sorted(candidates):
        if not taken & {i, j}:
            taken |= {i, j}
            pairs.append((free[j], free[i]))
    free[:] = [hand for index, hand in enumerate(free) if index not in taken]
    return pairs


def _person(one: DetectedHand, two: DetectedHand | None = None) -> Person:
    if two is None:
        return Person(**{"right": None, "left": None, one.side: one})
    if one.side == two.side:
        one, two = sorted((one, two), key=lambda hand: -hand.side_probability)
        other: Side = "left" if two.side == "right" else "right"
        two = dataclasses.replace(two, side=other, side_probability=1 - two.side_probability)
    return Person(**{one.side: one, two.side: two})


def _middle(hand: DetectedHand) -> tuple[float, float]:
    x, y = np.asarray(hand.box_px[:2]) + np.asarray(hand.box_px[2:]) / 2
    return float(x), float(y)


def _size(hand: DetectedHand) -> float:
    """Longer side of the box; at least a pixel, so that sizes can be divided."""
    return max(float(np.max(hand.box_px[2:])), 1.0)
