"""Errors of reconstructed hands under the field's evaluation protocols, in millimetres.

Errors of each sample are computed on the device (`sample_errors`), collected on the
host and reduced there in float64 (`er_jax.evaluation.summary`), so that how samples are ordered and
batched makes no difference. Three protocols, which must never share a table without their names:

- `wrist_aligned` (InterNet, InterWild): both meshes relative to their own wrists; annotated joints.
- `scale_aligned` (IntagHand): joints of both meshes relative to Middle_1, the prediction scaled to
  the true length from the wrist to Middle_1.
- `procrustes`: similarity alignment of each hand; annotated joints, and the mesh by itself.

Beside them, of reconstructions that say it: `camera_space`, where the hands are in the camera's
metres, nothing aligned; and which hands are there. A reconstruction of joints alone has no error of
vertices; its joints then stand for the mesh's.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float16, Int

from er_jax.evaluation.alignment import f_score, map_in_cache, similarity_align
from er_jax.evaluation.types import (
    F_SCORE_THRESHOLDS_MM,
    CameraSpaceErrors,
    HandErrors,
    Presence,
    ReconstructedMeshes,
    SampleAttributes,
    SampleErrors,
)
from er_jax.mano.joints import HAND21, INTAGHAND_TIP_VERTICES
from er_jax.supervision.targets import INTERACTING, Targets, hands_of_type

MM_PER_M = 1000.0
WRIST, MIDDLE_1, MIDDLE_TIP = (HAND21.index(name) for name in ("Wrist", "Middle_1", "Middle_4"))
# A similarity has 7 degrees of freedom: 7 joints give three times as many numbers. Hands with
# fewer valid joints are left out of `procrustes`, where they would fit almost without error.
MIN_JOINTS_TO_ALIGN = 7
PIECE = 16  # samples computed at a time
GREATEST_HALF = float(jnp.finfo(jnp.float16).max)


def sample_errors(
    prediction: ReconstructedMeshes,
    truth: Targets,
    *,
    hand_type: Int[Array, "B"],
    sample_mask: Bool[Array, "B"],
    sample_id: Int[Array, "B"] | None = None,
    f_scores: bool = True,
) -> SampleErrors:
    """Errors of each sample of a batch under every protocol. To be called inside a `jax.jit`.

    A sample's errors are the same to the last bit in whatever batch it comes: they are computed in
    pieces of one size, because compilers choose the order of a sum by the shape of the whole. (At
    least two pieces, because a loop of one is unrolled and rounds differently again.) That holds on
    a CPU, where it is also faster; elsewhere all pieces are computed at once.

    Args:
      prediction: reconstruction of both hands; only the hands that the truth has are looked at.
      truth: targets of the same samples.
      hand_type: 0 right, 1 left, 2 interacting.
      sample_mask: False for padding.
      sample_id: the annotations' ids, by which reports name and pair samples; -1 where not given.
      f_scores: whether to search nearest distances for the F-scores, which costs several times
          as much as all else.
    """
    batch_size = len(hand_type)
    sample_id = jnp.full(batch_size, -1) if sample_id is None else sample_id
    pieces = max(2, math.ceil(batch_size / PIECE))

    def split(value: Array) -> Array:
        padding = [(0, pieces * PIECE - batch_size), *[(0, 0)] * (value.ndim - 1)]
        return jnp.pad(value, padding).reshape(pieces, PIECE, *value.shape[1:])

    arguments = (prediction, truth, sample_id, hand_type, sample_mask)
    of_piece = functools.partial(_errors_of_piece, f_scores)
    split_arguments = jax.tree.map(split, arguments)
    errors = map_in_cache(lambda piece: of_piece(*piece), split_arguments, pieces)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:batch_size], errors)


def _errors_of_piece(
    f_scores: bool,
    prediction: ReconstructedMeshes,
    truth: Targets,
    sample_id: Int[Array, "B"],
    hand_type: Int[Array, "B"],
    sample_mask: Bool[Array, "B"],
) -> SampleErrors:
    interacting = hand_type == INTERACTING
    present = hands_of_type(hand_type)
    fit = truth.mano_hand_valid & present & sample_mask[:, None]
    valid = _Valid(
        joint=truth.joint_trunc.astype(bool) & sample_mask[:, None, None],
        mesh=fit,
        vertices=fit if prediction.vertices is not None else jnp.zeros_like(fit),
        rel_trans=truth.rel_trans_valid & interacting & sample_mask,
    )
    vertices = prediction.vertices
    if vertices is None:  # none of them counts
        vertices = jnp.zeros_like(truth.mano_mesh_cam)
    mesh = _Hands(_coordinates_first(vertices), _coordinates_first(prediction.joints))
    true_mesh = _Hands(
        _coordinates_first(truth.mano_mesh_cam), _coordinates_first(truth.mano_joint_cam)
    )
    mesh, true_mesh = jax.lax.optimization_barrier((mesh, true_mesh))
    joint_cam = _coordinates_first(truth.joint_cam)
    rel_trans_error = prediction.rel_trans - truth.rel_trans

    f_scores = f_scores and prediction.vertices is not None
    procrustes, f_score_of_hands = _procrustes(mesh, true_mesh, joint_cam, valid, f_scores)
    wrist_aligned = _wrist_aligned(mesh, true_mesh, joint_cam, valid)
    left_moved_mm = _moved_left_mm(mesh, true_mesh, rel_trans_error)
    rel_vertex_mm = (wrist_aligned.vertex_mm[:, 0] + left_moved_mm) / 2
    return SampleErrors(
        wrist_aligned,
        _scale_aligned(
            mesh, true_mesh, valid, interacting, intaghand_tip=prediction.vertices is not None
        ),
        procrustes,
        *_masked(jnp.linalg.norm(rel_trans_error, axis=-1) * MM_PER_M, valid.rel_trans),
        *_masked(rel_vertex_mm, valid.rel_trans & valid.vertices.all(-1)),
        f_score=f_score_of_hands,
        joint_off_mm=_off_mm(mesh, joint_cam, valid),
        camera_space=_camera_space(mesh, joint_cam, prediction, truth, valid, sample_mask),
        presence=_presence(prediction, truth, sample_mask),
        joint_spread=prediction.joint_spread,
        attributes=_attributes(truth, sample_id, hand_type),
        sample_mask=sample_mask,
    )


class _Hands(NamedTuple):
    """Coordinates come before points: compiled loops then run over hundreds of neighbours in
    memory instead of three, which makes the metrics about ten times faster on a CPU."""

    vertices: Float[Array, "B 2 3 778"]
    joints: Float[Array, "B 2 3 21"]


class _Valid(NamedTuple):
    joint: Bool[Array, "B 2 21"]
    mesh: Bool[Array, "B 2"]  # the truth's
    vertices: Bool[Array, "B 2"]  # and the reconstruction's
    rel_trans: Bool[Array, "B"]


def _wrist_aligned(
    mesh: _Hands, true_mesh: _Hands, joint_cam: Float[Array, "B 2 3 21"], valid: _Valid
) -> HandErrors:
    wrist, true_wrist = mesh.joints[..., :1], true_mesh.joints[..., :1]
    joint_mm = _distance_mm(mesh.joints - wrist, joint_cam - joint_cam[..., :1])
    vertex_mm = _distance_mm(mesh.vertices - wrist, true_mesh.vertices - true_wrist).mean(-1)
    return HandErrors(*_masked(joint_mm, valid.joint), *_masked(vertex_mm, valid.vertices))


def _off_mm(
    mesh: _Hands, joint_cam: Float[Array, "B 2 3 21"], valid: _Valid
) -> Float16[Array, "B 2 21 3"]:
    relative = mesh.joints - mesh.joints[..., :1] - (joint_cam - joint_cam[..., :1])
    off_mm = jnp.clip(relative * MM_PER_M, -GREATEST_HALF, GREATEST_HALF)
    off_mm = jnp.where(valid.joint[:, :, None], off_mm, 0)
    return jnp.swapaxes(off_mm, -1, -2).astype(jnp.float16)


def _camera_space(
    mesh: _Hands,
    joint_cam: Float[Array, "B 2 3 21"],
    prediction: ReconstructedMeshes,
    truth: Targets,
    valid: _Valid,
    sample_mask: Bool[Array, "B"],
) -> CameraSpaceErrors | None:
    """Joints and wrists where they are, the wrist's depth in shares of the true one."""
    if prediction.wrists is None:
        return None
    known = truth.wrist_cam_valid & truth.hand_present & sample_mask[:, None]
    off = (prediction.wrists - truth.wrist_cam)[..., None]
    wrist, true_wrist = mesh.joints[..., :1], joint_cam[..., :1]
    joint_mm = _distance_mm(mesh.joints - wrist + off, joint_cam - true_wrist)
    depth = off[..., 2, 0] / jnp.where(known, truth.wrist_cam[..., 2], 1)
    return CameraSpaceErrors(
        *_masked(joint_mm, valid.joint & known[..., None]),
        wrist_mm=_masked(_distance_mm(off, jnp.zeros_like(off))[..., 0], known)[0],
        relative_depth=_masked(depth, known)[0],
        wrist_valid=known,
    )


