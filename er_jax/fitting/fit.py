"""One or both hands of a person from keypoints, joints and a network's reconstruction.

The unknowns of a person are the shape, which both hands share, and of each hand the root's
rotation, 45 angles of the finger joints about anatomical axes, and the wrist's place in the
camera's metres. Sought is the maximum of a posterior: every piece of evidence and every prior is a
residual in units of its standard deviation.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from er_jax.fitting.levenberg_marquardt import Minimum, Terms, minimize
from er_jax.fitting.posed_joints import (
    CAPSULES,
    JointModel,
    posed_joints,
    with_stump,
)
from er_jax.mano import HAND21, MANO16, axis_angle_to_matrix
from er_jax.mano.layer import HIGHEST
from er_jax.models.place import place_by_rays

PALM = np.array([HAND21.index(name) for name in HAND21 if name == "Wrist" or name[-1] == "1"])
"""Joints that move little against each other: the wrist and the first of each finger."""
PALM.setflags(write=False)

# Degrees: lower and upper limit of flexion, towards the thumb's side, twist.
_FINGER_LIMITS = (
    ((-30, 100), (-22, 22), (-12, 12)),
    ((-10, 112), (-5, 5), (-5, 5)),
    ((-15, 85), (-5, 5), (-5, 5)),
)
_THUMB_LIMITS = (
    ((-30, 45), (-36, 34), (-26, 26)),
    ((-20, 65), (-12, 12), (-10, 10)),
    ((-25, 85), (-6, 6), (-6, 6)),
)
_FINGER_SPREAD = ((35, 8, 5), (40, 3, 3), (25, 3, 3))
_THUMB_SPREAD = ((18, 16, 10), (22, 5, 5), (28, 4, 4))
_FINGERS = [name.split("_")[0] for name in MANO16[1::3]]


def _by_joint(finger: tuple, thumb: tuple) -> np.ndarray:
    rows = [row for name in _FINGERS for row in (thumb if name == "Thumb" else finger)]
    return np.radians(np.array(rows, np.float32))


LOWER, UPPER = np.moveaxis(_by_joint(_FINGER_LIMITS, _THUMB_LIMITS), -1, 0)
"""Limits of a hand's finger joints about their axes, radians, (15, 3)."""
SPREAD = _by_joint(_FINGER_SPREAD, _THUMB_SPREAD)
"""Standard deviations of the same angles about the resting pose, radians."""
LIMIT_SIGMA = np.radians(2.0)
COUPLING, COUPLING_SIGMA = 0.6, np.radians(15.0)
"""A finger's last joint bends by this share of the one before it."""
BETAS_SIGMA = 1.0
OUTLIER = 3.0  # standard deviations from which evidence counts linearly
ALLOWED_OVERLAP_M = 0.001
OVERLAP_SIGMA_M = 0.0005
DEEPEST = 8  # pairs of bones that are kept apart in one step
NEAREST_DEPTH_M = 0.05
FALLBACK_DEPTH_M = 0.6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known of H hands of one person, from S sources; a precision of 0 is no evidence.

    Precisions are one over standard deviations.
    """

    sides: Int[Array, "*batch H"]
    """0 right, 1 left."""
    keypoints_px: Float[Array, "*batch S H 21 2"]
    """Joints of `HAND21` in the image."""
    keypoint_precision: Float[Array, "*batch S H 21"]
    joints_m: Float[Array, "*batch S H 21 3"]
    """Camera axes (x right, y down, z forward); the hand's place is free."""
    joint_precision: Float[Array, "*batch S H 21"]
    rel_trans_m: Float[Array, "*batch 3"]
    """Left wrist minus right wrist; used where there are both hands."""
    rel_trans_precision: Float[Array, "*batch 3"]
    angles: Float[Array, "*batch H 15 3"]
    """Prior of the finger joints' angles about their axes, radians."""
    angle_precision: Float[Array, "*batch H 15 3"]
    betas: Float[Array, "*batch 10"]
    betas_precision: Float[Array, "*batch 10"]
    focal_px: Float[Array, "*batch 2"]
    principal_point_px: Float[Array, "*batch 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FittedHands:
    """H hands of one person, in the camera's axes (x right, y down, z forward), metres."""

    betas: Float[Array, "*batch 10"]
    wrist: Float[Array, "*batch H 3 3"]
    """Rotation of the root."""
    angles: Float[Array, "*batch H 15 3"]
    """Of the finger joints about their axes, radians."""
    transl: Float[Array, "*batch H 3"]
    """As `mano_forward` takes it."""
    joints: Float[Array, "*batch H 21 3"]
    joint_sigma_m: Float[Array, "*batch H 21"]
    """Standard deviation of each joint's place relative to the wrist, by the fit's covariance."""
    place_sigma_m: Float[Array, "*batch H"]
    """Standard deviation of the wrist's place in the camera's axes."""
    cost: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]


