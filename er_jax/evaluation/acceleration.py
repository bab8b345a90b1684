"""Errors of the acceleration of joints, of samples that follow each other in time.

Kanazawa et al., "Learning 3D human dynamics from video", CVPR 2019: the mean over the joints of
|second difference of the predicted joints − that of the true ones|, here of joints relative to
their wrist. It is the second difference of predicted minus true joints.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.types import SampleErrors

_AT_ONCE = 65536  # samples, so that little is widened from halves at a time


class AccelerationErrors(NamedTuple):
    """Of each sample that is between two others; zero where not valid."""

    mm: Float[np.ndarray, "N"]
    """Per frame²: mean over the joints that count in all three."""
    valid: Bool[np.ndarray, "N"]
    frame_step: int | None
    """From a sample's frame number to the next one's, which is what `mm` calls a frame; None where
    no three samples follow each other."""


def acceleration_errors(errors: SampleErrors, labels: Labels) -> AccelerationErrors:
    """Errors of the samples, each with the ones before and after it in its sequence and camera.

    All steps in time are the same one, the most frequent in the samples: of others the number would
    be of another unit.

    Args:
      errors: collected.
      labels: of the same samples.
    """
    mm, valid = np.zeros(len(labels.frame)), np.zeros(len(labels.frame), bool)
    before, middle, after, step = _triples(labels)
    joint_valid = np.asarray(errors.wrist_aligned.joint_valid)
    off_mm = np.asarray(errors.joint_off_mm)
    for start in range(0, len(middle), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        a, b, c = before[some], middle[some], after[some]
        counts = joint_valid[a] & joint_valid[b] & joint_valid[c]
        first, own, last = (off_mm[rows].astype(np.float64) for rows in (a, b, c))
        joint_mm = np.linalg.norm(first - 2 * own + last, axis=-1)
        number = counts.sum((1, 2))
        mm[b] = joint_mm.sum((1, 2), where=counts) / np.maximum(number, 1)
        valid[b] = number > 0
    return AccelerationErrors(mm, valid, step)


def _triples(
    labels: Labels,
) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "T"], Int[np.ndarray, "T"], int | None]:
    """Samples before, at and after each instant that has both, and the step between them."""
    _, sequence = np.unique(labels.sequence, return_inverse=True)
    cameras, camera = np.unique(labels.camera, return_inverse=True)
    recording = sequence * len(cameras) + camera
    order = np.lexsort((labels.frame, recording))
    step = np.where(np.diff(recording[order]) == 0, np.diff(labels.frame[order]), 0)
    steps, counts = np.unique(step[step > 0], return_counts=True)
    usual = int(steps[np.argmax(counts)]) if len(steps) else None
    at = np.flatnonzero((step[:-1] == usual) & (step[1:] == usual))
    return order[at], order[at + 1], order[at + 2], usual
