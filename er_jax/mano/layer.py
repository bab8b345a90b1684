"""The MANO layer: from betas and pose to a posed mesh and its joints (Romero et al. 2017)."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from er_jax.mano.joints import HAND21, MANO16, TIP_VERTICES, joint_order
from er_jax.mano.model import HandModel
from er_jax.mano.rotations import axis_angle_to_matrix

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 on a GPU would cost a tenth of a millimetre
CHUNK = 32


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
    sides = (2,) if hands.both_hands else ()
    batch = arguments[0].shape[: -1 - len(sides)]
    samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), arguments)
    posed = jax.vmap(_posed, in_axes=(None, 0, 0, 0))
    if hands.both_hands:
        posed = jax.vmap(posed, in_axes=(0, 1, 1, 1), out_axes=1)
    vertices, joints = _in_chunks(lambda chunk: posed(hands, *chunk), samples)
    return HandMesh(
        vertices=vertices.reshape(*batch, *sides, 778, 3),
        joints=joints.reshape(*batch, *sides, 21, 3),
    )


def joints_from_vertices(
    hands: HandModel,
    vertices: Float[Array, "*batch_and_hands 778 3"],
    tips: Mapping[str, int] = TIP_VERTICES,
) -> Float[Array, "*batch_and_hands 21 3"]:
    """Joints of meshes in the order `HAND21`: the regressor's, and vertices for the fingertips."""
    regressor = _regressor(hands, tips)
    return jnp.einsum("...jv,...vc->...jc", regressor, vertices, precision=HIGHEST)


def _regressor(hands: HandModel, tips: Mapping[str, int]) -> Float[Array, "*hands 21 778"]:
    """Rows of weights that give the joints `HAND21` from vertices."""
    rows = jax.nn.one_hot(jnp.array(list(tips.values())), 778, dtype=hands.joint_regressor.dtype)
    rows = jnp.broadcast_to(rows, (*hands.joint_regressor.shape[:-2], *rows.shape))
    rows = jnp.concatenate([hands.joint_regressor, rows], axis=-2)
    return rows[..., joint_order((*MANO16, *tips), HAND21), :]


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
    rotations: Float[Array, "16 3 3"],
    rest_joints: Float[Array, "16 3"],
    transl: Float[Array, "3"],
) -> Float[Array, "16 3 4"]:
    """Transforms [R | t] that carry points of the hand at rest along with each joint.

    A joint turns what hangs on it about its own place at rest, x → R (x − J) + J, and its parent's
    transform follows; the wrist's is followed by the translation. MANO's tree is five fingers of
    three joints each, in chains from the wrist: all fingers are composed together.
    """
    turned = jnp.einsum("jrc,jc->jr", rotations, rest_joints, precision=HIGHEST)
    turns = jnp.concatenate([rotations, (rest_joints - turned)[..., None]], axis=-1)
    wrist, fingers = turns[0].at[:, 3].add(transl), turns[1:].reshape(5, 3, 3, 4)
    first = _composed(wrist, fingers[:, 0])
    second = _composed(first, fingers[:, 1])
    third = _composed(second, fingers[:, 2])
    in_fingers = jnp.stack([first, second, third], axis=1)
    return jnp.concatenate([wrist[None], in_fingers.reshape(15, 3, 4)])


def _composed(
    outer: Float[Array, "*n 3 4"], inner: Float[Array, "*m 3 4"]
) -> Float[Array, "*m 3 4"]:
    """The transform [R | t] that applies `inner`, then `outer`."""
    product = jnp.matmul(outer[..., :3], inner, precision=HIGHEST)
    return jnp.concatenate([product[..., :3], product[..., 3:] + outer[..., 3:]], axis=-1)


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


def _posed(
    hand: HandModel,
    betas: Float[Array, "10"],
    rotations: Float[Array, "16 3 3"],
    transl: Float[Array, "3"],
) -> tuple[Float[Array, "2334"], Float[Array, "21 3"]]:
    """Vertices, one after another, and joints of one hand.

    Coordinates are kept apart to the end: an elementwise loop whose last axis is 3 runs ten times
    slower on a CPU.
    """
    joints = hand.rest_joints + jnp.tensordot(
        betas, hand.rest_joint_directions, 1, precision=HIGHEST
    )
    transforms = forward_kinematics(rotations, joints, transl)
    pose_features = (rotations[1:] - jnp.eye(3, dtype=rotations.dtype)).reshape(135)
    coefficients = jnp.concatenate([betas, pose_features])
    blended = jnp.dot(coefficients, hand.blend_directions, precision=HIGHEST)
    shaped = checkpoint_name(hand.template + blended.reshape(3, 778), "shaped")
    x, y, z = jnp.unstack(shaped)
    coordinates = []
    for row in jnp.unstack(transforms, axis=1):  # of each vertex: a blend of the joints' transforms
        a, b, c, d = (
            jnp.dot(entry, hand.skinning_weights, precision=HIGHEST)
            for entry in jnp.unstack(row, axis=1)
        )
        coordinates.append(a * x + b * y + c * z + d)
    regressor = _regressor(hand, TIP_VERTICES)
    posed_joints = [jnp.dot(regressor, values, precision=HIGHEST) for values in coordinates]
    return jnp.stack(coordinates, axis=-1).reshape(-1), jnp.stack(posed_joints, axis=-1)


def _in_chunks(
    function: Callable[[tuple[Array, ...]], tuple[Array, ...]], samples: tuple[Array, ...]
) -> tuple[Array, ...]:
    """`function(samples)`, both with a leading axis of samples; on a CPU a chunk at a time.

    There memory traffic costs more than arithmetic, and a chunk stays in the cache. The backward
    pass keeps a chunk's shaped vertices and computes the rest anew.
    """
    count = samples[0].shape[0]
    known = isinstance(count, int)  # not while a program for any batch size is exported
    if not known or count <= 2 * CHUNK or jax.default_backend() != "cpu":
        return function(samples)
    chunks = -(-count // CHUNK)
    padded = [jnp.pad(x, [(0, chunks * CHUNK - count)] + [(0, 0)] * (x.ndim - 1)) for x in samples]
    keep = jax.checkpoint_policies.save_only_these_names("shaped")
    outputs = jax.lax.map(
        jax.checkpoint(function, policy=keep),
        tuple(x.reshape(chunks, CHUNK, *x.shape[1:]) for x in padded),
    )
    return tuple(x.reshape(chunks * CHUNK, *x.shape[2:])[:count] for x in outputs)
