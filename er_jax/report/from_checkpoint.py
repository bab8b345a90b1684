"""The report of a trained network on a split."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from data_pipeline.augmentation import Augmentation, crop, image_to_crop
from er_jax.annotations import AnnotatedSplit
from er_jax.evaluation import make_prediction_function
from er_jax.mano import HandModel
from er_jax.report.evaluated import evaluated
from er_jax.report.pictures import Reconstruct, sample_pictures
from er_jax.report.provenance import hand_model_facts, software_facts
from er_jax.report.write import write_report
from er_jax.sample_errors import ReconstructedMeshes, SampleErrors
from er_jax.training.state import TrainState


def report_on_checkpoint(
    config: ConfigDict,
    name: str,
    state: TrainState,
    hands: HandModel,
    split_name: str,
    errors: Mapping[str, SampleErrors],
    folder: Path,
) -> Path:
    """Writes the report of a checkpoint beside its baselines; see `write_report`.

    Args:
        config: of the run.
        name: of the network in tables, such as the run's.
        state: of the checkpoint, not replicated.
        hands: both hands, not replicated.
        split_name: that was evaluated on.
        errors: of the network under "network", and of each baseline, of all hosts.
        folder: of the report.

    Returns:
        The page.
    """
    split = AnnotatedSplit(config.data_dir, config.data.dataset, split_name)
    facts = {
        "dataset": split.dataset,
        "split": split.split,
        "input_size_px": config.model.input_size,
        **hand_model_facts(hands),
        **software_facts(),
    }
    own = {"checkpoint_step": int(state.step), "backbone": config.model.backbone}
    network = evaluated(name, errors["network"], split.labels, {**own, **facts})
    baselines = [
        evaluated(baseline, table, split.labels, facts)
        for baseline, table in errors.items()
        if baseline != "network"
    ]
    pictures = sample_pictures(network, split, hands, _reconstruct(config, state, hands, split))
    title = f"{name} on {split.dataset}, {split.split}"
    return write_report(
        folder, title, [network], hands=hands, baselines=baselines, pictures=pictures
    )


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
