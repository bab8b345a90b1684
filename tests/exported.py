"""Predictions made from the truth, as other people's methods would export them."""

import jax
import numpy as np

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.mano import HandModel
from er_jax.supervision.targets import make_targets


def exported_truth(split: AnnotatedSplit, hands: HandModel) -> tuple[np.ndarray, dict]:
    """Ids and arrays of a predictions file that is exact."""
    targets = jax.jit(make_targets)
    parts = []
    for batch in split:
        truth = jax.device_get(targets(hands, batch))
        real = batch["sample_mask"]
        arrays = {
            "sample_id": batch["annotation_id"],
            "betas": truth.mano_shape,
            "pose": truth.mano_pose,
            "vertices": truth.mano_mesh_cam,
            "rel_trans": truth.rel_trans,
        }
        parts.append({name: value[real] for name, value in arrays.items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return whole.pop("sample_id"), whole
