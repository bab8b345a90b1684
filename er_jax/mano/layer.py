"""The MANO layer: from betas and pose to a posed mesh and its joints (Romero et al. 2017)."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from er_jax.mano.joints import HAND21, MANO16, TIP_VERTICES, joint_order
from er_jax.mano.model import HandModel
from er_jax.mano.rotations import axis_angle_to_matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandMesh:
    """Posed hands, metres."""

    vertices: Float[Array, "*batch_and_hands 778 3"]
    joints: Float[Array, "*batch_and_hands 21 3"]
    """In the order `HAND21`."""


def hand_forward(
    hands: HandModel,
    betas: Float[Array, "*batch_and_hands 10"],
    pose: Float[Array, "*batch_and_hands 48"] | Float[Array, "*batch_and_hands 16 3 3"],
    transl: Float[Array, "*batch_and_hands 3"] | None = None,
) -> HandMesh:
    """Meshes and joints of hands of given shape and pose.

    With a model of both hands every argument has an axis (right, left) before its own: betas
    (*batch, 2, 10). With a model of one hand it has not. Leading axes broadcast.

    Args:
        hands: one hand's model or both.
        betas: shape coefficients.
        pose: axis-angle of the root and of 15 joints without the mean pose, which is added here;
            or the rotation matrices of the full pose. Radians, in the order `MANO16`.
        transl: translation of the posed hand, metres.

    Raises:
        ValueError: an argument's shape is none of these.
    """
    betas, rotations, transl = _prepared(hands, betas, pose, transl)
    if not hands.both_hands:
        return _posed(hands, betas, rotations, transl)
    return jax.vmap(_posed, in_axes=(0, -2, -4, -2), out_axes=-3)(hands, betas, rotations, transl)


def joints_from_vertices(
    hands: HandModel,
    vertices: Float[Array, "*batch_and_hands 778 3"],
    tips: Mapping[str, int] = TIP_VERTICES,
) -> Float[Array, "*batch_and_hands 21 3"]:
    """Joints of meshes in the order `HAND21`: the regressor's, and vertices for the fingertips."""
    tip_rows = jax.nn.one_hot(jnp.array(list(tips.values())), 778, dtype=vertices.dtype)
    tip_rows = jnp.broadcast_to(tip_rows, (*hands.joint_regressor.shape[:-2], *tip_rows.shape))
    rows = jnp.concatenate([hands.joint_regressor, tip_rows], axis=-2)
    regressor = rows[..., joint_order((*MANO16, *tips), HAND21), :]
    return jnp.einsum(
        "...jv,...vc->...jc", regressor, vertices, precision=jax.lax.Precision.HIGHEST
    )


def pose_from_components(
    hands: HandModel,
    root: Float[Array, "*batch_and_hands 3"],
    coefficients: Float[Array, "*batch_and_hands n"],
) -> Float[Array, "*batch_and_hands 48"]:
    """Axis-angle pose, without the mean, from the first n principal components of the fingers."""
    components = hands.pose_components[..., : coefficients.shape[-1], :]
    fingers = jnp.einsum(
        "...n,...nk->...k", coefficients, components, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.concatenate([root, fingers], axis=-1)


def forward_kinematics(
    rotations: Float[Array, "*batch 16 3 3"], rest_joints: Float[Array, "*batch 16 3"]
) -> Float[Array, "*batch 16 3 4"]:
    """Transforms [R | t] that carry points of the hand at rest along with each joint.

    MANO's tree is five fingers of three joints each, in chains from the wrist: all fingers move
    on together, joint by joint.
    """
    batch = rotations.shape[:-3]
    wrist, fingers = rest_joints[..., :1, :], rest_joints[..., 1:, :].reshape(*batch, 5, 3, 3)
    finger_rotations = rotations[..., 1:, :, :].reshape(*batch, 5, 3, 3, 3)
    rotation, position, rest = rotations[..., :1, :, :], wrist, wrist
    transforms = [_about(rotation, position, rest)]
    for level in range(3):
        joint = fingers[..., level, :]
        position = position + _rotated(rotation, joint - rest)
        rotation = _product(rotation, finger_rotations[..., level, :, :])
        rest = joint
        transforms.append(_about(rotation, position, rest))
    in_fingers = jnp.stack(transforms[1:], axis=-3).reshape(*batch, 15, 3, 4)
    return jnp.concatenate([transforms[0], in_fingers], axis=-3)


def _product(left: Float[Array, "*n 3 3"], right: Float[Array, "*m 3 3"]) -> Float[Array, "*k 3 3"]:
    """Product of small matrices, written out so that it fuses with its surroundings."""
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)


