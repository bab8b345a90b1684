"""Shape directions and pose correctives of the stand-in hand."""

import numpy as np
from jaxtyping import Float

from data_pipeline.synthetic.poses import joint_axes
from data_pipeline.synthetic.skeleton import (
    FINGERS,
    rotation_matrices,
    skeleton,
    to_mano_axes,
)
from er_jax.mano import PARENTS
from tools.stand_in_hand.surface import hand_surface, to_mano_position
from tools.stand_in_hand.weights import moved_by

SHAPE_NAMES = (
    "size",
    "finger length",
    "breadth",
    "stoutness",
    "palm length",
    "thumb length",
    "index against ring",
    "little finger length",
    "middle finger length",
    "fingertips",
)
"""What each shape direction makes larger."""


def shape_directions(weights: np.ndarray) -> Float[np.ndarray, "778 3 10"]:
    """Displacements (distal, radial, dorsal) in mm per unit of each shape direction.

    Bones are stretched, and the skin follows them by its weights.
    """
    points, hand = hand_surface().vertices, skeleton()
    directions = np.zeros((len(points), 3, 10))
    for mode, strain in enumerate(_bone_strains()):
        origin = np.zeros((16, 3))
        for joint in range(16):
            stretch = hand.frames[joint] @ np.diag(strain[joint]) @ hand.frames[joint].T
            for child in range(joint + 1, 16):
                if PARENTS[child] == joint:
                    arm = hand.joints[child] - hand.joints[joint]
                    origin[child] = origin[joint] + stretch @ arm
            moved = origin[joint] + (points - hand.joints[joint]) @ stretch
            directions[:, :, mode] += weights[:, joint, None] * moved
    return directions


def _bone_strains() -> Float[np.ndarray, "10 16 3"]:
    """Relative growth per unit of each shape direction: bone; along, sideways, back to front."""
    palm, fingers, thumb = [0], list(range(1, 13)), [13, 14, 15]
    bones = {name: [1 + 3 * i, 2 + 3 * i, 3 + 3 * i] for i, name in enumerate(FINGERS)}
    strains = np.zeros((10, 16, 3))
    strains[0] = 0.035
    strains[1, fingers, 0], strains[1, thumb, 0] = 0.045, 0.03
    strains[2, palm, 1] = 0.05
    strains[2, fingers + thumb, 1] = 0.04
    strains[3, palm, 1], strains[3, palm, 2] = 0.02, 0.06
    strains[3, fingers + thumb, 1], strains[3, fingers + thumb, 2] = 0.035, 0.06
    strains[4, palm, 0] = 0.045
    strains[5, thumb, 0] = 0.06
    strains[6, bones["Index"], 0], strains[6, bones["Ring"], 0] = 0.05, -0.05
    strains[7, bones["Pinky"], 0] = 0.08
    strains[8, bones["Middle"], 0] = 0.05
    strains[9, [3, 6, 9, 12, 15], 1:] = 0.09
    return strains


def pose_directions(weights: np.ndarray) -> Float[np.ndarray, "778 3 135"]:
    """Correctives of a bending joint, linear in R − I, metres: they keep its volume.

    A vertex that follows a joint by the share s should turn by the s-fold angle; linear blending
    takes it along the chord instead. Fitted by least squares over rotations within the limits.
    Where several fingers share a vertex, as in the webs, s is what all of them move together, and
    each adds its part. A knuckle also stands out a little, in proportion to 1 − cos of the angle.
    """
    points = to_mano_position(hand_surface().vertices)
    joints = to_mano_position(skeleton().joints)
    moved, axes = moved_by(weights), joint_axes()
    directions = np.zeros((len(points), 3, 135))
    turns = np.radians(
        [[a, 0, 0] for a in (-20, 25, 50, 75, 100)]
        + [[f, a, 0] for f in (0, 60) for a in (-20, 20)]
        + [[f, 0, a] for f in (0, 60) for a in (-20, 20)]
    )
    for joint in range(1, 16):
        own = moved[:, joint]
        others = [first for first in (1, 4, 7, 10, 13) if (first - 1) // 3 != (joint - 1) // 3]
        share = own + moved[:, others].sum(axis=1)
        near = np.flatnonzero((own > 1e-3) & (share < 1 - 1e-3))
        fitted = _turning_correctives(
            turns @ axes[joint - 1].T, points[near] - joints[joint], share[near]
        )
        fitted *= (own[near] / share[near])[:, None, None]
        columns = slice(9 * (joint - 1), 9 * joint)
        directions[near, :, columns] = fitted
        directions[:, :, columns] -= 0.5 * _knuckle(joint)[..., None] * np.eye(3).ravel()
    return directions


def _turning_correctives(
    vectors: Float[np.ndarray, "r 3"], arm: Float[np.ndarray, "v 3"], share: Float[np.ndarray, " v"]
) -> Float[np.ndarray, "v 3 9"]:
    """What to add to `arm` so that linear blending turns it by `share` of each rotation vector."""
    whole = rotation_matrices(vectors)[:, None]
    partial = rotation_matrices(share[:, None] * vectors[:, None])
    blended = np.eye(3) + share[:, None, None] * (whole - np.eye(3))
    wanted = np.linalg.solve(blended, partial @ arm[..., None])[..., 0] - arm
    design = (whole[:, 0] - np.eye(3)).reshape(-1, 9)
    normal = design.T @ design + 1e-3 * np.eye(9)
    fitted = np.linalg.solve(normal, design.T @ wanted.reshape(len(vectors), -1))
    return np.moveaxis(fitted.reshape(9, -1, 3), 0, -1)


def _knuckle(joint: int) -> Float[np.ndarray, "778 3"]:
    """How the back of a joint stands out when bent by a right angle, metres."""
    height_mm = 2.2 if joint in (1, 4, 7, 10) else 0.0 if joint == 13 else 0.8
    along, _, back = skeleton().frames[joint].T
    middle = skeleton().joints[joint] + 10.0 * back - 1.0 * along
    distance = np.linalg.norm(hand_surface().vertices - middle, axis=1)
    rise = height_mm * np.exp(-0.5 * (distance / 5.5) ** 2) * (distance < 16.0)
    return rise[:, None] * to_mano_axes(back)
