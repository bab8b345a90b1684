"""Errors of samples that nobody predicted, for tests of what is made of errors."""

import numpy as np

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.results import evaluated
from er_jax.evaluation.types import (
    PROTOCOLS,
    CameraSpaceErrors,
    HandErrors,
    Presence,
    SampleAttributes,
    SampleErrors,
)

PROVENANCE = {"dataset": "made up", "split": "test", "hand_model_sha256": "0"}


def made_up(name="method", count=60, seed=0, worse_mm=0.0, sequences=12):
    """Errors that depend on the sequence; the same seed gives the same samples."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:count].astype(np.int32)
    kind = rng.integers(3, size=count).astype(np.int32)
    present = (kind[:, None] == 2) | (kind[:, None] == np.arange(2))
    sequence = rng.integers(sequences, size=count)
    base = 8 + 3 * rng.random(sequences)[sequence] + worse_mm

    def hands():
        joint_valid = present[..., None] & (rng.random((count, 2, 21)) > 0.1)
        joint_mm = base[:, None, None] * rng.uniform(0.5, 1.5, (count, 2, 21))
        vertex_mm = base[:, None] * rng.uniform(0.5, 1.5, (count, 2))
        return HandErrors(
            np.where(joint_valid, joint_mm, 0).astype(np.float32),
            joint_valid,
            np.where(present, vertex_mm, 0).astype(np.float32),
            present,
        )

    both = present.all(1)

    def in_camera_space():
        joints = hands()
        return CameraSpaceErrors(
            10 * joints.joint_mm,
            joints.joint_valid,
            10 * joints.vertex_mm,
            joints.vertex_mm / 1000,
            present,
        )

    attributes = SampleAttributes(
        ids,
        kind,
        np.where(both, rng.random(count), np.nan).astype(np.float32),
        np.where(both, rng.uniform(0, 300, count), np.nan).astype(np.float32),
        rng.integers(30, 43, count).astype(np.float32) / 42,
    )
    errors = SampleErrors(
        *(hands() for _ in PROTOCOLS),
        np.where(both, 2 * base, 0).astype(np.float32),
        both,
        np.where(both, 3 * base, 0).astype(np.float32),
        both,
        rng.random((count, 2, 2)).astype(np.float32),
        rng.normal(0, 10, (count, 2, 21, 3)).astype(np.float16),
        in_camera_space(),
        Presence(rng.random((count, 2)).astype(np.float32), present, np.ones(count, bool)),
        rng.random((count, 2, 21)).astype(np.float32),
        attributes,
        np.ones(count, bool),
    )
    order = rng.permutation(count)
    names = np.array([f"0/sequence {i}" for i in range(sequences)])
    camera = ids % 2
    recording = 2 * sequence + camera
    frame = [np.sum(recording[:index] == own) for index, own in enumerate(recording)]
    labels = Labels(
        ids[order],
        np.array(["400262", "400263"])[camera[order]],
        names[sequence[order]],
        np.full(count, "rootnet"),
        np.array(frame)[order],
    )
    return evaluated(name, errors, labels, PROVENANCE)