def _rotated(
    rotation: Float[Array, "*n 3 3"], vector: Float[Array, "*m 3"]
) -> Float[Array, "*k 3"]:
    return jnp.sum(rotation * vector[..., None, :], axis=-1)


def _about(
    rotation: Float[Array, "*n 3 3"], position: Float[Array, "*n 3"], rest: Float[Array, "*n 3"]
) -> Float[Array, "*n 3 4"]:
    """The transform that turns about a joint at `rest` and brings it to `position`."""
    translation = position - _rotated(rotation, rest)
    return jnp.concatenate([rotation, translation[..., None]], axis=-1)


def _prepared(
    hands: HandModel, betas: Array, pose: Array, transl: Array | None
) -> tuple[Array, Array, Array]:
    """Arguments as betas, rotation matrices and translation, of one type and one leading shape."""
    if transl is None:
        transl = jnp.zeros((*betas.shape[:-1], 3), betas.dtype)
    dtype = jnp.result_type(hands.template.dtype, betas, pose, transl)
    betas, pose, transl = (x.astype(dtype) for x in (betas, pose, transl))
    if pose.shape[-3:] == (16, 3, 3):
        rotations = pose
    elif pose.shape[-1] == 48:
        mean = jnp.concatenate([jnp.zeros_like(hands.mean_pose[..., :3]), hands.mean_pose], axis=-1)
        rotations = axis_angle_to_matrix((pose + mean).reshape(*pose.shape[:-1], 16, 3))
    else:
        raise ValueError(f"pose has shape {pose.shape}: (..., 48) or (..., 16, 3, 3) is needed")
    batch = jnp.broadcast_shapes(betas.shape[:-1], rotations.shape[:-3], transl.shape[:-1])
    return (
        jnp.broadcast_to(betas, (*batch, 10)),
        jnp.broadcast_to(rotations, (*batch, 16, 3, 3)),
        jnp.broadcast_to(transl, (*batch, 3)),
    )


def _posed(hand: HandModel, betas: Array, rotations: Array, transl: Array) -> HandMesh:
    """`hand_forward` of one hand: leading axes are the batch's alone."""
    highest = jax.lax.Precision.HIGHEST
    rest_joints = hand.rest_joints + jnp.tensordot(
        betas, hand.rest_joint_directions, 1, precision=highest
    )
    transforms = forward_kinematics(rotations, rest_joints)
    pose_features = (rotations[..., 1:, :, :] - jnp.eye(3)).reshape(*betas.shape[:-1], 135)
    coefficients = jnp.concatenate([betas, pose_features], axis=-1)
    shaped = hand.template + jnp.tensordot(
        coefficients, hand.blend_directions, 1, precision=highest
    )
    skinning = jnp.einsum("...jrc,jv->...rcv", transforms, hand.skinning_weights, precision=highest)
    vertices = (
        jnp.sum(skinning[..., :3, :] * shaped[..., None, :, :], axis=-2) + skinning[..., 3, :]
    )
    vertices = jnp.swapaxes(vertices, -1, -2) + transl[..., None, :]
    return HandMesh(vertices, joints_from_vertices(hand, vertices))
