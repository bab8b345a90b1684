"""The MANO hand model: files, layer, rotations and joint sets.

What needs JAX is imported when it is asked for: processes that look at pictures do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from er_jax.mano.files import HandFileError
from er_jax.mano.joints import (
    HAND21,
    HANDS,
    INTAGHAND_TIP_VERTICES,
    INTERHAND21,
    MANO16,
    PARENTS,
    TIP_VERTICES,
    joint_order,
)

if TYPE_CHECKING:
    from er_jax.mano.layer import (
        HandMesh,
        joints_from_vertices,
        mano_forward,
        pose_from_components,
    )
    from er_jax.mano.model import HandModel, hand_model, hand_model_identity, load_hands
    from er_jax.mano.rotations import (
        axis_angle_to_matrix,
        matrix_to_6d,
        matrix_to_axis_angle,
        rotation_6d_to_matrix,
    )

__all__ = [
    "HAND21",
    "HANDS",
    "INTAGHAND_TIP_VERTICES",
    "INTERHAND21",
    "MANO16",
    "PARENTS",
    "TIP_VERTICES",
    "HandFileError",
    "HandMesh",
    "HandModel",
    "axis_angle_to_matrix",
    "hand_model",
    "hand_model_identity",
    "joint_order",
    "joints_from_vertices",
    "load_hands",
    "mano_forward",
    "matrix_to_6d",
    "matrix_to_axis_angle",
    "pose_from_components",
    "rotation_6d_to_matrix",
]


def __getattr__(name: str) -> Any:
    """Imports what needs JAX."""
    if name in __all__:
        for module in ("layer", "model", "rotations"):
            found = vars(import_module(f"er_jax.mano.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module 'er_jax.mano' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
