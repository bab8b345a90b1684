"""Errors of reconstructed hands under the field's evaluation protocols, in millimetres.

Errors of each sample are computed on the device (`sample_errors`), collected on the
host and reduced there in float64 (`er_jax.metric_summary`), so that how samples are ordered and
batched makes no difference. Three protocols, which must never share a table without their names:

- `wrist_aligned` (InterNet, InterWild): both meshes relative to their own wrists; annotated joints.
- `scale_aligned` (IntagHand): joints of both meshes relative to Middle_1, the prediction scaled to
  the true length from the wrist to Middle_1.
- `procrustes`: similarity alignment of each hand; annotated joints, and the mesh by itself.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from er_jax.mano.joints import HAND21, HANDS, INTAGHAND_TIP_VERTICES

MM_PER_M = 1000.0
INTERACTING = 2  # hand_type: 0 right, 1 left, 2 interacting
WRIST, MIDDLE_1, MIDDLE_TIP = (HAND21.index(name) for name in ("Wrist", "Middle_1", "Middle_4"))
F_SCORE_THRESHOLDS_MM = (5.0, 15.0)
# A similarity has 7 degrees of freedom: 7 joints give three times as many numbers. Hands with
# fewer valid joints are left out of `procrustes`, where they would fit almost without error.
MIN_JOINTS_TO_ALIGN = 7


class Reconstruction(Protocol):
    """What is evaluated: the network's prediction, or one read from a file. Metres."""

    @property
    def vertices(self) -> Float[Array, "B 2 778 3"]: ...
    @property
    def joints(self) -> Float[Array, "B 2 21 3"]:
        """Hand 21 joints of `vertices` by MANO's regressor and tips."""

    @property
    def rel_trans(self) -> Float[Array, "B 3"]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReconstructedMeshes:
    """A reconstruction that is only its meshes, as of a baseline or a predictions file."""

    vertices: Float[Array, "B 2 778 3"]
    joints: Float[Array, "B 2 21 3"]
    rel_trans: Float[Array, "B 3"]


