"""Joints of a posed hand without its mesh, and the axes that its finger joints bend about.

A joint is a weighted sum of skinned vertices. Exchanging the sums over vertices and over bones
leaves, for every joint and each bone that moves some of its vertices, one weighted sum of the
unposed vertices: some tens of points in the place of 778 vertices, and the same joints.
"""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from er_jax.mano import HAND21, HANDS, MANO16, TIP_VERTICES, HandModel, joint_order
from er_jax.mano.layer import HIGHEST
from er_jax.mano.model import PADDED_VERTICES, VERTICES
from er_jax.mano.rotations import axis_angle_to_matrix

COVERED = 0.9  # share of a bone's vertices within its capsule
NEGLIGIBLE = 1e-5  # of a joint's weight: a bone that moves less of it is left out, 0.001 mm
THUMB_ROLL = np.radians(52.0)
"""Turn of the thumb's flexion axis about its bone against those of the fingers."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointModel:
    """What the joints of a hand depend on; of both hands on a leading axis (right, left).

    A pair is a joint of `HAND21` and a bone of `MANO16` that moves some of it.
    """

    templates: Float[Array, "*hands pairs 3"]
    blend_directions: Float[Array, "*hands 145 pairs*3"]
    """As in `HandModel`: per unit of 10 betas and 135 entries of R − I."""
    weights: Float[Array, "*hands pairs"]
    """The bone's share of the joint."""
    rest_joints: Float[Array, "*hands 3 16"]
    rest_joint_directions: Float[Array, "*hands 10 3 16"]
    axes: Float[Array, "*hands 15 3 3"]
    """Columns: axes of flexion, of turning towards the thumb's side, of twist."""
    rest_angles: Float[Array, "*hands 15 3"]
    """The hand model's mean pose about those axes, radians."""
    radii: Float[Array, "*hands 21"]
    """Of the flesh around each bone of `CAPSULES`, metres."""
    stump: Float[Array, "*hands"]
    """Reach of the mesh behind the wrist, in distances from the wrist to Middle_1."""
    joint_of_pair: Float[Array, "pairs 21"]
    """1 where the pair is part of the joint."""
    bone_of_pair: Int[Array, " pairs"]

    def hands(self, sides: Int[Array, " H"] | int) -> "JointModel":
        """The same for some hands, 0 right and 1 left; for one number without the leading axis."""
        shared = ("joint_of_pair", "bone_of_pair")
        names = [field.name for field in dataclasses.fields(self) if field.name not in shared]
        return dataclasses.replace(self, **{name: getattr(self, name)[sides] for name in names})


_PALM = ("Thumb_1", "Index_1", "Middle_1", "Ring_1", "Pinky_1")
STUMP = len(HAND21)
"""After the joints: the end of the forearm's piece that belongs to the mesh."""
CAPSULES = np.array(
    [
        *((joint, joint + 1) for joint, name in enumerate(HAND21) if name[-1] in "123"),
        *((0, HAND21.index(name)) for name in _PALM),
        (0, STUMP),
    ]
)
"""Bones with flesh around them, as joints of `HAND21`: of the fingers, the palm, the stump."""
CAPSULES.setflags(write=False)


Joints = TypeVar("Joints", Array, np.ndarray)


def with_stump(joints: Joints, reach: Joints) -> Joints:
    """Joints and the end of the stump, which lies behind the wrist as seen from Middle_1.

    Args:
      joints: (*n, 21, 3), of JAX or NumPy.
      reach: `JointModel.stump`, (*n).

    Returns:
      (*n, 22, 3).
    """
    wrist, middle = joints[..., 0, :], joints[..., HAND21.index("Middle_1"), :]
    stump = wrist + reach[..., None] * (wrist - middle)
    return joints.__array_namespace__().concat([joints, stump[..., None, :]], axis=-2)


