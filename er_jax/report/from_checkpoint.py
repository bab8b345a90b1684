"""A trained network evaluated on a split, and the report of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.augmentation import Augmentation, crop, image_to_crop
from er_jax import parallel
from er_jax.evaluation import evaluate, make_evaluation_step, make_prediction_function
from er_jax.inputs import Split
from er_jax.mano import HandModel
from er_jax.report.evaluated import Evaluated, evaluated
from er_jax.report.pictures import Reconstruct, sample_pictures
from er_jax.report.provenance import hand_model_facts, software_facts
from er_jax.report.write import write_report
from er_jax.sample_errors import ReconstructedMeshes
from er_jax.samples_sheet import SamplesSheet
from er_jax.training.state import TrainState


def evaluate_network(
    config: ConfigDict,
    name: str,
    state: TrainState,
    hands: HandModel,
    split_name: str,
    *,
    f_scores: bool = True,
    sheet: SamplesSheet | None = None,
) -> Evaluated:
    """The errors of a trained network on a split, with where they come from.

    Args:
        config: of the run.
        name: of the network in tables, such as the run's.
        state: of the checkpoint, not replicated.
        hands: both hands, not replicated.
        split_name: to evaluate on.
        f_scores: see `er_jax.metrics.sample_errors`.
        sheet: to draw samples on.
    """
    errors = evaluate(
        make_evaluation_step(config, f_scores=f_scores),
        parallel.replicate(state),
        parallel.replicate(hands),
        Split(config, split_name),
        title=f"Evaluating {name} on {split_name}",
        sheet=sheet,
    )
    split = AnnotatedSplit(config.data_dir, config.data.dataset, split_name)
    own = {
        "checkpoint_step": int(state.step),
        "backbone": config.model.backbone,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }
    return evaluated(name, errors, split.labels, {**own, **_facts(config, split, hands)})


def report_on_checkpoint(
    config: ConfigDict,
    state: TrainState,
    hands: HandModel,
    network: Evaluated,
    baselines: Sequence[Evaluated],
    folder: Path,
) -> Path:
    """Writes the report of a checkpoint beside its baselines; see `write_report`.

    Args:
        config: of the run.
        state: of the checkpoint, not replicated.
        hands: both hands, not replicated.
        network: the checkpoint, evaluated.
        baselines: evaluated on the same split.
        folder: of the report.

    Returns:
        The page.
    """
    facts = network.provenance
    split = AnnotatedSplit(config.data_dir, facts["dataset"], facts["split"])
    pictures = sample_pictures(network, split, hands, _reconstruct(config, state, hands, split))
    title = f"{network.name} on {split.dataset}, {split.split}"
    return write_report(
        folder, title, [network], hands=hands, baselines=baselines, pictures=pictures
    )


def _facts(config: ConfigDict, split: AnnotatedSplit, hands: HandModel) -> dict[str, Any]:
    return {
        "dataset": split.dataset,
        "split": split.split,
        "input_size_px": config.model.input_size,
        **hand_model_facts(hands),
        **software_facts(),
    }


def _reconstruct(
    config: ConfigDict, state: TrainState, hands: HandModel, split: AnnotatedSplit
) -> Reconstruct:
    """The network on records of a split, cropped as in an evaluation."""
    predict = jax.jit(make_prediction_function(config))
    size = config.model.input_size

    def reconstruct(records: Int[np.ndarray, "N"]) -> ReconstructedMeshes:
        crops = []
        for record in records:
            image, sample = split.picture(int(record))
            affine = image_to_crop(sample["bbox_px"], image.shape[1], Augmentation(), size)
            crops.append(crop(image, affine, Augmentation(), size))
        prediction = predict(state, hands, np.stack(crops))
        return ReconstructedMeshes(prediction.vertices, prediction.joints, prediction.rel_trans)

    return reconstruct
