"""The stand-in hand under MANO's own keys, with MANO's sizes."""

import functools

import numpy as np
from jaxtyping import Float

from er_jax.mano.stand_in.deformation import pose_directions, shape_directions
from er_jax.mano.stand_in.poses import axis_angle_from, resting_pose
from er_jax.mano.stand_in.skeleton import PARENTS, to_mano_axes, to_mano_position
from er_jax.mano.stand_in.surface import hand_surface
from er_jax.mano.stand_in.weights import joint_regressor, skinning_weights


def stand_in_arrays(side: str) -> dict[str, np.ndarray]:
    """The stand-in hand as plain arrays under MANO's own keys, metres, float64 and integers.

    v_template (778,3), shapedirs (778,3,10), posedirs (778,3,135), J_regressor (16,778),
    weights (778,16), f (1538,3), kintree_table (2,16), hands_mean (45), hands_components (45,45).
    The left hand is the right one mirrored in x.

    Raises:
        ValueError: `side` is neither "right" nor "left".
    """
    if side not in ("right", "left"):
        raise ValueError(f'side is {side!r}; it must be "right" or "left"')
    arrays = {key: value.copy() for key, value in _right_hand().items()}
    if side == "left":
        turned = np.tile([1.0, -1.0, -1.0], 15)
        arrays["v_template"][:, 0] *= -1.0
        arrays["shapedirs"][:, 0] *= -1.0
        arrays["posedirs"][:, 0] *= -1.0
        arrays["posedirs"] *= np.tile([1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], 15)
        arrays["f"] = arrays["f"][:, ::-1].copy()
        arrays["hands_mean"] *= turned
        arrays["hands_components"] *= turned
    return arrays


@functools.cache
def _right_hand() -> dict[str, np.ndarray]:
    surface, weights = hand_surface(), skinning_weights()
    parents = np.array((2**32 - 1, *PARENTS[1:]))
    return {
        "v_template": to_mano_position(surface.vertices),
        "shapedirs": to_mano_axes(np.swapaxes(shape_directions(weights), 1, 2)).swapaxes(1, 2),
        "posedirs": pose_directions(weights),
        "J_regressor": joint_regressor(weights),
        "weights": weights,
        "f": surface.faces.astype(np.int64),
        "kintree_table": np.stack([parents, np.arange(16)]),
        "hands_mean": resting_pose().copy(),
        "hands_components": _pose_components(),
    }


def _pose_components() -> Float[np.ndarray, "45 45"]:
    """Rows: orthonormal directions of the pose, from whole-hand movements to single joints."""
    movements = np.zeros((10, 15, 3))
    fingers, thumb = np.arange(12), np.arange(12, 15)
    movements[0, fingers, 0] = np.tile([1.0, 1.1, 0.7], 4)
    movements[1, thumb, 0], movements[1, 12, 1] = (0.5, 0.8, 0.8), -0.6
    movements[2, [0, 3, 6, 9], 1] = (0.8, 0.1, -1.0, -0.4)
    for row, finger in enumerate((0, 2, 1, 3)):
        movements[3 + row, 3 * finger : 3 * finger + 3, 0] = (1.0, 1.0, 0.7)
    movements[7, fingers, 0] = np.tile([1.0, -0.8, -0.5], 4)
    movements[8, 12] = (0.3, 1.0, 0.4)
    movements[9, thumb, 0] = (-0.3, 1.0, -0.8)
    spanning = np.concatenate([axis_angle_from(movements), np.eye(45)]).T
    basis: list[np.ndarray] = []
    for column in spanning.T:
        rest = column.copy()
        for _ in range(2):
            for earlier in basis:
                rest -= (rest @ earlier) * earlier
        size = np.linalg.norm(rest)
        if size > 1e-2:
            basis.append(rest / size)
    return np.array(basis)
