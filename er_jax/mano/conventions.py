"""MANO's parameters in the conventions of smplx and SMPL-X, and back; `docs/conventions.md`.

Arrays in, float64 NumPy arrays out. Leading axes broadcast; of both hands, the last of them is
(right, left). Lengths in metres, angles in radians, rotations as R x, joints in the order `MANO16`.
`pose` is this project's: axis-angle of the root and of 15 finger joints, *without* the mean pose.
`mano_forward` adds it to the axis-angle numbers; it is not composed with them as a rotation.

What smplx does is stated after its `MANO`, `MANOLayer` and `SMPLX` (release 0.1.28).
"""

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from er_jax.mano.joints import HAND21, INTERHAND21, MANO16, PARENTS
from er_jax.mano.model import HandModel

Numbers = Float[np.ndarray, "..."]

SMPLX_TIP_VERTICES = MappingProxyType(
    {"Thumb_4": 744, "Index_4": 320, "Middle_4": 443, "Ring_4": 554, "Pinky_4": 671}
)
"""Fingertips of smplx (`vertex_ids["mano"]`), which its `MANO` lists but does not put out.

Of MANO's mesh: on the stand-in hand, whose vertices are its own, only `TIP_VERTICES` are tips.
"""

FREIHAND_TIP_VERTICES = MappingProxyType(
    {"Thumb_4": 744, "Index_4": 320, "Middle_4": 443, "Ring_4": 555, "Pinky_4": 672}
)
"""Fingertips of FreiHAND (its `utils/mano_utils.py`), of MANO's mesh too."""

SMPLX21 = (*MANO16, *SMPLX_TIP_VERTICES)
"""The 16 joints that smplx's `MANO` puts out, then its fingertips."""

JOINT_ORDERS = MappingProxyType(
    {
        "er_jax": HAND21,
        "openpose": HAND21,
        "mediapipe": HAND21,
        "freihand": HAND21,
        "manopth": HAND21,
        "interhand26m": INTERHAND21,
        "mano": MANO16,
        "smplx": SMPLX21,
    }
)
"""Orders of one hand's joints, for `joint_order(JOINT_ORDERS[theirs], HAND21)`."""

