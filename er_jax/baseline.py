"""The baseline of every report: the training set's mean hands, predicted for every image."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from er_jax.mano import HANDS, HandMesh, HandModel, axis_angle_to_matrix, hand_forward
from er_jax.metrics import ReconstructedMeshes
from er_jax.targets import Targets


class NoFitsError(ValueError):
    """There are no MANO fits to take a mean of."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanHands:
    """Means over the hands of a training set, each hand by itself."""

    rotations: Float[np.ndarray, "2 16 3 3"]
    """Chordal means of the full pose, global orientation first."""
    betas: Float[np.ndarray, "2 10"]
    rel_trans: Float[np.ndarray, "3"]
    """Left wrist minus right wrist, metres; zero where no sample has both."""


def mean_hands(hands: HandModel, batches: Iterable[tuple[Targets, Bool[Array, "B"]]]) -> MeanHands:
    """Mean pose, shape and relative translation of a stream of training targets.

    The chordal mean of rotations is the rotation nearest to their arithmetic mean (Hartley et al.
    2013, "Rotation averaging"). Sums are float64 on the host.

    Args:
        hands: both hands, whose mean pose the targets' poses leave out.
        batches: targets and the mask of the samples that are no padding.

    Raises:
        NoFitsError: no sample of the stream has a MANO fit of one of the hands.
    """
    sums = None
    for targets, sample_mask in batches:
        part = jax.device_get(_sums(hands, targets, sample_mask))
        part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
    if sums is None or not sums["hands"].all():
        counts = None if sums is None else dict(zip(HANDS, sums["hands"].tolist(), strict=True))
        raise NoFitsError(
            f"the mean hand needs MANO fits of both hands in the training data, found {counts}"
        )
    u, _, v = np.linalg.svd(sums["rotations"])
    u[..., -1] *= np.sign(np.linalg.det(u @ v))[..., None]
    return MeanHands(
        rotations=u @ v,
        betas=sums["betas"] / sums["hands"][:, None],
        rel_trans=sums["rel_trans"] / max(sums["pairs"], 1),
    )


@jax.jit
def _sums(
    hands: HandModel, targets: Targets, sample_mask: Bool[Array, "B"]
) -> dict[str, Float[Array, "..."]]:
    full_pose = targets.mano_pose.at[..., 3:].add(hands.mean_pose)
    rotations = axis_angle_to_matrix(full_pose.reshape(*full_pose.shape[:2], 16, 3))
    valid = targets.mano_pose_valid & sample_mask[:, None]
    pairs = targets.rel_trans_valid & sample_mask
    return {
        "rotations": jnp.where(valid[..., None, None, None], rotations, 0).sum(0),
        "betas": jnp.where(valid[..., None], targets.mano_shape, 0).sum(0),
        "hands": valid.sum(0),
        "rel_trans": jnp.where(pairs[:, None], targets.rel_trans, 0).sum(0),
        "pairs": pairs.sum(),
    }


def rest_hands(hands: HandModel) -> MeanHands:
    """The hand model's own mean pose and shape, unturned, both wrists in one place."""
    fingers = jax.jit(axis_angle_to_matrix)(hands.mean_pose.reshape(len(HANDS), 15, 3))
    root = jnp.broadcast_to(jnp.eye(3), (len(HANDS), 1, 3, 3))
    return MeanHands(
        rotations=np.asarray(jnp.concatenate([root, fingers], axis=1)),
        betas=np.zeros((len(HANDS), 10)),
        rel_trans=np.zeros(3),
    )


def constant_prediction(hands: HandModel, mean: MeanHands, batch_size: int) -> ReconstructedMeshes:
    """The mean hands as the prediction of each sample of a batch."""
    mesh = _posed(hands, mean)
    wrist = mesh.joints[:, :1]
    return ReconstructedMeshes(
        vertices=_repeat(mesh.vertices - wrist, batch_size),
        joints=_repeat(mesh.joints - wrist, batch_size),
        rel_trans=_repeat(jnp.asarray(mean.rel_trans), batch_size),
    )


@jax.jit
def _posed(hands: HandModel, mean: MeanHands) -> HandMesh:
    return hand_forward(hands, jnp.asarray(mean.betas), jnp.asarray(mean.rotations))


def _repeat(value: Array, batch_size: int) -> Array:
    return jnp.broadcast_to(value, (batch_size, *value.shape))
