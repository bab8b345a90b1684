"""Predictions made from the truth, as other people's methods would export them."""

import jax
import numpy as np

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.mano import HandModel, axis_angle_to_matrix
from er_jax.supervision.targets import make_targets


def exported_truth(split: AnnotatedSplit, hands: HandModel) -> tuple[np.ndarray, dict]:
    """Ids and arrays of a predictions file that is exact; `rotations` include the mean pose."""
    targets = jax.jit(make_targets)
    parts = []
    for batch in split:
        truth = jax.device_get(targets(hands, batch))
        real = batch["sample_mask"]
        full_pose = truth.mano_pose.copy()
        full_pose[..., 3:] += np.asarray(hands.mean_pose)
        arrays = {
            "sample_id": batch["annotation_id"],
            "betas": truth.mano_shape,
            "pose": truth.mano_pose,
            "rotations": np.asarray(axis_angle_to_matrix(full_pose.reshape(-1, 2, 16, 3))),
            "vertices": truth.mano_mesh_cam,
            "joints": truth.joint_cam,
            "rel_trans": truth.rel_trans,
            "wrists": truth.wrist_cam,
            "presence": truth.hand_present.astype(np.float32),
        }
        parts.append({name: value[real] for name, value in arrays.items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return whole.pop("sample_id"), whole
