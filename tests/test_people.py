"""Every hand is in one person; near hands of different sides pair, two of one side are mended."""

import dataclasses
import itertools

import numpy as np
import pytest

from er_jax.detection import DetectedHand, pair_people


def hand(side, x, y=100.0, size=50.0, side_probability=0.9):
    return DetectedHand(
        side=side,
        side_probability=side_probability,
        score=0.9,
        box_px=np.array([x - size / 2, y - size / 2, size, size]),
        keypoints_px=np.full((21, 2), (x, y)),
        confidence=np.ones(21),
    )


def xs(people):
    """The middles of each person's right and left hand."""

    def x(found):
        return None if found is None else float(found.box_px[0] + found.box_px[2] / 2)

    return [(x(person.right), x(person.left)) for person in people]


def test_two_persons_side_by_side_keep_their_hands():
    hands = [hand("right", 100), hand("left", 190), hand("right", 500), hand("left", 590)]
    assert xs(pair_people(hands)) == [(100, 190), (500, 590)]


def test_the_order_of_the_hands_does_not_matter():
    hands = [hand("right", 100), hand("left", 200), hand("left", 300), hand("right", 700, size=20)]
    found = {tuple(xs(pair_people(list(order)))) for order in itertools.permutations(hands)}
    assert found == {((100, 200), (None, 300), (700, None))}


def test_hands_of_very_different_sizes_are_not_one_persons():
    hands = [hand("right", 100, size=200), hand("left", 180, size=40), hand("left", 400, size=190)]
    assert xs(pair_people(hands)) == [(100, 400), (None, 180)]


def test_two_hands_of_very_different_sizes_are_two_persons():
    assert len(pair_people([hand("right", 100, size=200), hand("left", 180, size=40)])) == 2


def test_a_hand_of_the_same_size_is_preferred_to_a_nearer_larger_one():
    hands = [hand("right", 100), hand("left", 200, size=110), hand("left", 25)]
    assert xs(pair_people(hands)) == [(100, 25), (None, 200)]


def test_hands_far_apart_pair_only_where_no_others_are():
    far = [hand("right", 100), hand("left", 900)]
    assert xs(pair_people(far)) == [(100, 900)]
    assert xs(pair_people([*far, hand("right", 120, y=700)])) == [
        (100, None),
        (120, None),
        (None, 900),
    ]


def test_two_crossed_hands_of_one_side_become_a_person():
    sure = hand("right", 100, side_probability=0.95)
    unsure = hand("right", 140, side_probability=0.7)
    for order in ([sure, unsure], [unsure, sure]):
        (person,) = pair_people(order)
        assert person.right is sure
        assert person.left.side == "left"
        assert person.left.side_probability == pytest.approx(0.3)
        np.testing.assert_array_equal(person.left.box_px, unsure.box_px)


def test_two_hands_of_one_side_apart_stay_two_persons():
    assert xs(pair_people([hand("right", 100), hand("right", 300)])) == [(100, None), (300, None)]


def test_persons_who_shake_hands_keep_their_right_hands():
    hands = [hand("left", 150), hand("right", 300), hand("right", 330), hand("left", 480)]
    assert xs(pair_people(hands)) == [(300, 150), (330, 480)]


def test_hands_alone_stay_alone():
    assert pair_people([]) == []
    one = hand("left", 10)
    (person,) = pair_people([one])
    assert person.hands == (one,)


def test_boxes_without_extent_are_paired_too():
    points = [dataclasses.replace(hand(side, 10), box_px=np.zeros(4)) for side in ("right", "left")]
    assert len(pair_people(points)) == 1