def joint_model(hands: HandModel) -> JointModel:
    """The joints' model of both hands."""
    regressor = np.asarray(_regressor(hands))
    skinning = np.asarray(hands.skinning_weights)
    shares = np.einsum("hvj,hkv->hjk", regressor, skinning)
    joint, bone = np.nonzero((np.abs(shares) > NEGLIGIBLE).any(0))
    # (hands, pairs, vertices): the share of each vertex in each pair
    vertex_shares = regressor.swapaxes(1, 2)[:, joint] * skinning[:, bone]
    template = np.asarray(hands.template)
    directions = np.asarray(hands.blend_directions).reshape(2, 145, 3, PADDED_VERTICES)
    axes = np.stack([_joint_axes(hands, side) for side in range(2)])
    mean = np.asarray(hands.mean_pose).reshape(2, 15, 3)
    blend = np.einsum("hkcv,hpv->hkpc", directions, vertex_shares, optimize=True)
    return JointModel(
        templates=jnp.asarray(np.einsum("hcv,hpv->hpc", template, vertex_shares)),
        blend_directions=jnp.asarray(blend.reshape(2, 145, -1)),
        weights=jnp.asarray(shares[:, joint, bone]),
        rest_joints=hands.rest_joints,
        rest_joint_directions=hands.rest_joint_directions,
        axes=jnp.asarray(axes),
        rest_angles=jnp.asarray(np.einsum("hjxa,hjx->hja", axes, mean)),
        radii=jnp.asarray(np.stack([_radii(hands, side) for side in range(2)])),
        stump=jnp.asarray([_stump(hands, side) for side in range(2)]),
        joint_of_pair=jnp.asarray(np.eye(len(HAND21))[joint]),
        bone_of_pair=jnp.asarray(bone),
    )


def finger_vectors(
    model: JointModel, angles: Float[Array, "*hands 15 3"]
) -> Float[Array, "*hands 15 3"]:
    """Axis-angle of the finger joints' full pose from angles about their own axes, radians."""
    return jnp.einsum("...jxa,...ja->...jx", model.axes, angles, precision=HIGHEST)


def anatomical_angles(
    model: JointModel, vectors: Float[Array, "*hands 15 3"] | Float[np.ndarray, "*hands 15 3"]
) -> Float[Array, "*hands 15 3"]:
    """The inverse of `finger_vectors`; of NumPy's arrays on the host, without JAX."""
    return (model.axes * vectors[..., None]).sum(-2)


def posed_joints(
    hand: JointModel,
    betas: Float[Array, "10"],
    wrist: Float[Array, "3 3"],
    angles: Float[Array, "15 3"],
    transl: Float[Array, "3"],
) -> Float[Array, "21 3"]:
    """Joints of one hand in the order `HAND21`, metres, as `mano_forward` gives them.

    Args:
      hand: one hand's model.
      betas: shape coefficients.
      wrist: rotation of the root.
      angles: of the finger joints about their axes, radians.
      transl: metres.
    """
    fingers = axis_angle_to_matrix(finger_vectors(hand, angles))
    features = jnp.transpose(fingers - jnp.eye(3), (1, 2, 0)).reshape(135)
    coefficients = jnp.concatenate([betas, features])
    blended = jnp.dot(coefficients, hand.blend_directions, precision=HIGHEST)
    points = hand.templates + blended.reshape(-1, 3)
    rest = hand.rest_joints.T + jnp.einsum(
        "k,kcj->jc", betas, hand.rest_joint_directions, precision=HIGHEST
    )
    turns, shifts = _transforms(wrist, fingers, rest)
    bones = hand.bone_of_pair
    moved = (
        _product(turns[bones], points[..., None])[..., 0] + hand.weights[:, None] * shifts[bones]
    )
    return jnp.dot(hand.joint_of_pair.T, moved, precision=HIGHEST) + transl


def _transforms(
    wrist: Float[Array, "3 3"], fingers: Float[Array, "15 3 3"], rest: Float[Array, "16 3"]
) -> tuple[Float[Array, "16 3 3"], Float[Array, "16 3"]]:
    """Rotations and shifts that carry points of the hand at rest along with each bone.

    A joint's own motion is x → R (x − J) + J; its parent's follows. It is `forward_kinematics` of
    the layer in matrices instead of entries: in forward mode, as the fit needs it, those took four
    to ten times as long to compile.
    """
    wrist_shift = rest[0] - _product(wrist, rest[0, :, None])[:, 0]
    turn, shift = wrist, wrist_shift
    own = fingers.reshape(5, 3, 3, 3)
    places = rest[1:].reshape(5, 3, 3)
    own_shifts = places - _product(own, places[..., None])[..., 0]
    turns, shifts = [], []
    for level in range(3):
        shift = _product(turn, own_shifts[:, level, :, None])[..., 0] + shift
        turn = _product(turn, own[:, level])
        turns.append(turn)
        shifts.append(shift)
    return (
        jnp.concatenate([wrist[None], jnp.stack(turns, 1).reshape(15, 3, 3)]),
        jnp.concatenate([wrist_shift[None], jnp.stack(shifts, 1).reshape(15, 3)]),
    )


