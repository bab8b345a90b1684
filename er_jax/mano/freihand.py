"""FreiHAND's 21 joints of a hand with MANO's parameters; they are not quite this project's.

Its own hand model (`utils/model.py` and `utils/mano_utils.py` of github.com/lmb-freiburg/freihand)
takes the ends of the turned bones, not the joints of the posed mesh, and other vertices for the
fingertips. Their order is Hand 21.
"""

import numpy as np
from jaxtyping import Float

from er_jax.mano.conventions import FREIHAND_TIP_VERTICES, kinematic_joints, pose_to_rotations
from er_jax.mano.joints import HAND21, MANO16, joint_order
from er_jax.mano.model import HandModel

_ORDER = joint_order((*MANO16, *FREIHAND_TIP_VERTICES), HAND21)


def freihand_bones(
    hand: HandModel, betas: Float[np.ndarray, "*batch 10"], pose: Float[np.ndarray, "*batch 48"]
) -> Float[np.ndarray, "*batch 16 3"]:
    """FreiHAND's joints but the fingertips, in the order `MANO16`, of a hand that is not moved.

    Args:
      hand: the right hand's model.
      betas: shape coefficients.
      pose: axis-angle without the mean pose.
    """
    rotations = pose_to_rotations(pose, np.asarray(hand.mean_pose))
    return kinematic_joints(hand, betas, rotations, np.zeros(3))


def freihand_joints(
    bones: Float[np.ndarray, "*batch 16 3"], vertices: Float[np.ndarray, "*batch 778 3"]
) -> Float[np.ndarray, "*batch 21 3"]:
    """All of FreiHAND's joints of a hand, its `freihand_bones` moved as its vertices are."""
    tips = vertices[..., list(FREIHAND_TIP_VERTICES.values()), :]
    return np.concatenate([bones, tips], axis=-2)[..., _ORDER, :]
