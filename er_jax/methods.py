"""Methods evaluated on the annotations of a split: predictions files and constant baselines."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from data_pipeline.errors import DataError
from er_jax.annotations import INPUT_SIZE_PX, AnnotatedSplit, Sample
from er_jax.baseline import MeanHands, NoFitsError, constant_prediction, mean_hands, rest_hands
from er_jax.mano import HandModel
from er_jax.metric_summary import collect
from er_jax.metrics import sample_errors
from er_jax.prediction_checks import check_finite, check_plausible
from er_jax.predictions_file import Predictions
from er_jax.progress import Bar, progress_bar
from er_jax.report.evaluated import Evaluated, evaluated
from er_jax.report.provenance import hand_model_facts, software_facts
from er_jax.sample_errors import INTERACTING, ReconstructedMeshes, SampleErrors
from er_jax.targets import Batch, Targets, make_targets

CHECKED_SAMPLES = 512
MEAN_HANDS = "mean pose and shape"  # as tables name that baseline


@dataclasses.dataclass(frozen=True)
class Method:
    """Something that reconstructs the samples of a batch of annotations."""

    name: str
    reconstruct: Callable[[Sample], ReconstructedMeshes]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_rel_trans: bool = True


def evaluate_methods(
    methods: Sequence[Method], split: AnnotatedSplit, hands: HandModel
) -> list[Evaluated]:
    """The errors of some methods on every sample of a split, in one pass."""
    tables: dict[str, list[SampleErrors]] = {method.name: [] for method in methods}
    with progress_bar("Evaluating " + ", ".join(tables), len(split), "batches") as bar:
        for batch in split:
            targets = _targets(hands, batch)
            for method in methods:
                errors = _errors(method.reconstruct(batch), targets, batch, method.has_rel_trans)
                tables[method.name].append(jax.device_get(errors))
            bar.advance()
    common = {"dataset": split.dataset, "split": split.split, "input_size_px": INPUT_SIZE_PX}
    common |= hand_model_facts(hands) | software_facts()
    return [
        evaluated(m.name, collect(tables[m.name]), split.labels, {**m.facts, **common})
        for m in methods
    ]


def predictions_method(
    predictions: Predictions, split: AnnotatedSplit, hands: HandModel, *, trust: bool = False
) -> Method:
    """A predictions file as a method.

    Args:
        predictions: of all of the split's samples; others are left aside.
        split: that it is to be evaluated on.
        hands: both hands.
        trust: leaves out the checks of `er_jax.prediction_checks.check_plausible`.

    Raises:
        PredictionsError: samples are missing, not finite, or cannot be meant as they are.
    """
    found = len(predictions.rows_of(split.sample_ids))
    if found < len(predictions.sample_id):
        extra = len(predictions.sample_id) - found
        logging.warning("%s: %d predictions are of no sample here", predictions.path, extra)
    if not trust:
        ids, truth = _some_truth(split, hands)
        rows = predictions.rows_of(ids)
        check_finite(predictions, rows, np.asarray(truth.mano_hand_valid))
        check_plausible(predictions, hands, rows, truth)

    def reconstruct(batch: Sample) -> ReconstructedMeshes:
        rows = predictions.rows_of(batch["annotation_id"])
        check_finite(predictions, rows, _present(batch))
        return predictions.reconstruct(hands, rows)

    facts = {"source": predictions.path.name, **predictions.facts}
    return Method(predictions.name, reconstruct, facts, predictions.has_rel_trans)


def baseline_methods(train: AnnotatedSplit, hands: HandModel, batch_size: int) -> list[Method]:
    """Two constants: MANO's rest pose and, where training data has MANO fits, its mean hands."""
    constants = {"rest pose": rest_hands(hands)}
    try:
        batches = len(train)
    except DataError as error:
        logging.warning("no mean-pose baseline: %s", error)
    else:
        try:
            with progress_bar("Mean pose of the training set", batches, "batches") as bar:
                constants[MEAN_HANDS] = mean_hands(hands, _annotated(train, hands, bar))
        except NoFitsError as error:
            logging.warning("no mean-pose baseline: %s", error)
    return [_constant_method(name, mean, hands, batch_size) for name, mean in constants.items()]


def _constant_method(name: str, mean: MeanHands, hands: HandModel, batch_size: int) -> Method:
    meshes = constant_prediction(hands, mean, batch_size)
    return Method(name, lambda batch: meshes)


def _annotated(train: AnnotatedSplit, hands: HandModel, bar: Bar) -> Iterator[tuple[Targets, Any]]:
    for batch in train:
        yield _targets(hands, batch), batch["sample_mask"]
        bar.advance()


def _some_truth(split: AnnotatedSplit, hands: HandModel) -> tuple[np.ndarray, Targets]:
    """Ids and targets of the first samples of a split."""
    batches = list(itertools.islice(split, -(-CHECKED_SAMPLES // split.batch_size)))
    parts = [jax.device_get(_targets(hands, batch)) for batch in batches]
    ids = np.concatenate([batch["annotation_id"] for batch in batches])
    return ids, jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _present(batch: Sample) -> np.ndarray:
    kind = batch["hand_type"][:, None]
    return (kind == INTERACTING) | (kind == np.arange(2))


@jax.jit
def _targets(hands: HandModel, batch: Batch) -> Targets:
    return make_targets(hands, batch)


@jax.jit
def _errors(
    prediction: ReconstructedMeshes, targets: Targets, batch: Batch, has_rel_trans: bool
) -> SampleErrors:
    known = targets.rel_trans_valid & has_rel_trans
    return sample_errors(
        prediction,
        dataclasses.replace(targets, rel_trans_valid=known),
        sample_id=batch["annotation_id"],
        hand_type=batch["hand_type"],
        sample_mask=batch["sample_mask"],
    )