@dataclasses.dataclass(frozen=True)
class _Unknowns:
    """The vector of a person's unknowns, cut into its parts."""

    betas: Array  # (10,)
    turn: Array  # (H, 3): axis-angle after the start's rotation of the root
    angles: Array  # (H, 15, 3)
    transl: Array  # (H, 3)

    @classmethod
    def of(cls, vector: Float[Array, " n"]) -> "_Unknowns":
        rest = vector[10:].reshape(-1, 51)
        turn, angles, place = jnp.split(rest, [3, 48], axis=-1)
        depth = jnp.exp(place[:, 2:])
        transl = jnp.concatenate([place[:, :2] * depth, depth], -1)
        return cls(vector[:10], turn, angles.reshape(-1, 15, 3), transl)

    @property
    def vector(self) -> Float[Array, " n"]:
        """The same joined: places as (x/z, y/z, log z), in which a picture is nearly linear."""
        depth = self.transl[:, 2:]
        place = jnp.concatenate([self.transl[:, :2] / depth, jnp.log(depth)], -1)
        own = jnp.concatenate([self.turn, self.angles.reshape(-1, 45), place], -1)
        return jnp.concatenate([self.betas, own.ravel()])


@partial(jax.jit, static_argnames="most_steps")
def fit_hands(
    model: JointModel,
    evidence: Evidence,
    start_wrist: Float[Array, "batch H 3 3"],
    start_angles: Float[Array, "batch H 15 3"],
    *,
    most_steps: int = 20,
) -> FittedHands:
    """Fits each person's hands to what is known of them.

    Args:
      model: of both hands, see `joint_model`.
      evidence: of each person, with one leading axis.
      start_wrist: rotation of the root to start from.
      start_angles: of the finger joints about their axes, radians.
      most_steps: of the solver.
    """
    of_person = partial(_fit_person, model, most_steps=most_steps)
    return jax.vmap(of_person)(evidence, start_wrist, start_angles)


def _fit_person(
    model: JointModel,
    evidence: Evidence,
    start_wrist: Float[Array, "H 3 3"],
    start_angles: Float[Array, "H 15 3"],
    *,
    most_steps: int,
) -> FittedHands:
    hands = model.hands(evidence.sides)
    transl = _first_place(hands, evidence, start_wrist, start_angles)
    start = _Unknowns(evidence.betas, jnp.zeros_like(transl), start_angles, transl).vector

    def terms(vector: Array) -> Terms:
        unknowns = _Unknowns.of(vector)
        joints = _joints(hands, start_wrist, unknowns)
        return _terms(hands, evidence, unknowns, joints)

    return _result(start_wrist, minimize(terms, start, most_steps=most_steps))


def _result(start_wrist: Array, found: Minimum) -> FittedHands:
    unknowns = _Unknowns.of(found.position)
    covariance = jnp.linalg.inv(found.normal + 1e-6 * jnp.eye(len(found.position)))

    def sigma(jacobian: Array) -> Array:
        spread = jnp.einsum("hjxn,nm->hjxm", jacobian, covariance, precision=HIGHEST)
        return jnp.sqrt(jnp.maximum(jnp.sum(spread * jacobian, (-1, -2)), 0.0))

    of_joints = found.output_jacobian
    return FittedHands(
        betas=unknowns.betas,
        wrist=_turned(start_wrist, unknowns.turn),
        angles=unknowns.angles,
        transl=unknowns.transl,
        joints=found.outputs,
        joint_sigma_m=sigma(of_joints - of_joints[:, :1]),
        place_sigma_m=sigma(of_joints[:, :1])[:, 0],
        cost=found.cost,
        steps=found.steps,
    )


