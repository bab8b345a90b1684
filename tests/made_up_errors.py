"""Errors of samples that nobody predicted, for tests of what is made of errors."""

import numpy as np

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.results import evaluated
from er_jax.evaluation.types import PROTOCOLS, HandErrors, SampleAttributes, SampleErrors

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
        attributes,
        np.ones(count, bool),
    )
    order = rng.permutation(count)
    names = np.array([f"0/sequence {i}" for i in range(sequences)])
    labels = Labels(
        ids[order],
        np.array(["400262", "400263"])[ids[order] % 2],
        names[sequence[order]],
        np.full(count, "rootnet"),
    )
    return evaluated(name, errors, labels, PROVENANCE)
