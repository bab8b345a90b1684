"""The drawn hand under MANO's own keys, with MANO's sizes."""

import numpy as np
from jaxtyping import Float

from data_pipeline.synthetic.poses import axis_angle_from, resting_pose
from data_pipeline.synthetic.skeleton import to_mano_axes
from er_jax.mano import PARENTS
from tools.stand_in_hand.deformation import pose_directions, shape_directions
from tools.stand_in_hand.surface import hand_surface, to_mano_position
from tools.stand_in_hand.weights import joint_regressor, skinning_weights


def right_hand() -> dict[str, np.ndarray]:
    """The right hand's arrays as `er_jax.mano.stand_in.stand_in_arrays` gives them."""
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
        "hands_mean": resting_pose(),
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