def _presence(
    prediction: ReconstructedMeshes, truth: Targets, sample_mask: Bool[Array, "B"]
) -> Presence | None:
    if prediction.presence is None:
        return None
    valid = truth.hand_present_valid & sample_mask
    return Presence(
        score=jnp.where(valid[:, None], prediction.presence, 0),
        truth=truth.hand_present & valid[:, None],
        valid=valid,
    )


def _moved_left_mm(
    mesh: _Hands, true_mesh: _Hands, rel_trans_error: Float[Array, "B 3"]
) -> Float[Array, "B"]:
    """Mean vertex distance of the left hand, moved by its relative translation to the right one.

    The right hand's part of RRVE is its wrist-aligned distance.
    """
    vertices = mesh.vertices[:, 1] - mesh.joints[:, 1, :, :1] + rel_trans_error[..., None]
    return _distance_mm(vertices, true_mesh.vertices[:, 1] - true_mesh.joints[:, 1, :, :1]).mean(-1)


def _attributes(
    truth: Targets, sample_id: Int[Array, "B"], hand_type: Int[Array, "B"]
) -> SampleAttributes:
    annotated = truth.joint_valid.sum((1, 2))
    both_seen = truth.joint_trunc.astype(bool).any(-1).all(-1)
    return SampleAttributes(
        sample_id=sample_id,
        hand_type=hand_type,
        hand_overlap=jnp.where(both_seen, _overlap(truth), jnp.nan),
        wrist_distance_mm=jnp.where(
            truth.rel_trans_valid, jnp.linalg.norm(truth.rel_trans, axis=-1) * MM_PER_M, jnp.nan
        ),
        visible_share=jnp.where(
            annotated > 0, truth.joint_trunc.sum((1, 2)) / jnp.maximum(annotated, 1), jnp.nan
        ),
    )


