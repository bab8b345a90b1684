"""A procedural stand-in for the MANO hand model, with MANO's sizes and keys.

The real files need a registration; this one needs nothing. It is drawn, not scanned: bones
(`skeleton`), a cage of quadrilaterals (`cage`) moved onto the flesh around the bones (`flesh`,
`surface`), shares of the bones in the skin (`weights`), shapes and correctives (`deformation`), and
poses that a hand can take (`poses`, `contact`). Deterministic, numpy only.
"""

from er_jax.mano.stand_in.arrays import stand_in_arrays
from er_jax.mano.stand_in.deformation import SHAPE_NAMES
from er_jax.mano.stand_in.poses import axis_angle_from, gestures, pose_limits, sample_pose

__all__ = [
    "SHAPE_NAMES",
    "axis_angle_from",
    "gestures",
    "pose_limits",
    "sample_pose",
    "stand_in_arrays",
]
