"""The report of a checkpoint beside its baselines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.augmentation import Crop
from er_jax.evaluation.network import NetworkEvaluation, TrainedNetwork, crop_reconstructor
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HandModel
from er_jax.report.sample_images import sample_images
from er_jax.report.write import write_report


def report_on_checkpoint(
    trained: TrainedNetwork,
    hands: HandModel,
    evaluation: NetworkEvaluation,
    split: AnnotatedSplit,
    folder: Path,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the report of a checkpoint beside its baselines; see `write_report`.

    Args:
      trained: the network of the checkpoint.
      hands: both hands, not replicated.
      evaluation: of it, on the split.
      split: that it was evaluated on.
      folder: of the report.
      more: see `write_report`.

    Returns:
      The page.
    """

    reconstruct_crops = crop_reconstructor(trained, hands)

    def reconstruct(records: Int[np.ndarray, "N"]) -> ReconstructedMeshes:
        images = (split.image(int(record)) for record in records)
        size = trained.config.input_size
        crops = [Crop.of(image, sample["bbox_px"], size).image for image, sample in images]
        return reconstruct_crops(np.stack(crops))

    network = evaluation.network
    images = sample_images(network, split, hands, reconstruct)
    title = f"{network.name} on {split.title}"
    return write_report(
        folder,
        title,
        [network],
        hands=hands,
        baselines=evaluation.baselines,
        images=images,
        confidence=trained.calibration,
        more=more,
    )