def _overlap(truth: Targets) -> Float[Array, "B"]:
    """Intersection over union of the two hands' boxes, of the joints that are seen."""
    seen = truth.joint_trunc.astype(bool)[..., None]
    xy = truth.joint_img[..., :2]
    low = jnp.where(seen, xy, jnp.inf).min(2)
    high = jnp.where(seen, xy, -jnp.inf).max(2)
    shared = jnp.maximum(high.min(1) - low.max(1), 0).prod(-1)
    area = (high - low).prod(-1).sum(-1)
    return shared / jnp.maximum(area - shared, 1e-12)


def _scale_aligned(
    mesh: _Hands,
    true_mesh: _Hands,
    valid: _Valid,
    interacting: Bool[Array, "B"],
    *,
    intaghand_tip: bool,
) -> HandErrors:
    """Middle_1 at the origin, the prediction scaled to the true length of the palm, hand by hand.

    Joints of both come from the meshes, with IntagHand's vertex for the middle fingertip. A
    reconstruction without a mesh cannot have that vertex: its own fingertip is compared with the
    true mesh's as everywhere else. A sample counts only if all of its hands have their fits.
    """
    mesh_valid = valid.mesh & (~interacting[:, None] | valid.mesh.all(-1, keepdims=True))
    joints, true_joints = (
        _with_intaghand_tip(hands) if intaghand_tip else hands.joints for hands in (mesh, true_mesh)
    )
    centre, true_centre = joints[..., [MIDDLE_1]], true_joints[..., [MIDDLE_1]]
    palm = jnp.linalg.norm(joints[..., [WRIST]] - centre, axis=-2, keepdims=True)
    true_palm = jnp.linalg.norm(true_joints[..., [WRIST]] - true_centre, axis=-2, keepdims=True)
    # A prediction of no extent stays at the origin instead of becoming infinite.
    scale = jnp.where(palm > 0, true_palm / jnp.where(palm > 0, palm, 1), 0)
    joint_mm = _distance_mm((joints - centre) * scale, true_joints - true_centre)
    vertices = (mesh.vertices - centre) * scale
    vertex_mm = _distance_mm(vertices, true_mesh.vertices - true_centre).mean(-1)
    return HandErrors(
        *_masked(joint_mm, valid.joint & mesh_valid[..., None]),
        *_masked(vertex_mm, valid.vertices & mesh_valid),
    )


def _with_intaghand_tip(hands: _Hands) -> Float[Array, "B 2 3 21"]:
    tip = hands.vertices[..., INTAGHAND_TIP_VERTICES["Middle_4"]]
    return hands.joints.at[..., MIDDLE_TIP].set(tip)


def _procrustes(
    mesh: _Hands,
    true_mesh: _Hands,
    joint_cam: Float[Array, "B 2 3 21"],
    valid: _Valid,
    f_scores: bool,
) -> tuple[HandErrors, Float[Array, "B 2 2"] | None]:
    enough = valid.joint.sum(-1, keepdims=True) >= MIN_JOINTS_TO_ALIGN
    joints = similarity_align(mesh.joints, joint_cam, valid.joint)
    vertices = similarity_align(mesh.vertices, true_mesh.vertices)
    errors = HandErrors(
        *_masked(_distance_mm(joints, joint_cam), valid.joint & enough),
        *_masked(_distance_mm(vertices, true_mesh.vertices).mean(-1), valid.vertices),
    )
    if not f_scores:
        return errors, None
    scores = f_score(
        vertices * MM_PER_M, true_mesh.vertices * MM_PER_M, thresholds=F_SCORE_THRESHOLDS_MM
    )
    return errors, jnp.where(valid.vertices[..., None], scores, 0)


def _coordinates_first(points: Float[Array, "*batch N 3"]) -> Float[Array, "*batch 3 N"]:
    return jnp.swapaxes(points, -1, -2)


def _distance_mm(
    points: Float[Array, "*batch 3 N"], truth: Float[Array, "*batch 3 N"]
) -> Float[Array, "*batch N"]:
    return jnp.sqrt(jnp.sum((points - truth) ** 2, axis=-2)) * MM_PER_M


def _masked(value: Array, valid: Bool[Array, "..."]) -> tuple[Array, Bool[Array, "..."]]:
    return jnp.where(valid, value, 0), valid
