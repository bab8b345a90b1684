"""Evaluation of a network, or of the mean hands, on a split of a dataset."""

from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from er_jax import parallel
from er_jax.mano import HandModel
from er_jax.metric_summary import across_hosts, collect, headline
from er_jax.metrics import Reconstruction, SampleErrors, sample_errors
from er_jax.models import ERConfig, Prediction
from er_jax.progress import progress_bar
from er_jax.samples_sheet import Drawn, SamplesSheet
from er_jax.targets import Batch, Targets, make_target_function
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
EvaluationStep = Callable[[TrainState, HandModel, Batch], tuple[SampleErrors, Drawn]]


def make_prediction_function(config: ConfigDict) -> PredictionFunction:
    """The trained network as a pure function of (state, hands, image uint8 (B,S,S,3))."""
    structure = network_structure(ERConfig.from_dict(config.model), training=False)

    def predict(state: TrainState, hands: HandModel, image: Array) -> Prediction:
        net = nnx.merge(structure, state.params, state.batch_stats)
        return net(image.astype(jnp.float32) / 255, hands)

    return predict


def make_evaluation_step(config: ConfigDict, *, f_scores: bool) -> EvaluationStep:
    """From (state, hands, batch), each with a device axis, to every sample's errors and picture."""
    predict, targets = make_prediction_function(config), make_target_function(config)

    def evaluation_step(state: TrainState, hands: HandModel, batch: Batch):
        prediction, truth = predict(state, hands, batch["image"]), targets(hands, batch)
        return _errors(prediction, truth, batch, f_scores), Drawn.of(prediction, truth)

    return parallel.data_parallel(evaluation_step)


def _errors(
    prediction: Reconstruction, truth: Targets, batch: Batch, f_scores: bool
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
    state: TrainState,
    hands: HandModel,
    batches: Batches,
    *,
    title: str,
    sheet: SamplesSheet | None = None,
) -> SampleErrors:
    """The errors of every sample of one pass over a split, of all hosts on every host.

    Args:
      step: from `make_evaluation_step`.
      state: replicated; only its parameters and batch statistics are used.
      hands: replicated.
      batches: the split's batches, the last one padded.
      title: of the progress bar.
      sheet: to draw samples on.
    """

    def all_errors():
        with progress_bar(title, len(batches), "batches") as bar:
            for batch in batches:
                errors, drawn = step(state, hands, parallel.shard(batch))
                yield parallel.gather(errors)
                if sheet is not None and not sheet.full:
                    sheet.add(batch, parallel.gather(drawn))
                bar.advance()

    return across_hosts(collect(all_errors()))


def print_table(title: str, summaries: dict[str, dict[str, Any]]) -> None:
    """The headline numbers of some summaries, one column each, on the terminal."""
    table = Table("metric [mm]", *summaries, title=title)
    rows = {name: headline(summary, HEADLINE) for name, summary in summaries.items()}
    for metric in HEADLINE:
        values = [row[metric] for row in rows.values()]
        table.add_row(metric, *("–" if value is None else f"{value:.2f}" for value in values))
    Console().print(table)
