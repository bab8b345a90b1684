"""The MANO layer: from betas and pose to a posed mesh and its joints (Romero et al. 2017)."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from er_jax.mano.joints import HAND21, MANO16, TIP_VERTICES, joint_order
from er_jax.mano.model import PADDED_VERTICES, VERTICES, HandModel
from er_jax.mano.rotations import axis_angle_to_matrix

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 on a GPU would cost a tenth of a millimetre


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandMesh:
    """Posed hands, metres."""

    vertices: Float[Array, "*batch_and_hands 778 3"]
    joints: Float[Array, "*batch_and_hands 21 3"]
    """In the order `HAND21`."""


@jax.jit
def hand_forward(
    hands: HandModel,
    betas: Float[Array, "*batch_and_hands 10"],
    pose: Float[Array, "*batch_and_hands 48"] | Float[Array, "*batch_and_hands 16 3 3"],
    transl: Float[Array, "*batch_and_hands 3"] | None = None,
) -> HandMesh:
    """Meshes and joints of hands of given shape and pose.

    With a model of both hands every argument has an axis (right, left) before its own: betas
    (*batch, 2, 10). With a model of one hand it has not. Leading axes broadcast. Arithmetic is in
    float32, or in float64 where an argument is: bfloat16 would cost millimetres.

    Args:
        hands: one hand's model or both.
        betas: shape coefficients.
        pose: axis-angle of the root and of 15 joints without the mean pose, which is added here;
            or the rotation matrices of the full pose. Radians, in the order `MANO16`.
        transl: translation of the posed hand, metres.

    Raises:
        ValueError: an argument's shape is none of these.
    """
    arguments = _prepared(hands, betas, pose, transl)
    batch = arguments[0].shape[:-1]  # with the axis of hands, if there is one
    sides = batch[-1:] if hands.both_hands else ()
    leading = len(batch) - len(sides)
    samples = (x.reshape(-1, *x.shape[leading:]) for x in arguments)
    posed = jax.vmap(_posed, in_axes=(0, 1, 1, 1), out_axes=1) if hands.both_hands else _posed
    coordinates, joints = posed(hands, *samples)
    vertices = jnp.stack([x[..., :VERTICES] for x in coordinates], axis=-1)
    return HandMesh(
        vertices=vertices.reshape(*batch, VERTICES, 3), joints=joints.reshape(*batch, 21, 3)
    )


def joints_from_vertices(
    hands: HandModel,
    vertices: Float[Array, "*batch_and_hands 778 3"],
    tips: Mapping[str, int] = TIP_VERTICES,
) -> Float[Array, "*batch_and_hands 21 3"]:
    """Joints of meshes in the order `HAND21`: the regressor's, and vertices for the fingertips."""
    return _joints(hands, jnp.unstack(vertices, axis=-1), tips)


def _joints(
    hands: HandModel,
    coordinates: Sequence[Float[Array, "*batch_and_hands vertices"]],
    tips: Mapping[str, int] = TIP_VERTICES,
) -> Float[Array, "*batch_and_hands 21 3"]:
    """The same of 778 vertices, or of the padded 784, each of whose coordinates is an array."""
    order = joint_order((*MANO16, *tips), HAND21)
    regressor = hands.joint_regressor[..., : coordinates[0].shape[-1], :]
    joints = []
    for values in coordinates:
        regressed = jnp.einsum("...v,...vj->...j", values, regressor, precision=HIGHEST)
        at_tips = [values[..., vertex : vertex + 1] for vertex in tips.values()]
        joints.append(jnp.concatenate([regressed, *at_tips], axis=-1)[..., order])
    return jnp.stack(joints, axis=-1)


def pose_from_components(
    hands: HandModel,
    root: Float[Array, "*batch_and_hands 3"],
    coefficients: Float[Array, "*batch_and_hands n"],
) -> Float[Array, "*batch_and_hands 48"]:
    """Axis-angle pose, without the mean, from the first n principal components of the fingers."""
    components = hands.pose_components[..., : coefficients.shape[-1], :]
    fingers = jnp.einsum("...n,...nk->...k", coefficients, components, precision=HIGHEST)
    return jnp.concatenate([root, fingers], axis=-1)


def forward_kinematics(
    rotations: Float[Array, "*batch 16 3 3"],
    rest_joints: Float[Array, "*batch 16 3"],
    transl: Float[Array, "*batch 3"],
) -> Float[Array, "*batch 16 3 4"]:
    """Transforms [R | t] that carry points of the hand at rest along with each joint.

    A joint turns what hangs on it about its own place at rest, x → R (x − J) + J, and its parent's
    transform follows; the wrist's is followed by the translation. MANO's tree is five fingers of
    three joints each, in chains from the wrist: all fingers are composed together.
    """
    turned = reduce(jnp.add, [rotations[..., i] * rest_joints[..., None, i] for i in range(3)])
    turns = jnp.concatenate([rotations, (rest_joints - turned)[..., None]], axis=-1)
    wrist = turns[..., :1, :, :].at[..., 3].add(transl[..., None, :])
    fingers = turns[..., 1:, :, :].reshape(*turns.shape[:-3], 5, 3, 3, 4)
    first = _composed(wrist, fingers[..., 0, :, :])
    second = _composed(first, fingers[..., 1, :, :])
    third = _composed(second, fingers[..., 2, :, :])
    in_fingers = jnp.stack([first, second, third], axis=-3).reshape(*turns.shape[:-3], 15, 3, 4)
    return jnp.concatenate([wrist, in_fingers], axis=-3)