class Truth(Protocol):
    """The fields of `er_jax.targets.Targets` that are compared with. Metres."""

    @property
    def joint_cam(self) -> Float[Array, "B 2 21 3"]: ...
    @property
    def joint_trunc(self) -> Bool[Array, "B 2 21"]: ...
    @property
    def mano_mesh_cam(self) -> Float[Array, "B 2 778 3"]: ...
    @property
    def mano_joint_cam(self) -> Float[Array, "B 2 21 3"]: ...
    @property
    def mano_hand_valid(self) -> Bool[Array, "B 2"]: ...
    @property
    def rel_trans(self) -> Float[Array, "B 3"]: ...
    @property
    def rel_trans_valid(self) -> Bool[Array, "B"]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandErrors:
    """Errors of each hand under one protocol; zero where not valid."""

    joint_mm: Float[Array, "B 2 21"]
    joint_valid: Bool[Array, "B 2 21"]
    vertex_mm: Float[Array, "B 2"]
    """Mean distance of a hand's vertices."""
    vertex_valid: Bool[Array, "B 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampleErrors:
    """Errors of a batch of samples under every protocol; hands (right, left), joints Hand 21."""

    wrist_aligned: HandErrors
    scale_aligned: HandErrors
    procrustes: HandErrors
    rel_trans_mm: Float[Array, "B"]
    rel_trans_valid: Bool[Array, "B"]
    rel_vertex_mm: Float[Array, "B"]
    """Mean over both hands' vertices, the left moved by its relative translation (RRVE)."""
    rel_vertex_valid: Bool[Array, "B"]
    f_score: Float[Array, "B 2 2"] | None
    """Of each hand at `F_SCORE_THRESHOLDS_MM`, valid where the procrustes vertices are; None where
    it was not asked for."""
    hand_type: Int[Array, "B"]
    sample_mask: Bool[Array, "B"]
    """False for the padding of a last batch."""


PROTOCOLS = ("wrist_aligned", "scale_aligned", "procrustes")


def sample_errors(
    prediction: Reconstruction,
    truth: Truth,
    *,
    hand_type: Int[Array, "B"],
    sample_mask: Bool[Array, "B"],
    f_scores: bool = True,
) -> SampleErrors:
    """Errors of each sample of a batch under every protocol. To be called inside a `jax.jit`.

    Args:
        prediction: reconstruction of both hands; only the hands that the truth has are looked at.
        truth: targets of the same samples.
        hand_type: 0 right, 1 left, 2 interacting.
        sample_mask: False for padding.
        f_scores: whether to search nearest distances for the F-scores, which costs several times
            as much as all else.
    """
    interacting = hand_type == INTERACTING
    present = interacting[:, None] | (hand_type[:, None] == jnp.arange(len(HANDS)))
    present &= sample_mask[:, None]
    mesh_valid = truth.mano_hand_valid & present
    joint_valid = truth.joint_trunc.astype(bool) & sample_mask[:, None, None]

    mesh = prediction.vertices - prediction.joints[:, :, WRIST, None]
    true_mesh = truth.mano_mesh_cam - truth.mano_joint_cam[:, :, WRIST, None]
    joints = prediction.joints - prediction.joints[:, :, WRIST, None]
    true_joints = truth.joint_cam - truth.joint_cam[:, :, WRIST, None]
    wrist_aligned = HandErrors(
        *_masked(_distance_mm(joints, true_joints), joint_valid),
        *_masked(_distance_mm(mesh, true_mesh).mean(-1), mesh_valid),
    )
    scale_aligned = _scale_aligned(prediction, truth, joint_valid, mesh_valid, interacting)
    procrustes, f_score = _procrustes(prediction, truth, joint_valid, mesh_valid, f_scores)

    rel_trans_valid = truth.rel_trans_valid & interacting & sample_mask
    rel_trans_error = prediction.rel_trans - truth.rel_trans
    moved_left_mm = _distance_mm(mesh[:, 1] + rel_trans_error[:, None], true_mesh[:, 1]).mean(-1)
    rel_vertex_mm = (wrist_aligned.vertex_mm[:, 0] + moved_left_mm) / 2
    return SampleErrors(
        wrist_aligned,
        scale_aligned,
        procrustes,
        *_masked(_length(rel_trans_error) * MM_PER_M, rel_trans_valid),
        *_masked(rel_vertex_mm, rel_trans_valid & mesh_valid.all(-1)),
        f_score=f_score,
        hand_type=hand_type,
        sample_mask=sample_mask,
    )


def _scale_aligned(
    prediction: Reconstruction,
    truth: Truth,
    joint_valid: Bool[Array, "B 2 21"],
    mesh_valid: Bool[Array, "B 2"],
    interacting: Bool[Array, "B"],
) -> HandErrors:
    """Middle_1 at the origin, the prediction scaled to the true length of the palm, hand by hand.

    Joints of both come from the meshes, with IntagHand's vertex for the middle fingertip. A sample
    counts only if all of its hands have their fits.
    """
    mesh_valid &= ~interacting[:, None] | mesh_valid.all(-1, keepdims=True)
    joints = _with_intaghand_tip(prediction.joints, prediction.vertices)
    true_joints = _with_intaghand_tip(truth.mano_joint_cam, truth.mano_mesh_cam)
    centre, true_centre = joints[:, :, MIDDLE_1, None], true_joints[:, :, MIDDLE_1, None]
    palm = _length(joints[:, :, WRIST] - joints[:, :, MIDDLE_1])
    true_palm = _length(true_joints[:, :, WRIST] - true_joints[:, :, MIDDLE_1])
    # A prediction of no extent stays at the origin instead of becoming infinite.
    scale = jnp.where(palm > 0, true_palm / jnp.where(palm > 0, palm, 1), 0)[..., None, None]
    joint_mm = _distance_mm((joints - centre) * scale, true_joints - true_centre)
    vertex_mm = _distance_mm(
        (prediction.vertices - centre) * scale, truth.mano_mesh_cam - true_centre
    ).mean(-1)
    return HandErrors(
        *_masked(joint_mm, joint_valid & mesh_valid[..., None]), *_masked(vertex_mm, mesh_valid)
    )


def _procrustes(
    prediction: Reconstruction,
    truth: Truth,
    joint_valid: Bool[Array, "B 2 21"],
    mesh_valid: Bool[Array, "B 2"],
    f_scores: bool,
) -> tuple[HandErrors, Float[Array, "B 2 2"] | None]:
    enough = joint_valid.sum(-1, keepdims=True) >= MIN_JOINTS_TO_ALIGN
    joints = similarity_align(prediction.joints, truth.joint_cam, joint_valid)
    vertices = similarity_align(prediction.vertices, truth.mano_mesh_cam)
    errors = HandErrors(
        *_masked(_distance_mm(joints, truth.joint_cam), joint_valid & enough),
        *_masked(_distance_mm(vertices, truth.mano_mesh_cam).mean(-1), mesh_valid),
    )
    if not f_scores:
        return errors, None
    scores = jnp.where(mesh_valid[..., None], f_score(vertices, truth.mano_mesh_cam), 0)
    return errors, scores


def similarity_align(
    source: Float[Array, "*batch N 3"],
    target: Float[Array, "*batch N 3"],
    valid: Bool[Array, "*batch N"] | None = None,
) -> Float[Array, "*batch N 3"]:
    """The source moved onto the target by the least-squares rotation, scale and translation.

    Never a reflection: the rotation is the unit quaternion of Horn, "Closed-form solution of
    absolute orientation using unit quaternions", JOSA A 1987, the eigenvector of the largest
    eigenvalue λ of a symmetric 4×4 matrix of the cross-covariance; the scale of Umeyama 1991
    is then λ / Σ|source|². It is the solution of Kabsch and Umeyama without their case
    distinction, and four times cheaper than a batch of SVDs.

    Args:
        valid: points that determine the alignment; all by default. All points are moved.
    """
    weight = jnp.ones(source.shape[:-1]) if valid is None else valid
    weight = weight.astype(source.dtype)[..., None]
    total = jnp.maximum(weight.sum(-2, keepdims=True), 1)
    target_centre = (target * weight).sum(-2, keepdims=True) / total
    source = source - (source * weight).sum(-2, keepdims=True) / total
    covariance = jnp.einsum(
        "...ni,...nj->...ij", source * weight, target - target_centre, precision="highest"
    )
    eigenvalues, eigenvectors = jnp.linalg.eigh(_horn_matrix(covariance))
    extent = jnp.sum(source**2 * weight, axis=(-2, -1))
    scale = jnp.where(extent > 0, eigenvalues[..., -1] / jnp.where(extent > 0, extent, 1), 0)
    transform = scale[..., None, None] * _quaternion_to_matrix(eigenvectors[..., -1])
    return jnp.einsum("...ni,...ji->...nj", source, transform, precision="highest") + target_centre


def _horn_matrix(covariance: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 4 4"]:
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (
        [covariance[..., i, j] for j in range(3)] for i in range(3)
    )
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _quaternion_to_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Of unit quaternions (w, x, y, z)."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def f_score(
    points: Float[Array, "*batch N 3"], truth: Float[Array, "*batch M 3"]
) -> Float[Array, "*batch 2"]:
    """Harmonic mean of precision and recall at `F_SCORE_THRESHOLDS_MM` (Knapitsch et al. 2017).

    Precision: the share of points that have a true point within the threshold; recall the reverse.
    """
    thresholds = jnp.array(F_SCORE_THRESHOLDS_MM) ** 2

    def of_one(pair: tuple[Array, Array]) -> Array:
        # |a − b|² = |a|² + |b|² − 2ab as one matrix product; a hand at a time stays in the cache.
        a, b = pair
        ones_a, ones_b = jnp.ones((len(a), 1), a.dtype), jnp.ones((len(b), 1), b.dtype)
        a = jnp.concatenate([a, jnp.sum(a * a, -1, keepdims=True), ones_a], axis=-1)
        b = jnp.concatenate([-2 * b, ones_b, jnp.sum(b * b, -1, keepdims=True)], axis=-1)
        squared = jnp.matmul(a, b.T, precision="highest")
        precision = jnp.mean(squared.min(1)[:, None] <= thresholds, axis=0)
        recall = jnp.mean(squared.min(0)[:, None] <= thresholds, axis=0)
        return 2 * precision * recall / jnp.maximum(precision + recall, 1e-12)

    flat = [p.reshape(-1, *p.shape[-2:]) * MM_PER_M for p in (points, truth)]
    return jax.lax.map(of_one, tuple(flat)).reshape(*points.shape[:-2], len(thresholds))


def _length(vectors: Float[Array, "*batch 3"]) -> Float[Array, "*batch"]:
    return jnp.sqrt(jnp.sum(vectors**2, axis=-1))


def _distance_mm(
    points: Float[Array, "*batch 3"], truth: Float[Array, "*batch 3"]
) -> Float[Array, "*batch"]:
    return _length(points - truth) * MM_PER_M


def _with_intaghand_tip(
    joints: Float[Array, "B 2 21 3"], vertices: Float[Array, "B 2 778 3"]
) -> Float[Array, "B 2 21 3"]:
    tip = vertices[:, :, INTAGHAND_TIP_VERTICES["Middle_4"]]
    return joints.at[:, :, MIDDLE_TIP].set(tip)


def _masked(value: Array, valid: Bool[Array, "..."]) -> tuple[Array, Bool[Array, "..."]]:
    return jnp.where(valid, value, 0), valid
