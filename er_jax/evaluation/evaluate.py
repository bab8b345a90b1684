"""One walk over a split: the errors of every sample, of all that is evaluated on it."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from er_jax.evaluation.metrics import sample_errors
from er_jax.evaluation.sample_grid import SampleGrid
from er_jax.evaluation.summary import across_hosts, collect, headline, unit_of
from er_jax.evaluation.types import PRESENT, ReconstructedMeshes, SampleErrors
from er_jax.mano import HandModel
from er_jax.models import ERConfig, Prediction
from er_jax.models.functional import NetworkWeights, network_structure
from er_jax.models.place import place_hands
from er_jax.supervision.targets import Batch, Targets, TargetSizes, make_targets
from er_jax.utils import distributed
from er_jax.utils.progress import progress_bar

# What goes into the log of a run and the table on the terminal.
HEADLINE = (
    "scale_aligned/MPJPE/all",
    "scale_aligned/MPVPE/all",
    "wrist_aligned/MPJPE/all",
    "wrist_aligned/MPVPE/all",
    "wrist_aligned/MRRPE/all",
    "procrustes/PA-MPJPE/all",
    "procrustes/PA-MPVPE/all",
    "camera_space/MRPE/all",
    "handedness/accuracy/all",
)
NETWORK = "network"

Constants = Mapping[str, ReconstructedMeshes]
"""Baselines by name: one reconstruction for every sample, with a batch axis of 1."""


Item = TypeVar("Item")


class Batches(Sized, Iterable[Batch], Protocol):
    """One pass over a split, of known length."""


class Evaluation(NamedTuple):
    """A device's results for its part of a batch."""

    errors: dict[str, SampleErrors]  # of the network and of each constant
    prediction: Prediction
    truth: Targets
    parameters: dict[str, Array]  # what of the prediction goes into a predictions file


class Walk(NamedTuple):
    """The results of a walk over a split, of all hosts, in the split's order."""

    errors: dict[str, SampleErrors]
    parameters: dict[str, np.ndarray] | None  # where they were asked for


PredictionFunction = Callable[[NetworkWeights, HandModel, Array], Prediction]
EvaluationStep = Callable[[NetworkWeights, HandModel, Constants, Batch], Evaluation]


def make_prediction_function(net_config: ERConfig) -> PredictionFunction:
    """The network as a pure function of (weights, hands, image uint8 (B, S, S, 3))."""
    structure = network_structure(net_config, training=False)

    def predict(weights: NetworkWeights, hands: HandModel, image: Array) -> Prediction:
        net = nnx.merge(structure, weights.params, weights.batch_stats)
        return net(image.astype(jnp.float32) / 255, hands)

    return predict


def make_evaluation_step(
    net_config: ERConfig, depth_box_m: float, *, f_scores: bool, depth_scale: float = 1.0
) -> EvaluationStep:
    """The step (weights, hands, constants, batch) → `Evaluation`, each with a device axis."""
    predict = make_prediction_function(net_config)
    sizes = TargetSizes.of(net_config, depth_box_m)

    def evaluation_step(
        weights: NetworkWeights, hands: HandModel, constants: Constants, batch: Batch
    ) -> Evaluation:
        prediction = predict(weights, hands, batch["image"])
        truth = make_targets(hands, batch, sizes)
        count = len(batch["image"])
        network = reconstruction_of(prediction, truth.cells_to_rays, depth_scale)
        reconstructions = {NETWORK: network}
        for name, one in constants.items():
            reconstructions[name] = jax.tree.map(
                lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), one
            )
        errors = {n: batch_errors(r, truth, batch, f_scores) for n, r in reconstructions.items()}
        parameters = {
            name: array
            for name, array in (
                ("betas", prediction.betas),
                ("pose", prediction.pose),
                ("rel_trans", prediction.rel_trans),
                ("wrists", network.wrists),
                ("presence", network.presence),
            )
            if array is not None
        }
        return Evaluation(errors, prediction, truth, parameters)

    return distributed.data_parallel(evaluation_step)