def _composed(
    outer: Float[Array, "*n 3 4"], inner: Float[Array, "*m 3 4"]
) -> Float[Array, "*m 3 4"]:
    """The transform [R | t] that applies `inner`, then `outer`.

    The product of so small matrices is written out: a call of a library for each takes longer.
    """
    product = reduce(jnp.add, [outer[..., i, None] * inner[..., i, None, :] for i in range(3)])
    return product.at[..., 3].add(outer[..., 3])


def _prepared(
    hands: HandModel, betas: Array, pose: Array, transl: Array | None
) -> tuple[Array, Array, Array]:
    """Betas, rotation matrices and translation, of one type and with the same leading axes."""
    transl = jnp.zeros(3, hands.template.dtype) if transl is None else transl
    dtype = jnp.result_type(hands.template, betas, pose, transl)
    betas, pose, transl = (jnp.asarray(x, dtype) for x in (betas, pose, transl))
    matrices = pose.shape[-3:] == (16, 3, 3)
    if (
        betas.shape[-1:] != (10,)
        or transl.shape[-1:] != (3,)
        or not (matrices or pose.shape[-1:] == (48,))
    ):
        raise ValueError(
            f"betas {betas.shape}, pose {pose.shape}, transl {transl.shape}: "
            "(..., 10), (..., 48) or (..., 16, 3, 3), and (..., 3) are needed"
        )
    axes = (betas.shape[:-1], pose.shape[: -3 if matrices else -1], transl.shape[:-1])
    batch = jnp.broadcast_shapes(*axes)
    if hands.both_hands and batch[-1:] != (2,):
        raise ValueError(f"leading axes {batch}: both hands need an axis of 2 (right, left) last")
    if not matrices:
        mean = jnp.concatenate([jnp.zeros_like(hands.mean_pose[..., :3]), hands.mean_pose], axis=-1)
        full = pose + mean
        pose = axis_angle_to_matrix(full.reshape(*full.shape[:-1], 16, 3))
    return (
        jnp.broadcast_to(betas, (*batch, 10)),
        jnp.broadcast_to(pose, (*batch, 16, 3, 3)),
        jnp.broadcast_to(transl, (*batch, 3)),
    )


Points = Sequence[Float[Array, "n 784"]]
"""Points of n poses, each of whose three coordinates is an array."""


def _posed(
    hand: HandModel,
    betas: Float[Array, "n 10"],
    rotations: Float[Array, "n 16 3 3"],
    transl: Float[Array, "n 3"],
) -> tuple[Points, Float[Array, "n 21 3"]]:
    """Vertices, each coordinate an array, and joints of n poses of one hand.

    Coordinates are kept apart to the end: an elementwise loop whose last axis is 3 runs ten times
    slower on a CPU.
    """
    joints = hand.rest_joints + jnp.tensordot(
        betas, hand.rest_joint_directions, 1, precision=HIGHEST
    )
    transforms = jnp.transpose(forward_kinematics(rotations, joints, transl), (2, 3, 0, 1))
    pose_features = (rotations[:, 1:] - jnp.eye(3, dtype=rotations.dtype)).reshape(-1, 135)
    coefficients = jnp.concatenate([betas, pose_features], axis=-1)
    blended = jnp.dot(coefficients, hand.blend_directions, precision=HIGHEST)
    shaped = hand.template + blended.reshape(-1, 3, PADDED_VERTICES)
    vertices = _skinned(transforms, hand.skinning_weights, jnp.unstack(shaped, axis=1))
    return vertices, _joints(hand, vertices)


@jax.custom_jvp
def _skinned(
    transforms: Float[Array, "3 4 n 16"], weights: Float[Array, "16 784"], points: Points
) -> Points:
    """Linear blend skinning: each point moved by the blend of the joints' transforms.

    Written out so that the compiler makes of it a loop over points that holds a blended transform
    in registers. As products of matrices, the blends are four times as large as the points.
    """
    rotated = _rotated(transforms, weights, points)
    return [x + _blend(transforms[row, 3], weights) for row, x in enumerate(rotated)]


def _rotated(
    transforms: Float[Array, "3 4 n 16"], weights: Float[Array, "16 784"], points: Points
) -> Points:
    return [
        reduce(jnp.add, [_blend(transforms[row, i], weights) * points[i] for i in range(3)])
        for row in range(3)
    ]


def _blend(entries: Float[Array, "n 16"], weights: Float[Array, "16 784"]) -> Float[Array, "n 784"]:
    """entries @ weights, written out."""
    return reduce(jnp.add, [entries[:, joint, None] * weights[joint] for joint in range(16)])


@_skinned.defjvp
def _skinned_jvp(primals, tangents):
    """The product rule, in which products of matrices blend the transforms' tangents.

    Reverse mode transposes these: the transpose of the sums written out, 192 sums over all points,
    would be slow.
    """
    transforms, weights, points = primals
    transforms_dot, weights_dot, points_dot = tangents

    def moved(transforms, weights):
        rotations = jnp.einsum("rinj,jv->nriv", transforms[:, :3], weights, precision=HIGHEST)
        rotated = jnp.unstack((rotations * jnp.stack(points, axis=1)[:, None]).sum(axis=2), axis=1)
        return [
            x + jnp.einsum("nj,jv->nv", transforms[row, 3], weights, precision=HIGHEST)
            for row, x in enumerate(rotated)
        ]

    parts = (
        moved(transforms_dot, weights),
        moved(transforms, weights_dot),
        _rotated(transforms, weights, points_dot),
    )
    return _skinned(*primals), [reduce(jnp.add, terms) for terms in zip(*parts, strict=True)]