def _turned(start_wrist: Float[Array, "H 3 3"], turn: Float[Array, "H 3"]) -> Array:
    return jnp.matmul(start_wrist, axis_angle_to_matrix(turn), precision=HIGHEST)


def _joints(hands: JointModel, start_wrist: Array, unknowns: _Unknowns) -> Float[Array, "H 21 3"]:
    axes = dataclasses.replace(
        jax.tree.map(lambda _: 0, hands), joint_of_pair=None, bone_of_pair=None
    )
    wrist = _turned(start_wrist, unknowns.turn)
    in_axes = (axes, None, 0, 0, 0)
    return jax.vmap(posed_joints, in_axes)(
        hands, unknowns.betas, wrist, unknowns.angles, unknowns.transl
    )


def _terms(
    hands: JointModel, evidence: Evidence, unknowns: _Unknowns, joints: Float[Array, "H 21 3"]
) -> Terms:
    """Every deviation of a person's hands from what is known, in standard deviations."""
    seen = (_of_keypoints(evidence, joints), _of_joints(evidence, joints))
    parts = [
        (unknowns.angles - evidence.angles) * evidence.angle_precision,
        _beyond_limits(unknowns.angles) / LIMIT_SIGMA,
        _of_coupling(unknowns.angles),
        (unknowns.betas - evidence.betas) * evidence.betas_precision,
    ]
    if len(joints) == 2:
        rel_trans = joints[1, 0] - joints[0, 0]
        parts.append((rel_trans - evidence.rel_trans_m) * evidence.rel_trans_precision)
        parts.append(_overlaps(hands, joints) / OVERLAP_SIGMA_M)
    plain = jnp.concatenate([part.ravel() for part in parts])
    weighted, losses = zip(*map(_robust, seen), strict=True)
    return Terms(
        residuals=jnp.concatenate([*(part.ravel() for part in weighted), plain]),
        cost=sum(losses) + jnp.sum(plain**2) / 2,
        outputs=joints,
    )


def _of_keypoints(evidence: Evidence, joints: Float[Array, "H 21 3"]) -> Float[Array, "S H 21 2"]:
    depth = jnp.maximum(joints[..., 2:], NEAREST_DEPTH_M)
    seen = joints[..., :2] / depth * evidence.focal_px + evidence.principal_point_px
    return (seen - evidence.keypoints_px) * evidence.keypoint_precision[..., None]


def _of_joints(evidence: Evidence, joints: Float[Array, "H 21 3"]) -> Float[Array, "S H 21 3"]:
    weights = evidence.joint_precision[..., None] ** 2
    total = jnp.maximum(weights.sum(-2, keepdims=True), 1e-12)
    difference = joints - evidence.joints_m
    difference -= (difference * weights).sum(-2, keepdims=True) / total
    return difference * evidence.joint_precision[..., None]


def _robust(residuals: Float[Array, "*n d"]) -> tuple[Float[Array, "*n d"], Float[Array, ""]]:
    """Weighted residuals and their loss, which grows linearly beyond `OUTLIER`.

    The loss is pseudo-Huber's, c² (√(1 + r²/c²) − 1). Its weights are constants to differentiation:
    the products of weighted residuals are then its gradient (iteratively reweighted least squares).
    """
    root = jnp.sqrt(1 + jnp.sum(residuals**2, -1, keepdims=True) / OUTLIER**2)
    return residuals * lax.stop_gradient(root**-0.5), OUTLIER**2 * jnp.sum(root - 1)


def _beyond_limits(angles: Float[Array, "H 15 3"]) -> Float[Array, "H 15 3"]:
    return jnp.maximum(angles - UPPER, 0) + jnp.minimum(angles - LOWER, 0)


def _of_coupling(angles: Float[Array, "H 15 3"]) -> Float[Array, "H 4"]:
    flexion = angles[..., 0].reshape(-1, 5, 3)[:, :4]  # without the thumb
    return (flexion[..., 2] - COUPLING * flexion[..., 1]) / COUPLING_SIGMA


