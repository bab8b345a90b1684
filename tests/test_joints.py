"""Joint sets: their names and orders, and conversion between them by name."""

import numpy as np
import pytest

from er_jax.mano import (
    HAND21,
    HANDS,
    INTAGHAND_TIP_VERTICES,
    INTERHAND21,
    MANO16,
    PARENTS,
    TIP_VERTICES,
    joint_order,
)

SETS = {"MANO16": MANO16, "HAND21": HAND21, "INTERHAND21": INTERHAND21}


def test_orders_as_their_sources_list_them():
    assert MANO16[:4] == ("Wrist", "Index_1", "Index_2", "Index_3")
    assert MANO16[4::3] == ("Middle_1", "Pinky_1", "Ring_1", "Thumb_1")
    assert HAND21[:6] == ("Wrist", "Thumb_1", "Thumb_2", "Thumb_3", "Thumb_4", "Index_1")
    assert HAND21[4::4] == ("Thumb_4", "Index_4", "Middle_4", "Ring_4", "Pinky_4")
    assert INTERHAND21[:5] == ("Thumb_4", "Thumb_3", "Thumb_2", "Thumb_1", "Index_4")
    assert INTERHAND21[16:] == ("Pinky_4", "Pinky_3", "Pinky_2", "Pinky_1", "Wrist")
    assert HANDS == ("right", "left")


def test_sets_hold_the_same_joints():
    assert [len(names) for names in SETS.values()] == [16, 21, 21]
    assert all(len(set(names)) == len(names) for names in SETS.values())
    assert set(HAND21) == set(INTERHAND21) == set(MANO16) | set(TIP_VERTICES)
    assert not set(MANO16) & set(TIP_VERTICES)


def test_fingertip_vertices():
    tips = {"Thumb_4": 745, "Index_4": 317, "Middle_4": 445, "Ring_4": 556, "Pinky_4": 673}
    assert tips == TIP_VERTICES
    assert tips | {"Middle_4": 444} == INTAGHAND_TIP_VERTICES


def test_a_finger_hangs_on_the_wrist_joint_by_joint():
    for joint, name in enumerate(MANO16[1:], start=1):
        finger, place = name.split("_")
        above = "Wrist" if place == "1" else f"{finger}_{int(place) - 1}"
        assert MANO16[PARENTS[joint]] == above
    assert PARENTS[0] == -1
    with pytest.raises(ValueError, match="read-only"):
        PARENTS[0] = 0


@pytest.mark.parametrize("target", SETS)
@pytest.mark.parametrize("source", SETS)
def test_joints_keep_their_names(source, target):
    source_names, target_names = SETS[source], SETS[target]
    common = [name for name in target_names if name in source_names]
    reordered = np.array(source_names)[joint_order(source_names, common)]
    assert reordered.tolist() == common


def test_there_and_back_is_the_identity():
    positions = np.random.default_rng(0).normal(size=(5, 2, 21, 3))
    there = positions[..., joint_order(HAND21, INTERHAND21), :]
    np.testing.assert_array_equal(there[..., 20, :], positions[..., 0, :])
    np.testing.assert_array_equal(there[..., joint_order(INTERHAND21, HAND21), :], positions)


def test_one_finger_of_any_names():
    assert joint_order(("a", "b", "c"), ("c", "a")).tolist() == [2, 0]
    assert joint_order(("a",), ()).shape == (0,)


def test_missing_and_repeated_joints_are_named():
    with pytest.raises(ValueError, match=r"joints \['Thumb_4', 'Index_4'.* are not among"):
        joint_order(MANO16, HAND21)
    with pytest.raises(ValueError, match=r"occurs twice in \('Wrist', 'Wrist'\)"):
        joint_order(("Wrist", "Wrist"), ("Wrist",))
