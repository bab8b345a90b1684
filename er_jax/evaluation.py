"""Evaluation of a network, or of the mean hands, on a split of a dataset."""

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from er_jax import parallel
from er_jax.baseline import MeanHands, constant_prediction, mean_hands
from er_jax.mano import HandModel
from er_jax.metric_summary import across_hosts, collect, headline
from er_jax.metrics import Reconstruction, SampleErrors, sample_errors
from er_jax.models import ERConfig, Prediction
from er_jax.progress import progress_bar
from er_jax.targets import Batch, make_target_function
from er_jax.training.state import TrainState, network_structure

# What goes into the log of a run and the table on the terminal; all in mm.
HEADLINE = (
    "scale_aligned/MPJPE/all",
    "scale_aligned/MPVPE/all",
    "wrist_aligned/MPJPE/all",
    "wrist_aligned/MPVPE/all",
    "wrist_aligned/MRRPE/all",
    "procrustes/PA-MPJPE/all",
    "procrustes/PA-MPVPE/all",
)


class Batches(Sized, Iterable[Batch], Protocol):
    """One pass over a split, of known length."""


PredictionFunction = Callable[[TrainState, HandModel, Array], Prediction]
EvaluationStep = Callable[[TrainState, HandModel, Batch], SampleErrors]


def make_prediction_function(config: ConfigDict) -> PredictionFunction:
    """The trained network as a pure function of (state, hands, image uint8 (B,S,S,3))."""
    structure = network_structure(ERConfig.from_dict(config.model), training=False)

    def predict(state: TrainState, hands: HandModel, image: Array) -> Prediction:
        net = nnx.merge(structure, state.params, state.batch_stats)
        return net(image.astype(jnp.float32) / 255, hands)

    return predict


def make_evaluation_step(config: ConfigDict, *, f_scores: bool) -> EvaluationStep:
    """From (state, hands, batch), each with a device axis, to the errors of every sample."""
    predict, errors = make_prediction_function(config), _make_error_function(config, f_scores)

    def evaluation_step(state: TrainState, hands: HandModel, batch: Batch) -> SampleErrors:
        return errors(predict(state, hands, batch["image"]), hands, batch)

    return parallel.data_parallel(evaluation_step)


def _make_error_function(
    config: ConfigDict, f_scores: bool
) -> Callable[[Reconstruction, HandModel, Batch], SampleErrors]:
    """The errors of a reconstruction of a batch, whoever made it."""
    targets = make_target_function(config)

    def errors(prediction: Reconstruction, hands: HandModel, batch: Batch) -> SampleErrors:
        return sample_errors(
            prediction,
            targets(hands, batch),
            sample_id=batch["annotation_id"],
            hand_type=batch["hand_type"],
            sample_mask=batch["sample_mask"],
            f_scores=f_scores,
        )

    return errors


def evaluate(
    step: EvaluationStep,
    state: TrainState,
    hands: HandModel,
    batches: Batches,
    *,
    title: str,
) -> SampleErrors:
    """The errors of every sample of one pass over a split, of all hosts on every host.

    Args:
      step: from `make_evaluation_step`.
      state: replicated; only its parameters and batch statistics are used.
      hands: replicated.
      batches: the split's batches, the last one padded.
      title: of the progress bar.
    """

    def errors():
        with progress_bar(title, len(batches), "batches") as bar:
            for batch in batches:
                yield parallel.gather(step(state, hands, parallel.shard(batch)))
                bar.advance()

    return across_hosts(collect(errors()))


def mean_hands_of(config: ConfigDict, hands: HandModel, batches: Batches) -> MeanHands:
    """The mean pose and shape of a training split: the prediction that every network must beat."""
    targets = jax.jit(make_target_function(config))

    def annotated():
        with progress_bar("Mean pose of the training set", len(batches), "batches") as bar:
            for batch in batches:
                yield targets(hands, batch), batch["sample_mask"]
                bar.advance()

    return mean_hands(hands, annotated())


def evaluate_constants(
    config: ConfigDict,
    constants: Mapping[str, MeanHands],
    hands: HandModel,
    batches: Iterable[Batch],
) -> dict[str, SampleErrors]:
    """The errors of predicting the same hands for every sample, by the same code as a network's.

    Args:
      config: of the run that they are compared with.
      constants: the hands to predict, by name.
      hands: both hand models, not replicated.
      batches: one pass over the split for each of the constants; no pictures needed.
    """
    errors = _make_error_function(config, f_scores=True)

    @jax.jit
    def constant_errors(constant: MeanHands, batch: Batch) -> SampleErrors:
        prediction = constant_prediction(hands, constant, len(batch["sample_mask"]))
        return errors(prediction, hands, batch)

    return {
        name: collect(constant_errors(constant, batch) for batch in batches)
        for name, constant in constants.items()
    }


def print_table(title: str, summaries: dict[str, dict[str, Any]]) -> None:
    """The headline numbers of some summaries, one column each, on the terminal."""
    table = Table("metric [mm]", *summaries, title=title)
    rows = {name: headline(summary, HEADLINE) for name, summary in summaries.items()}
    for metric in HEADLINE:
        values = [row[metric] for row in rows.values()]
        table.add_row(metric, *("–" if value is None else f"{value:.2f}" for value in values))
    Console().print(table)