def _product(left: Float[Array, "*n 3 3"], right: Float[Array, "*n 3 k"]) -> Float[Array, "*n 3 k"]:
    """Products of small matrices as sums, which compilers put into one loop."""
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)


def _regressor(hands: HandModel) -> Float[np.ndarray, "2 784 21"]:
    """Weights of all vertices in each joint of `HAND21`: the regressor's, and the fingertips."""
    tips = np.zeros((PADDED_VERTICES, len(TIP_VERTICES)))
    tips[list(TIP_VERTICES.values()), range(len(TIP_VERTICES))] = 1
    regressor = np.asarray(hands.joint_regressor)
    joined = np.concatenate([regressor, np.broadcast_to(tips, (2, *tips.shape))], axis=-1)
    return joined[..., joint_order((*MANO16, *TIP_VERTICES), HAND21)]


def _flat_joints(hands: HandModel, side: int) -> Float[np.ndarray, "21 3"]:
    template = np.asarray(hands.template[side], np.float64)
    return np.einsum("cv,vj->jc", template, np.asarray(_regressor(hands)[side], np.float64))


def _joint_axes(hands: HandModel, side: int) -> Float[np.ndarray, "15 3 3"]:
    """Axes of `MANO16`'s finger joints, from the bones of the flat hand.

    A finger bends about the axis across its bone in the plane of the palm; the thumb's axis is
    turned about its bone. A left hand's axes are those of the mirrored right hand.
    """
    joints = dict(zip(HAND21, _flat_joints(hands, side), strict=True))
    sign = 1.0 if HANDS[side] == "right" else -1.0
    across = np.cross(joints["Index_1"] - joints["Wrist"], joints["Pinky_1"] - joints["Wrist"])
    back_of_hand = -sign * across / np.linalg.norm(across)
    axes = []
    for name in MANO16[1:]:
        finger, level = name.split("_")
        bone = joints[f"{finger}_{int(level) + 1}"] - joints[name]
        along = bone / np.linalg.norm(bone)
        level_axis = np.cross(back_of_hand, along)
        level_axis /= np.linalg.norm(level_axis)
        back = np.cross(along, level_axis)
        if finger == "Thumb":
            back = np.cos(THUMB_ROLL) * back + sign * np.sin(THUMB_ROLL) * level_axis
        axes.append(np.stack([np.cross(back, along), sign * back, sign * along], axis=-1))
    return np.stack(axes)


def _stump(hands: HandModel, side: int) -> float:
    joints = _flat_joints(hands, side)
    arm = joints[0] - joints[HAND21.index("Middle_1")]
    vertices = np.asarray(hands.template[side]).T[:VERTICES]
    return max(float(((vertices - joints[0]) @ arm).max() / (arm @ arm)), 0.0)


def _radii(hands: HandModel, side: int) -> Float[np.ndarray, "21"]:
    """Distance from each bone of `CAPSULES` that nine tenths of its vertices do not pass."""
    vertices = np.asarray(hands.template[side]).T[:VERTICES]
    joints = with_stump(_flat_joints(hands, side), np.asarray(_stump(hands, side)))
    start, end = joints[CAPSULES[:, 0]], joints[CAPSULES[:, 1]]
    bone = end - start
    length = np.maximum((bone**2).sum(-1), 1e-12)
    along = np.einsum("vbc,bc->vb", vertices[:, None] - start, bone) / length
    nearest = start + np.clip(along, 0, 1)[..., None] * bone
    distance = np.linalg.norm(vertices[:, None] - nearest, axis=-1)
    owner = distance.argmin(1)
    own = [distance[owner == one, one] for one in range(len(CAPSULES))]
    return np.array([np.quantile(one, COVERED) if len(one) else 0.0 for one in own])
