"""Joint sets of the hand, by name, and conversion between them by name.

Every set below is of one hand; two hands are a leading axis in the order of `HANDS`.
"""

from collections.abc import Sequence

import numpy as np

HANDS = ("right", "left")

FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")

MANO16 = (
    "Wrist",
    *(f"{f}_{i}" for f in ("Index", "Middle", "Pinky", "Ring", "Thumb") for i in (1, 2, 3)),
)
"""Rows of MANO's joint regressor."""

HAND21 = ("Wrist", *(f"{f}_{i}" for f in FINGERS for i in (1, 2, 3, 4)))
"""The network's order: from the wrist outwards, finger by finger; `_4` is the fingertip."""

INTERHAND21 = (*(f"{f}_{i}" for f in FINGERS for i in (4, 3, 2, 1)), "Wrist")
"""InterHand2.6M's annotation order: each finger from the tip inwards, the wrist last."""

PARENTS = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
"""Parent of each joint of `MANO16`; -1 for the root."""
PARENTS.setflags(write=False)

TIP_VERTICES = {"Thumb_4": 745, "Index_4": 317, "Middle_4": 445, "Ring_4": 556, "Pinky_4": 673}
"""Vertices that stand for the fingertips, which MANO's regressor does not give."""

INTAGHAND_TIP_VERTICES = {**TIP_VERTICES, "Middle_4": 444}
"""The same as IntagHand's evaluation takes them (protocol `scale_aligned`)."""


def joint_order(source_names: Sequence[str], target_names: Sequence[str]) -> np.ndarray:
    """Indices that reorder joints of `source_names` into `target_names`.

    `joints_target = joints_source[..., joint_order(source_names, target_names), :]`.

    Raises:
      ValueError: a target joint is not among the source's, or a name occurs twice.
    """
    position = {name: index for index, name in enumerate(source_names)}
    if len(position) != len(source_names):
        raise ValueError(f"a joint name occurs twice in {tuple(source_names)}")
    missing = [name for name in target_names if name not in position]
    if missing:
        raise ValueError(f"joints {missing} are not among the source's {tuple(source_names)}")
    return np.array([position[name] for name in target_names], dtype=np.int32)
