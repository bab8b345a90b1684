"""Predictors evaluated on the annotations of a split: predictions files and baselines."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.annotated_split import AnnotatedSplit, Sample
from er_jax.evaluation.evaluate import Constants, batch_errors, collect_by_name
from er_jax.evaluation.prediction_checks import check_numbers, check_plausible
from er_jax.evaluation.predictions_file import Predictions
from er_jax.evaluation.results import Evaluated, evaluated
from er_jax.evaluation.summary import ERRORS_MM, collect, headline, summarize
from er_jax.evaluation.types import ReconstructedMeshes, SampleErrors
from er_jax.mano import HandModel, hand_model_identity
from er_jax.supervision.targets import Batch, Targets, compiled_targets, hands_of_type
from er_jax.utils.progress import progress_bar
from er_jax.utils.provenance import software_versions

logger = logging.getLogger(__name__)

CHECKED_SAMPLES = 512


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Something that reconstructs the samples of a batch of annotations."""

    name: str
    reconstruct: Callable[[Sample], ReconstructedMeshes]
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_rel_trans: bool = True


def evaluate_predictors(
    predictors: Sequence[Predictor], split: AnnotatedSplit, hands: HandModel
) -> list[Evaluated]:
    """The errors of some predictors on every sample of a split, in one pass."""
    title = "Evaluating " + ", ".join(predictor.name for predictor in predictors)

    def all_errors() -> Iterator[dict[str, SampleErrors]]:
        with progress_bar(title, len(split), "batches") as bar:
            for batch in split:
                targets = compiled_targets(hands, batch)
                yield {
                    one.name: _errors(one.reconstruct(batch), targets, batch, one.has_rel_trans)
                    for one in predictors
                }
                bar.advance()

    errors = collect_by_name(all_errors())
    common = {**split.provenance, "input_size_px": split.input_size}
    common |= hand_model_identity(hands) | software_versions()
    return [
        evaluated(one.name, errors[one.name], split.labels, {**one.metadata, **common})
        for one in predictors
    ]


def file_predictor(
    predictions: Predictions, split: AnnotatedSplit, hands: HandModel, *, trust: bool = False
) -> Predictor:
    """A predictions file as a predictor.

    Args:
      predictions: of all of the split's samples; others are left aside.
      split: that it is to be evaluated on.
      hands: both hands.
      trust: leaves out the checks of `er_jax.evaluation.prediction_checks.check_plausible`.

    Raises:
      PredictionsError: samples are missing, not finite, or cannot be meant as they are.
    """
    found = len(predictions.rows_of(split.sample_ids))
    if found < len(predictions.sample_id):
        extra = len(predictions.sample_id) - found
        logger.warning("%s: %d predictions are of no sample here", predictions.path, extra)
    if not trust:
        ids, present, truth = _some_truth(split, hands)
        rows = predictions.rows_of(ids)
        check_numbers(predictions, rows, present)
        check_plausible(predictions, hands, rows, truth)

    def reconstruct(batch: Sample) -> ReconstructedMeshes:
        rows = predictions.rows_of(batch["annotation_id"])
        check_numbers(predictions, rows, np.asarray(hands_of_type(batch["hand_type"])))
        return predictions.reconstruct(hands, rows)

    metadata = {"source": predictions.path.name, **predictions.metadata}
    if not predictions.has_meshes:
        metadata["joints"] = "the method's own under every protocol; it has no mesh"
    return Predictor(predictions.name, reconstruct, metadata, predictions.has_rel_trans)


def constant_predictors(constants: Constants) -> list[Predictor]:
    """Baselines as predictors."""
    return [Predictor(name, functools.partial(_repeated, mesh)) for name, mesh in constants.items()]


def _repeated(mesh: ReconstructedMeshes, batch: Sample) -> ReconstructedMeshes:
    count = len(batch["hand_type"])
    return jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape[1:])), mesh)


def measurable(split: AnnotatedSplit, hands: HandModel) -> list[str]:
    """Returns those of `ERRORS_MM` that a split's annotations allow, by samples from all over it.

    The truth itself is evaluated as a prediction: errors that no sample has an annotation for have
    no value.

    Raises:
      DataError: there is no such split.
    """

    def truth_as_prediction(batch: Sample) -> SampleErrors:
        truth = compiled_targets(hands, batch)
        mesh = ReconstructedMeshes(
            truth.mano_mesh_cam, truth.mano_joint_cam, truth.rel_trans, truth.wrist_cam
        )
        return _errors(mesh, truth, batch, True)

    errors = collect(map(truth_as_prediction, split.spread(CHECKED_SAMPLES)))
    values = headline(summarize(errors), ERRORS_MM)
    return [metric for metric, value in values.items() if value is not None]


def _some_truth(split: AnnotatedSplit, hands: HandModel) -> tuple[np.ndarray, np.ndarray, Targets]:
    """Ids, which hands are there, and targets of the first samples of a split, without padding."""
    batches = list(itertools.islice(split, -(-CHECKED_SAMPLES // split.batch_size)))
    parts = [jax.device_get(compiled_targets(hands, batch)) for batch in batches]
    real = np.concatenate([batch["sample_mask"] for batch in batches])
    ids = np.concatenate([batch["annotation_id"] for batch in batches])
    present = hands_of_type(jnp.concatenate([batch["hand_type"] for batch in batches]))
    return (
        ids[real],
        np.asarray(present)[real],
        jax.tree.map(lambda *arrays: np.concatenate(arrays)[real], *parts),
    )


@jax.jit
def _errors(
    prediction: ReconstructedMeshes, targets: Targets, batch: Batch, has_rel_trans: bool
) -> SampleErrors:
    known = targets.rel_trans_valid & has_rel_trans
    return batch_errors(prediction, dataclasses.replace(targets, rel_trans_valid=known), batch)
