"""The training loss: the paper's eight L1 terms on two hands, and two terms of this project."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from er_jax.models import Prediction
from er_jax.models.place import NEAREST_DEPTH_M, place_hands
from er_jax.supervision.targets import Targets

LOSS_WEIGHTS: Mapping[str, float] = {
    "rel_trans": 1.0,
    "mano_pose": 1.0,
    "mano_shape": 1.0,
    "joint_cam": 10.0,
    "mano_joint_cam": 10.0,
    "joint_img": 1.0,
    "mano_joint_img": 1.0,
    "joint_proj": 1.0,
    "presence": 0.3,  # this project's own, of `model.use_presence`
    "depth": 0.0,  # this project's own: of the place that follows from the other outputs
}

FAR_OFF = 0.5


def losses(
    prediction: Prediction, targets: Targets, weights: Mapping[str, float] = LOSS_WEIGHTS
) -> dict[str, Float[Array, ""]]:
    """Every loss term times its weight; the training loss is their sum.

    `presence` is the cross-entropy of whether each hand is there, `depth` the L1 of the logarithm
    of the wrists' depth as `place_hands` finds it, at most `FAR_OFF`: before the joints are about
    right, their depth means nothing, and its gradient is none.

    A term is the mean over all its elements, those without an annotation counting as zero, so that
    a batch with fewer annotations pulls less, not harder. What is said of a hand counts with the
    confidence of its labels, what is said of two with the lesser one.

    Raises:
      KeyError: if a weight names no term, or a term has no weight.
    """
    mesh, pose = targets.mano_hand_valid[..., None, None], targets.mano_pose_valid[..., None]
    in_image, in_volume = targets.joint_xy_trunc[..., None], targets.joint_trunc[..., None]
    seen = jnp.concatenate([in_image, in_image, in_volume], axis=-1)
    both_sure = jnp.min(targets.confidence, axis=-1)

    def of_hands(predicted: Array, target: Array, mask: Array) -> Array:
        confidence = targets.confidence.reshape(*mask.shape[:2], *[1] * (mask.ndim - 2))
        return _l1(predicted, target, mask, confidence)

    terms = {
        "rel_trans": _l1(
            prediction.rel_trans,
            targets.rel_trans,
            targets.rel_trans_valid[:, None],
            both_sure[:, None],
        ),
        "mano_pose": of_hands(prediction.pose, targets.mano_pose, pose),
        "mano_shape": of_hands(prediction.betas, targets.mano_shape, pose),
        "joint_cam": of_hands(prediction.joints, targets.joint_cam, targets.joint_valid[..., None]),
        "mano_joint_cam": of_hands(prediction.joints, targets.mano_joint_cam, mesh),
        "joint_img": of_hands(prediction.joint_img, targets.joint_img, seen),
        "mano_joint_img": of_hands(
            prediction.joint_img, targets.mano_joint_img, targets.mano_joint_trunc[..., None]
        ),
        "joint_proj": of_hands(
            prediction.joint_proj, targets.joint_img[..., :2], targets.joint_xy_valid[..., None]
        ),
        "presence": _presence(prediction, targets),
        "depth": _depth(prediction, targets),
    }
    if terms.keys() != weights.keys():
        raise KeyError(
            f"loss weights {sorted(weights)} must name exactly the terms {sorted(terms)}"
        )
    return {name: weights[name] * term for name, term in terms.items()}


def _presence(prediction: Prediction, targets: Targets) -> Float[Array, ""]:
    """Binary cross-entropy by logits; zero of a network that does not say it."""
    if prediction.presence_logit is None:
        return jnp.zeros(())
    there = targets.hand_present.astype(jnp.float32)
    entropy = optax.sigmoid_binary_cross_entropy(prediction.presence_logit, there)
    return jnp.mean(jnp.where(targets.hand_present_valid[:, None], entropy, 0.0))


def _depth(prediction: Prediction, targets: Targets) -> Float[Array, ""]:
    known = targets.wrist_cam_valid & (targets.wrist_cam[..., 2] > NEAREST_DEPTH_M)
    # Only the heatmaps follow: the meshes lost 5 mm where they bent to a depth.
    joints, rel_trans = jax.lax.stop_gradient((prediction.joints, prediction.rel_trans))
    wrists = place_hands(joints, rel_trans, prediction.joint_img, targets.cells_to_rays, known)
    found, true = (
        jnp.log(jnp.where(known, jnp.maximum(x[..., 2], NEAREST_DEPTH_M), 1.0))
        for x in (wrists, targets.wrist_cam)
    )
    return jnp.mean(jnp.where(known, jnp.minimum(jnp.abs(found - true), FAR_OFF), 0.0))


def _l1(predicted: Array, target: Array, mask: Array, weight: Array) -> Float[Array, ""]:
    """Mean of weight·|predicted − target| over all elements, zero where the mask is not set."""
    return jnp.mean(jnp.where(mask, weight * jnp.abs(predicted - target), 0.0))