BODY21 = (
    *("left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
    *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck"),
    *("left_collar", "right_collar", "head", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
"""Joints of `body_pose` of SMPL-X and SMPL-H (smplx's `joint_names.py`, without the pelvis)."""


def to_smplx(
    betas: Float[np.ndarray, "*batch 10"],
    pose: Float[np.ndarray, "*batch 48"],
    transl: Float[np.ndarray, "*batch 3"],
    mean_pose: Float[np.ndarray, "*hands 45"],
    *,
    flat_hand_mean: bool,
) -> dict[str, Numbers]:
    """Arguments of `smplx.MANO(…, use_pca=False, flat_hand_mean=flat_hand_mean)`.

    They give the same vertices. A left hand's do so only after `corrected_left_shapedirs`. Each
    argument needs one leading axis there, and the model's type, float32 unless it was given.

    Args:
      betas: shape coefficients; smplx's are the same.
      pose: without the mean pose.
      transl: smplx's is the same: both turn the hand about its wrist at rest, then add it.
      mean_pose: the hand model's (`HandModel.mean_pose`).
      flat_hand_mean: as that model was built; smplx's default is False.

    Returns:
      `betas`, `global_orient` (*batch, 3), `hand_pose` (*batch, 45), `transl`. With
      `flat_hand_mean=True`, `hand_pose` is also the `right_hand_pose` or `left_hand_pose` of an
      `SMPLX(use_pca=False, flat_hand_mean=True)`.
    """
    betas, pose, transl = (np.asarray(x, np.float64) for x in (betas, pose, transl))
    _require(pose, (48,), "pose")
    fingers = pose[..., 3:] + np.asarray(mean_pose, np.float64) * flat_hand_mean
    return {
        "betas": betas,
        "global_orient": pose[..., :3],
        "hand_pose": fingers,
        "transl": transl,
    }


def from_smplx(
    betas: Float[np.ndarray, "*batch 10"],
    global_orient: Float[np.ndarray, "*batch 3"],
    hand_pose: Float[np.ndarray, "*batch 45"],
    mean_pose: Float[np.ndarray, "*hands 45"],
    transl: Float[np.ndarray, "*batch 3"] | None = None,
    *,
    flat_hand_mean: bool,
) -> dict[str, Numbers]:
    """Arguments of `mano_forward` from those of smplx's `MANO`: `to_smplx` undone.

    Args:
      betas: shape coefficients.
      global_orient: axis-angle of the root.
      hand_pose: axis-angle of the finger joints.
      mean_pose: the hand model's (`HandModel.mean_pose`).
      transl: None: none, as in smplx.
      flat_hand_mean: as the model was built that these were meant for; False of InterHand2.6M's.

    Returns:
      `betas`, `pose` (*batch, 48), `transl`.

    Raises:
      ValueError: `hand_pose` has not 45 numbers: those of `use_pca=True` go to
        `er_jax.mano.pose_from_components`.
    """
    betas, root, fingers = (np.asarray(x, np.float64) for x in (betas, global_orient, hand_pose))
    if fingers.shape[-1:] != (45,):
        raise ValueError(
            f"hand_pose has shape {fingers.shape}, not (…, 45): matrices go to rotations_to_pose, "
            "coefficients of principal components to er_jax.mano.pose_from_components"
        )
    fingers = fingers - np.asarray(mean_pose, np.float64) * flat_hand_mean
    batch = np.broadcast_shapes(root.shape[:-1], fingers.shape[:-1])
    root, fingers = np.broadcast_to(root, (*batch, 3)), np.broadcast_to(fingers, (*batch, 45))
    return {
        "betas": betas,
        "pose": np.concatenate([root, fingers], axis=-1),
        "transl": np.zeros_like(root) if transl is None else np.asarray(transl, np.float64),
    }


def pose_to_rotations(
    pose: Float[np.ndarray, "*batch 48"], mean_pose: Float[np.ndarray, "*hands 45"]
) -> Float[np.ndarray, "*batch 16 3 3"]:
    """Rotation matrices of the full pose: what smplx's `MANOLayer`, HaMeR and WiLoR speak.

    `MANOLayer` takes `[..., :1, :, :]` as `global_orient` and `[..., 1:, :, :]` as `hand_pose`; it
    adds no mean pose, whatever its `flat_hand_mean` is.
    """
    pose = np.asarray(pose, np.float64)
    _require(pose, (48,), "pose")
    full = pose + _with_root(mean_pose)
    return _matrix(full.reshape(*full.shape[:-1], 16, 3))


def rotations_to_pose(
    rotations: Float[np.ndarray, "*batch 16 3 3"], mean_pose: Float[np.ndarray, "*hands 45"]
) -> Float[np.ndarray, "*batch 48"]:
    """Pose without the mean from rotation matrices of the full pose.

    Of the axis-angle vectors of one rotation it takes those of at most half a turn.
    """
    rotations = np.asarray(rotations, np.float64)
    _require(rotations, (16, 3, 3), "rotations")
    full = _axis_angle(rotations)
    return full.reshape(*full.shape[:-2], 48) - _with_root(mean_pose)


def mirrored_pose(axis_angle: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
    """Axis-angle of the other hand, as a mirror in x shows it: y and z of each vector change sign.

    For a left hand that was predicted as a right one in a mirrored picture (HaMeR, WiLoR): this of
    all joints, `betas` as they are, x of `transl` and of vertices negated.
    """
    axis_angle = np.asarray(axis_angle, np.float64)
    if axis_angle.shape[-1] % 3:
        raise ValueError(f"the last axis has length {axis_angle.shape[-1]}, not a multiple of 3")
    return axis_angle * np.tile([1.0, -1.0, -1.0], axis_angle.shape[-1] // 3)


def rest_wrist(
    hands: HandModel, betas: Float[np.ndarray, "*batch 10"]
) -> Float[np.ndarray, "*batch 3"]:
    """Where the wrist joint of a hand of this shape is at rest: what `pose[:3]` turns about.

    It is not the origin. smplx's `joints[:, 0]` is this plus `transl`, however the hand is turned.
    """
    return _rest_joints(hands, betas)[..., 0, :]


def moved(
    global_orient: Float[np.ndarray, "*batch 3"],
    transl: Float[np.ndarray, "*batch 3"],
    wrist: Float[np.ndarray, "*batch 3"],
    rotation: Float[np.ndarray, "*batch 3 3"],
    translation: Float[np.ndarray, "*batch 3"],
) -> tuple[Float[np.ndarray, "*batch 3"], Float[np.ndarray, "*batch 3"]]:
    """Root and translation of the hand each of whose points x has gone to R x + t.

    For instance from the world, in which InterHand2.6M's parameters are, to a camera. R transl + t
    would be wrong: the hand turns about its wrist at rest, not about the origin.

    Args:
      global_orient: axis-angle of the root.
      transl: translation of the hand.
      wrist: `rest_wrist` of its shape.
      rotation: R.
      translation: t, metres; InterHand2.6M's camera positions are millimetres, and not t but where
        the camera is.

    Returns:
      `global_orient` and `transl`.
    """
    transl, wrist = np.asarray(transl, np.float64), np.asarray(wrist, np.float64)
    rotation = np.asarray(rotation, np.float64)
    turned = (rotation @ (wrist + transl)[..., None])[..., 0]
    return _axis_angle(rotation @ _matrix(global_orient)), turned + translation - wrist


def kinematic_joints(
    hands: HandModel,
    betas: Float[np.ndarray, "*batch 10"],
    rotations: Float[np.ndarray, "*batch 16 3 3"],
    transl: Float[np.ndarray, "*batch 3"],
) -> Float[np.ndarray, "*batch 16 3"]:
    """The joints that smplx puts out: the turned bones' ends, in the order `MANO16`.

    This project's joints, as those of InterHand2.6M's MANO fits, are the posed mesh's: the
    regressor times its vertices, some millimetres off, since skinning is not rigid around a joint.
    Those come from smplx's vertices by `joints_from_vertices`.

    Args:
      hands: one hand's model, or both.
      betas: shape coefficients.
      rotations: of the full pose, the mean included (`pose_to_rotations`).
      transl: metres.
    """
    rotations = np.asarray(rotations, np.float64)
    _require(rotations, (16, 3, 3), "rotations")
    rest = _rest_joints(hands, betas)
    turns = [rotations[..., 0, :, :]]
    places = [rest[..., 0, :] + transl]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        bone = rest[..., joint, :] - rest[..., parent, :]
        places.append(places[parent] + (turns[parent] @ bone[..., None])[..., 0])
        turns.append(turns[parent] @ rotations[..., joint, :, :])
    return np.stack(np.broadcast_arrays(*places), axis=-2)


def corrected_left_shapedirs(
    left: Float[np.ndarray, "778 3 n"], right: Float[np.ndarray, "778 3 n"]
) -> Float[np.ndarray, "778 3 n"]:
    """The left hand's shape directions as this project has them, for a loaded smplx model.

    MANO's official left file has the right hand's x components (vchoutas/smplx, issue 48); they are
    mirrored here, and nothing is done to directions that are right already. No betas do the same,
    see `betas_for`.

        left.shapedirs.copy_(torch.tensor(
            corrected_left_shapedirs(left.shapedirs.numpy(), right.shapedirs.numpy())))
    """
    left, right = np.asarray(left), np.asarray(right)
    if np.abs(left[:, 0] - right[:, 0]).sum() >= 1:  # the rule of all two-hand work
        return left
    return left * np.array([-1, 1, 1], left.dtype)[:, None]


def betas_for(
    betas: Float[np.ndarray, "*batch 10"],
    source: Float[np.ndarray, "778 3 10"],
    target: Float[np.ndarray, "778 3 n"],
    *,
    tolerance_m: float = 1e-6,
) -> Float[np.ndarray, "*batch n"]:
    """The betas of the same shape in a model with other shape directions, where there are any.

    Between the corrected and the official left hand there are none, but for a shape that moves
    nothing along x, or along x alone: y and z ask for the same betas, x for the opposite ones. Then
    correct the model (`corrected_left_shapedirs`), or take the nearest shape by a larger tolerance.

    Args:
      betas: shape coefficients of the source.
      source: `shapedirs` that they belong to.
      target: `shapedirs` of the model that they are wanted for, with the same template.
      tolerance_m: how far a vertex may be from where it was.

    Raises:
      ValueError: a vertex is farther off even with the best betas; says how far.
    """
    betas, source, target = (np.asarray(x, np.float64) for x in (betas, source, target))
    basis = target.reshape(-1, target.shape[-1])
    wanted = source.reshape(-1, source.shape[-1]) @ betas.reshape(-1, betas.shape[-1]).T
    found = np.linalg.lstsq(basis, wanted, rcond=None)[0]
    misses = np.linalg.norm((basis @ found - wanted).reshape(len(target), 3, -1), axis=1)
    worst = float(misses.max(initial=0.0))
    if worst > tolerance_m:
        raise ValueError(
            f"no betas of the other model give this shape: the nearest are off by up to "
            f"{1000 * worst:.3g} mm. If it is the official left hand, mirror its shape directions: "
            "corrected_left_shapedirs"
        )
    return found.T.reshape(*betas.shape[:-1], -1)


def wrist_in_body(
    global_orient: Float[np.ndarray, "*batch 3"],
    body_orient: Float[np.ndarray, "*batch 3"],
    body_pose: Float[np.ndarray, "*batch 63"],
    side: str,
) -> Float[np.ndarray, "*batch 3"]:
    """The wrist's pose in a body that turns its hand as `global_orient` does a lone one.

    A lone hand's root says how the hand lies in space; the wrist of SMPL-X (and SMPL-H) says how it
    lies against the forearm. At rest the two are alike, MANO's hand being that of the body in a T,
    so the wrist's rotation is the forearm's inverse times the hand's (vchoutas/smplx, issue 20).
    Body and hand must be in the same axes (`moved`). Where the wrist is, and the hand's shape, are
    the body's own: `transl` and MANO's betas have no counterpart in it.

    Args:
      global_orient: axis-angle of the lone hand's root.
      body_orient: axis-angle of the body's `global_orient`.
      body_pose: axis-angle in the order `BODY21`; of the wrist and what is below nothing is read.
      side: "right" or "left".

    Returns:
      What to put in `body_pose` at `3 * BODY21.index(f"{side}_wrist")`.
    """
    forearm = _forearm(body_orient, body_pose, side)
    return _axis_angle(np.swapaxes(forearm, -1, -2) @ _matrix(global_orient))


def wrist_out_of_body(
    body_orient: Float[np.ndarray, "*batch 3"],
    body_pose: Float[np.ndarray, "*batch 63"],
    side: str,
) -> Float[np.ndarray, "*batch 3"]:
    """The root of a lone hand that lies as the body's does: `wrist_in_body` undone."""
    forearm = _forearm(body_orient, body_pose, side)
    return _axis_angle(forearm @ _body_turns(body_pose, (f"{side}_wrist",))[0])


def _forearm(body_orient: Numbers, body_pose: Numbers, side: str) -> Numbers:
    """Rotation of the forearm in space."""
    if side not in ("right", "left"):
        raise ValueError(f'side is {side!r}; it must be "right" or "left"')
    arm = (f"{side}_collar", f"{side}_shoulder", f"{side}_elbow")
    turn = _matrix(body_orient)
    for local in _body_turns(body_pose, ("spine1", "spine2", "spine3", *arm)):
        turn = turn @ local
    return turn


def _body_turns(body_pose: Numbers, names: Sequence[str]) -> list[Numbers]:
    body_pose = np.asarray(body_pose, np.float64)
    _require(body_pose, (63,), "body_pose")
    starts = [3 * BODY21.index(name) for name in names]
    return [_matrix(body_pose[..., start : start + 3]) for start in starts]


def _rest_joints(hands: HandModel, betas: Numbers) -> Numbers:
    """Joints (*batch, 16, 3) of the shaped template."""
    betas = np.asarray(betas, np.float64)
    template, directions = (
        np.asarray(x, np.float64) for x in (hands.rest_joints, hands.rest_joint_directions)
    )
    shaped = template + np.einsum("...s,...scj->...cj", betas, directions)
    return np.swapaxes(shaped, -1, -2)


def _with_root(mean_pose: Numbers) -> Numbers:
    """The mean of all 48 numbers of a pose."""
    mean_pose = np.asarray(mean_pose, np.float64)
    return np.concatenate([np.zeros((*mean_pose.shape[:-1], 3)), mean_pose], axis=-1)


def _matrix(axis_angle: Numbers) -> Numbers:
    axis_angle = np.asarray(axis_angle, np.float64)
    matrices = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_matrix()
    return matrices.reshape(*axis_angle.shape, 3)


def _axis_angle(matrix: Numbers) -> Numbers:
    vectors = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec()
    return vectors.reshape(*matrix.shape[:-1])


def _require(array: Numbers, shape: tuple[int, ...], name: str) -> None:
    if array.shape[-len(shape) :] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape {array.shape}, not (…, {expected})")
