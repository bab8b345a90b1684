"""The MANO layer: from betas and pose to a posed mesh and its joints (Romero et al. 2017)."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from er_jax.mano.joints import HAND21, MANO16, TIP_VERTICES, joint_order
from er_jax.mano.model import PADDED_VERTICES, VERTICES, HandModel
from er_jax.mano.rotations import axis_angle_to_quaternion, quaternion_to_entries

HIGHEST = lax.Precision.HIGHEST  # TF32 on a GPU would cost a tenth of a millimetre


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandMesh:
    """Posed hands, metres."""

    vertices: Float[Array, "*batch_and_hands 778 3"]
    joints: Float[Array, "*batch_and_hands 21 3"]
    """In the order `HAND21`."""


@jax.jit
def mano_forward(
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
    kinematics = jax.vmap(_kinematics, in_axes=(0, 1, 1, 1)) if hands.both_hands else _kinematics
    vertices, joints = _meshes(hands, *kinematics(hands, *samples))
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
    """Returns the joints of 778 or of the padded 784 vertices, given as three arrays."""
    regressor = hands.joint_regressor[..., : coordinates[0].shape[-1], :]
    return jnp.stack([_joint_coordinate(tips, regressor, x) for x in coordinates], axis=-1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _joint_coordinate(
    tips: Mapping[str, int],
    regressor: Float[Array, "*hands vertices 16"],
    values: Float[Array, "*batch_and_hands vertices"],
) -> Float[Array, "*batch_and_hands 21"]:
    at_tips = [values[..., vertex : vertex + 1] for vertex in tips.values()]
    return _hand21(tips, [_regressed(regressor, values), *at_tips])


@_joint_coordinate.defjvp
def _joint_coordinate_jvp(tips, primals, tangents):
    """The product rule, in which fingertips are columns of the regressor.

    Reverse mode transposes this to one product. Of slices it would make sums of padded arrays.
    """
    (regressor, values), (regressor_dot, values_dot) = primals, tangents
    picks = [jnp.zeros_like(regressor[..., :1]).at[..., tip, :].set(1) for tip in tips.values()]
    of_values = _regressed(_hand21(tips, [regressor, *picks]), values_dot)
    still = map(jnp.zeros_like, picks)
    of_regressor = _regressed(_hand21(tips, [regressor_dot, *still]), values)
    return _joint_coordinate(tips, regressor, values), of_values + of_regressor


def _regressed(
    regressor: Float[Array, "*hands vertices joints"],
    values: Float[Array, "*batch_and_hands vertices"],
) -> Float[Array, "*batch_and_hands joints"]:
    return jnp.einsum("...v,...vj->...j", values, regressor, precision=HIGHEST)


def _hand21(tips: Mapping[str, int], mano16_and_tips: Sequence[Array]) -> Array:
    """Parts along the last axis, joined in the order `HAND21`."""
    return jnp.concatenate(mano16_and_tips, axis=-1)[..., joint_order((*MANO16, *tips), HAND21)]


def pose_from_components(
    hands: HandModel,
    root: Float[Array, "*batch_and_hands 3"],
    coefficients: Float[Array, "*batch_and_hands n"],
) -> Float[Array, "*batch_and_hands 48"]:
    """Axis-angle pose, without the mean, from the first n principal components of the fingers."""
    components = hands.pose_components[..., : coefficients.shape[-1], :]
    fingers = jnp.einsum("...n,...nk->...k", coefficients, components, precision=HIGHEST)
    return jnp.concatenate([root, fingers], axis=-1)


Entries = Sequence[Sequence[Float[Array, "*n"]]]
"""Rows of the entries of matrices, each an array: of rotations, or of [R | t], x → R x + t."""


def forward_kinematics(
    wrist: Entries,
    fingers: Entries,
    rest_joints: Float[Array, "3 16 n"],
    transl: Float[Array, "3 n"],
) -> Entries:
    """Transforms [R | t] that carry points of the hand at rest along with each joint.

    A joint turns what hangs on it about its own place at rest, x → R (x − J) + J, and its parent's
    transform follows; the wrist's is followed by the translation. MANO's tree is five fingers of
    three joints each, in chains from the wrist: all fingers are composed together. Entries are
    arrays of their own, so that their products and the gradients of these are loops along poses: a
    call of a library for each small matrix takes longer.

    Args:
        wrist: rotations, entries (1, n).
        fingers: rotations of the joints that follow in `MANO16`, entries (15, n).
        rest_joints: metres.
        transl: metres.

    Returns:
        Entries (16, n) of all joints, in the order `MANO16`.
    """
    wrist_place, finger_places = jnp.split(rest_joints, [1], axis=1)
    wrist = [
        [*row[:3], row[3] + shift]
        for row, shift in zip(_about(wrist, wrist_place), transl, strict=True)
    ]
    by_level = [
        [_parts(x.reshape(5, 3, -1), axis=1) for x in row] for row in _about(fingers, finger_places)
    ]
    chain: list[Entries] = [[[jnp.broadcast_to(x, (5, x.shape[-1])) for x in row] for row in wrist]]
    for level in range(3):
        chain.append(_composed(chain[-1], [[x[level] for x in row] for row in by_level]))

    def joined(row: int, column: int) -> Float[Array, "16 n"]:
        levels = jnp.stack([transform[row][column] for transform in chain[1:]], axis=1)
        return jnp.concatenate([wrist[row][column], levels.reshape(15, -1)])

    return [[joined(row, column) for column in range(4)] for row in range(3)]


def _about(rotations: Entries, places: Float[Array, "3 joints n"]) -> Entries:
    """x → R (x − J) + J."""
    points = _parts(places)
    return [[*row, x - _dot(row, points)] for row, x in zip(rotations, points, strict=True)]


def _composed(outer: Entries, inner: Entries) -> Entries:
    """The transform that applies `inner`, then `outer`."""
    columns = list(zip(*inner, strict=True))
    products = [[_dot(row[:3], column) for column in columns] for row in outer]
    return [[*row[:3], row[3] + shift[3]] for row, shift in zip(products, outer, strict=True)]


def _dot(left: Sequence[Array], right: Sequence[Array]) -> Array:
    """The sum of products."""
    return reduce(jnp.add, [x * y for x, y in zip(left, right, strict=True)])


def _parts(array: Array, axis: int = 0) -> list[Array]:
    """As `jnp.unstack`, whose gradient before JAX 0.12 pads each part with zeros."""
    return [part.squeeze(axis) for part in jnp.split(array, array.shape[axis], axis)]


def _prepared(
    hands: HandModel, betas: Array, pose: Array, transl: Array | None
) -> tuple[Array, Array, Array]:
    """Betas, rotations and translation, of one type and with the same leading axes.

    Rotations are matrices (*batch, 16, 3, 3) or axis-angle vectors (*batch, 16, 3), as given, of
    the full pose.
    """
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
        pose = full.reshape(*full.shape[:-1], 16, 3)
    return (
        jnp.broadcast_to(betas, (*batch, 10)),
        jnp.broadcast_to(pose, (*batch, *pose.shape[-3 if matrices else -2 :])),
        jnp.broadcast_to(transl, (*batch, 3)),
    )


def _kinematics(
    hand: HandModel,
    betas: Float[Array, "n 10"],
    pose: Float[Array, "n 16 3"] | Float[Array, "n 16 3 3"],
    transl: Float[Array, "n 3"],
) -> tuple[Float[Array, "145 n"], Entries]:
    """Coefficients of the blend shapes, and transforms of the joints with entries (16, n).

    Poses are the last axis: an elementwise loop whose last axis is 3 runs ten times slower on a
    CPU.
    """
    wrist, fingers = _rotation_entries(pose)
    features = [x - float(i == j) for i, row in enumerate(fingers) for j, x in enumerate(row)]
    coefficients = jnp.concatenate([betas.T, *features])
    # Kinematics start when these are done. XLA on a CPU would mix their loops, which cost forward
    # a tenth more at 64 poses (JAX 0.12).
    parts = (coefficients, wrist, fingers, betas)
    coefficients, wrist, fingers, betas = lax.optimization_barrier(parts)
    directions = hand.rest_joint_directions
    moved = jnp.einsum("kcj,nk->cjn", directions, betas, precision=HIGHEST)
    joints = hand.rest_joints[..., None] + moved
    return coefficients, forward_kinematics(wrist, fingers, joints, transl.T)


def _meshes(
    hands: HandModel, coefficients: Float[Array, "*hands 145 n"], transforms: Entries
) -> tuple[Float[Array, "n *hands 778 3"], Float[Array, "n *hands 21 3"]]:
    """Vertices and joints of n poses; transforms have entries (*hands, 16, n)."""
    posed = jax.vmap(_posed, out_axes=1) if hands.both_hands else _posed
    coordinates, joints = posed(hands, coefficients, transforms)
    return jnp.stack([x[..., :VERTICES] for x in coordinates], axis=-1), joints


Points = Sequence[Float[Array, "n 784"]]
"""Points of n poses, each of whose three coordinates is an array."""


def _posed(
    hand: HandModel, coefficients: Float[Array, "145 n"], transforms: Entries
) -> tuple[Points, Float[Array, "n 21 3"]]:
    """Vertices, whose coordinates are kept apart as poses' entries are, and joints of one hand."""
    blended = jnp.einsum("kn,kv->nv", coefficients, hand.blend_directions, precision=HIGHEST)
    vertices = _moved(transforms, hand.skinning_weights, hand.template, blended)
    return vertices, _joints(hand, vertices)