def reconstruction_of(
    prediction: Prediction, cells_to_rays: Float[Array, "B 2 3"], depth_scale: float = 1.0
) -> ReconstructedMeshes:
    """A network's prediction as what the metrics compare, its hands placed before the camera.

    Args:
      prediction: of the network.
      cells_to_rays: of each sample's crop and camera; see `er_jax.models.place`.
      depth_scale: see `place_hands`.
    """
    presence = None
    present = jnp.ones(prediction.joints.shape[:2], bool)  # unless the network says which
    if prediction.presence_logit is not None:
        presence = jax.nn.sigmoid(prediction.presence_logit)
        present = presence > PRESENT
    return ReconstructedMeshes(
        prediction.vertices,
        prediction.joints,
        prediction.rel_trans,
        wrists=place_hands(
            prediction.joints,
            prediction.rel_trans,
            prediction.joint_img,
            cells_to_rays,
            present,
            depth_scale=depth_scale,
        ),
        presence=presence,
        joint_spread=prediction.joint_spread,
    )


def batch_errors(
    prediction: ReconstructedMeshes, truth: Targets, batch: Batch, f_scores: bool = True
) -> SampleErrors:
    """The errors of a reconstruction of a batch, whoever made it."""
    return sample_errors(
        prediction,
        truth,
        sample_id=batch["annotation_id"],
        hand_type=batch["hand_type"],
        sample_mask=batch["sample_mask"],
        f_scores=f_scores,
    )


def evaluate(
    step: EvaluationStep,
    weights: NetworkWeights,
    hands: HandModel,
    batches: Batches,
    *,
    title: str,
    constants: Constants | None = None,
    grid: SampleGrid | None = None,
    keep_parameters: bool = False,
) -> Walk:
    """Walks once over a split.

    Args:
      step: from `make_evaluation_step`.
      weights: replicated.
      hands: replicated.
      batches: the split's batches, the last one padded.
      title: of the progress bar.
      constants: baselines evaluated beside the network, not replicated.
      grid: to draw samples on.
      keep_parameters: also returns what the network predicts of each sample.
    """
    beside = distributed.replicate(dict(constants or {}))
    parameters: list[dict[str, np.ndarray]] = []

    def enqueued() -> Iterator[tuple[Batch, Evaluation]]:
        for batch in batches:
            yield batch, step(weights, hands, beside, distributed.shard(batch))

    def all_errors() -> Iterator[dict[str, SampleErrors]]:
        with progress_bar(title, len(batches), "batches") as bar:
            for batch, found in _one_behind(enqueued()):
                yield distributed.gather(found.errors)
                if grid is not None and not grid.full:
                    grid.add(batch, *distributed.gather((found.prediction, found.truth)))
                if keep_parameters:
                    real = batch["sample_mask"]
                    own = distributed.gather(found.parameters)
                    own |= {"sample_id": batch["annotation_id"]}
                    parameters.append({name: x[real] for name, x in own.items()})
                bar.advance()

    errors = across_hosts(collect_by_name(all_errors()))
    if not keep_parameters:
        return Walk(errors, None)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *parameters)
    return Walk(errors, across_hosts(joined))


def _one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Gives each item once the next one is there.

    So the next step is enqueued, and its batch loaded, while the devices compute this one's.
    """
    with_end: Iterator[Any] = itertools.chain(items, [None])
    return (item for item, _ in itertools.pairwise(with_end))


def collect_by_name(batches: Iterable[Mapping[str, SampleErrors]]) -> dict[str, SampleErrors]:
    """Tables of numpy arrays from the errors of batches; see `collect`."""
    tables: dict[str, list[SampleErrors]] = {}
    for batch in batches:
        for name, errors in jax.device_get(dict(batch)).items():
            tables.setdefault(name, []).append(errors)
    return {name: collect(table) for name, table in tables.items()}


def print_table(title: str, summaries: Mapping[str, dict[str, Any]]) -> None:
    """The headline numbers of some summaries, one column each, on the terminal."""
    table = Table("metric", *summaries, title=title)
    rows = {name: headline(summary, HEADLINE) for name, summary in summaries.items()}
    for metric in HEADLINE:
        values = [row[metric] for row in rows.values()]
        unit = unit_of(metric.split("/")[1])
        name = f"{metric} [{unit}]" if unit else metric
        table.add_row(escape(name), *("–" if value is None else f"{value:.2f}" for value in values))
    Console().print(table)
