"""The baselines of every report: the rest pose and the training set's mean hands."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HANDS, HandMesh, HandModel, axis_angle_to_matrix, mano_forward
from er_jax.supervision.targets import Targets, compiled_targets
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import DataError
from er_jax.utils.progress import Bar, progress_bar

logger = logging.getLogger(__name__)

MEAN_HANDS, REST_POSE = "mean pose and shape", "rest pose"  # as tables name these baselines


class NoFitsError(DataError):
    """Training data have no MANO fit of a hand to take the mean of."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanHands:
    """Means over the hands of a training set, each hand by itself."""

    rotations: Float[np.ndarray, "2 16 3 3"]
    """Chordal means of the full pose, global orientation first."""
    betas: Float[np.ndarray, "2 10"]
    rel_trans: Float[np.ndarray, "3"]
    """Left wrist minus right wrist, metres; zero where no sample has both."""


def baselines(train: AnnotatedSplit, hands: HandModel) -> dict[str, ReconstructedMeshes]:
    """Two constants by name, each with a batch axis of 1: the rest pose and the mean hands.

    Without training data, or without fits among them, there is no mean; the log says so.
    """
    constants = {REST_POSE: rest_hands(hands)}
    try:
        constants[MEAN_HANDS] = mean_hands_of(train, hands)
    except DataError as error:
        logger.warning("No baseline of the training set's mean hands: %s", error)
    return {name: constant_prediction(hands, mean) for name, mean in constants.items()}


def mean_hands_of(train: AnnotatedSplit, hands: HandModel) -> MeanHands:
    """The mean hands of a training set, computed once for each hand model and kept beside it.

    Raises:
      DataError: there is no such split, or it has no fit.
    """
    file = train.folder / f"mean_hands-{train.split}-{hands.sha256[:16]}.npz"
    if file.exists():
        with np.load(file) as content:
            return MeanHands(**content)
    with progress_bar("Mean pose of the training set", len(train), "batches") as bar:
        mean = mean_hands(hands, _targets_of(train, hands, bar))
    try:
        own = file.with_name(f"{file.name}.{os.getpid()}.unfinished")  # processes do this at once
        with atomic_write(file, temporary=own) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **vars(mean))
    except OSError as error:  # a dataset that may only be read
        logger.info("The mean hands are not kept in %s: %s", file, error)
    return mean


def _targets_of(
    train: AnnotatedSplit, hands: HandModel, bar: Bar
) -> Iterator[tuple[Targets, Bool[Array, "B"]]]:
    for batch in train:
        yield compiled_targets(hands, batch), batch["sample_mask"]
        bar.advance()


def mean_hands(hands: HandModel, batches: Iterable[tuple[Targets, Bool[Array, "B"]]]) -> MeanHands:
    """Mean pose, shape and relative translation of a stream of training targets.

    The chordal mean of rotations is the rotation nearest to their arithmetic mean (Hartley et al.
    2013, "Rotation averaging"). Sums are float64 on the host.

    Args:
      hands: both hands, whose mean pose the targets' poses leave out.
      batches: targets and the mask of the samples that are no padding.

    A hand that no sample has a fit of stays at rest.

    Raises:
      NoFitsError: no sample of the stream has the MANO parameters of a hand.
    """
    sums = None
    for targets, sample_mask in batches:
        part = jax.device_get(_sums(hands, targets, sample_mask))
        part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
    if sums is None or not sums["hands"].any():
        raise NoFitsError("the training data have no MANO parameters to take the mean of")
    found = sums["hands"] > 0
    u, _, v = np.linalg.svd(sums["rotations"])
    u[..., -1] *= np.sign(np.linalg.det(u @ v))[..., None]
    rest = rest_hands(hands)
    return MeanHands(
        rotations=np.where(found[:, None, None, None], u @ v, rest.rotations),
        betas=sums["betas"] / np.maximum(sums["hands"], 1)[:, None],
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


def constant_prediction(hands: HandModel, mean: MeanHands) -> ReconstructedMeshes:
    """The mean hands as a prediction, with a batch axis of 1."""
    mesh = _posed(hands, mean)
    wrist = mesh.joints[:, :1]
    return ReconstructedMeshes(
        vertices=(mesh.vertices - wrist)[None],
        joints=(mesh.joints - wrist)[None],
        rel_trans=jnp.asarray(mean.rel_trans)[None],
    )


@jax.jit
def _posed(hands: HandModel, mean: MeanHands) -> HandMesh:
    return mano_forward(hands, jnp.asarray(mean.betas), jnp.asarray(mean.rotations))