def _overlaps(hands: JointModel, joints: Float[Array, "2 21 3"]) -> Float[Array, " pairs"]:
    """Metres by which the deepest pairs of bones of the two hands overlap more than they may."""
    points = with_stump(joints, hands.stump)
    starts, ends = points[:, CAPSULES[:, 0]], points[:, CAPSULES[:, 1]]
    distance = _bone_distances(starts[0][:, None], ends[0][:, None], starts[1], ends[1])
    reach = hands.radii[0][:, None] + hands.radii[1]
    overlap = (reach - distance - ALLOWED_OVERLAP_M).ravel()
    deepest, _ = lax.top_k(overlap, DEEPEST)
    return jnp.maximum(deepest, 0.0)


def _bone_distances(p: Array, p_end: Array, q: Array, q_end: Array) -> Array:
    """Distances of segments (Ericson, "Real-Time Collision Detection", 5.1.9), broadcast.

    The nearest points' places along the segments are constants to differentiation: at the nearest
    points the distance does not change with them, or they are at an end.
    """
    u, v, w = p_end - p, q_end - q, p - q
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    slant = jnp.maximum(uu * vv - uv * uv, 1e-12)
    s = jnp.clip((uv * vw - uw * vv) / slant, 0.0, 1.0)
    t = jnp.clip((uv * s + vw) / vv, 0.0, 1.0)
    s = jnp.clip((uv * t - uw) / uu, 0.0, 1.0)
    s, t = lax.stop_gradient((s, t))
    return jnp.sqrt(jnp.sum((w + s[..., None] * u - t[..., None] * v) ** 2, -1) + 1e-12)


def _first_place(
    hands: JointModel,
    evidence: Evidence,
    wrist: Float[Array, "H 3 3"],
    angles: Float[Array, "H 15 3"],
) -> Float[Array, "H 3"]:
    """Where hands of this pose lie best over their keypoints, each by itself."""
    still = jnp.zeros((*wrist.shape[:1], 3))
    joints = _joints(hands, wrist, _Unknowns(evidence.betas, still, angles, still))
    rays = (evidence.keypoints_px - evidence.principal_point_px) / evidence.focal_px  # S H 21 2
    weights = evidence.keypoint_precision**2
    weights = weights / jnp.maximum(weights.max(), 1e-12)
    of_sources = (jnp.broadcast_to(joints, (*rays.shape[:-1], 3)), rays, weights)
    points, rays, weights = (jnp.moveaxis(x, 0, 1) for x in of_sources)  # H S 21
    points, rays = (x.reshape(len(wrist), 1, -1, x.shape[-1]) for x in (points, rays))
    weights = weights.reshape(len(wrist), 1, -1)
    place = place_by_rays(points, rays, weights)[:, 0]
    # Behind the camera: the hand's keypoints are too few or too close to each other.
    total = jnp.maximum(weights.sum((1, 2)), 1e-12)[:, None]
    middle = (weights[..., None] * rays).sum((1, 2)) / total
    before = jnp.concatenate(
        [middle * FALLBACK_DEPTH_M, jnp.full_like(middle[:, :1], FALLBACK_DEPTH_M)], -1
    )
    return jnp.where(place[:, 2:] > 2 * NEAREST_DEPTH_M, place, before)


@jax.jit
def starts_over_keypoints(
    model: JointModel, evidence: Evidence, wrists: Float[Array, "K 3 3"]
) -> Int[Array, " K"]:
    """Orders rotations of the root by how far the hand in its mean pose lies from its keypoints.

    Args:
      model: of both hands.
      evidence: of one hand, without a batch axis.
      wrists: rotations to order.
    """
    hands = model.hands(evidence.sides)

    def cost(wrist: Array) -> Array:
        place = _first_place(hands, evidence, wrist[None], evidence.angles)
        still = jnp.zeros_like(place)
        unknowns = _Unknowns(evidence.betas, still, evidence.angles, place)
        joints = _joints(hands, wrist[None], unknowns)
        return _robust(_of_keypoints(evidence, joints))[1]

    return jnp.argsort(jax.vmap(cost)(wrists))