@partial(jax.checkpoint, prevent_cse=False)  # or a loop would keep blended transforms of vertices
def _moved(
    transforms: Entries,
    weights: Float[Array, "16 784"],
    template: Float[Array, "3 784"],
    blended: Float[Array, "n 2352"],
) -> Points:
    """Template and blended directions, skinned."""
    shaped = template + blended.reshape(-1, 3, PADDED_VERTICES)
    by_pose = [[entries.T for entries in row] for row in transforms]
    return _skinned(by_pose, weights, _parts(shaped, axis=1))


def _rotation_entries(
    pose: Float[Array, "n 16 3"] | Float[Array, "n 16 3 3"],
) -> tuple[Entries, Entries]:
    """Rotations of the wrist, entries (1, n), and of the fingers' joints, (15, n)."""
    if pose.ndim == 4:
        wrist, fingers = jnp.split(jnp.transpose(pose, (2, 3, 1, 0)), [1], axis=2)
        return [_parts(x) for x in _parts(wrist)], [_parts(x) for x in _parts(fingers)]
    quaternions = jnp.transpose(axis_angle_to_quaternion(pose), (2, 1, 0))
    wrist, fingers = jnp.split(quaternions, [1], axis=1)
    return quaternion_to_entries(_parts(wrist)), quaternion_to_entries(_parts(fingers))


@jax.custom_jvp
def _skinned(transforms: Entries, weights: Float[Array, "16 784"], points: Points) -> Points:
    """Linear blend skinning: each point moved by the blend of the joints' transforms.

    Written out so that the compiler makes of it a loop over points that holds a blended transform
    in registers. As products of matrices, the blends are four times as large as the points.
    """
    rotated = _rotated(transforms, weights, points)
    return [x + _blend(row[3], weights) for x, row in zip(rotated, transforms, strict=True)]


def _rotated(transforms: Entries, weights: Float[Array, "16 784"], points: Points) -> Points:
    return [_dot([_blend(x, weights) for x in row[:3]], points) for row in transforms]


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
        rotations = jnp.stack([jnp.stack(row[:3]) for row in transforms])
        blends = jnp.einsum("rinj,jv->nriv", rotations, weights, precision=HIGHEST)
        rotated = _parts((blends * jnp.stack(points, axis=1)[:, None]).sum(axis=2), axis=1)
        return [
            x + jnp.einsum("nj,jv->nv", row[3], weights, precision=HIGHEST)
            for x, row in zip(rotated, transforms, strict=True)
        ]

    parts = (
        moved(transforms_dot, weights),
        moved(transforms, weights_dot),
        _rotated(transforms, weights, points_dot),
    )
    return _skinned(*primals), [reduce(jnp.add, terms) for terms in zip(*parts, strict=True)]
