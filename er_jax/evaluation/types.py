"""Types of what the metrics compare with `Targets`, and of what they return for each sample.

Hands are an axis (right, left), joints are in the Hand 21 order.
"""

import dataclasses
from typing import Protocol

import jax
from jaxtyping import Array, Bool, Float, Int

INTERACTING = 2  # hand_type: 0 right, 1 left, 2 interacting
F_SCORE_THRESHOLDS_MM = (5.0, 15.0)
PROTOCOLS = ("wrist_aligned", "scale_aligned", "procrustes")


class Reconstruction(Protocol):
    """A reconstruction to evaluate: the network's prediction, or one read from a file. Metres."""

    @property
    def vertices(self) -> Float[Array, "B 2 778 3"]: ...
    @property
    def joints(self) -> Float[Array, "B 2 21 3"]:
        """Hand 21 joints of `vertices` by MANO's regressor and tips."""

    @property
    def rel_trans(self) -> Float[Array, "B 3"]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReconstructedMeshes:
    """A reconstruction that is only its meshes, as of a baseline or a predictions file."""

    vertices: Float[Array, "B 2 778 3"]
    joints: Float[Array, "B 2 21 3"]
    rel_trans: Float[Array, "B 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandErrors:
    """Errors of each hand under one protocol; zero where not valid."""

    joint_mm: Float[Array, "B 2 21"]
    joint_valid: Bool[Array, "B 2 21"]
    vertex_mm: Float[Array, "B 2"]
    """Mean distance of a hand's vertices."""
    vertex_valid: Bool[Array, "B 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampleAttributes:
    """Attributes of a sample that may make it hard; NaN where one does not apply."""

    sample_id: Int[Array, "B"]
    """The annotation's id in its dataset."""
    hand_type: Int[Array, "B"]
    """0 right, 1 left, 2 interacting."""
    hand_overlap: Float[Array, "B"]
    """Intersection over union of the boxes of the two hands' joints in the image."""
    wrist_distance_mm: Float[Array, "B"]
    visible_share: Float[Array, "B"]
    """Of the annotated joints, how many lie in the crop and the depth box (`joint_trunc`)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampleErrors:
    """Errors of a batch of samples under every protocol; hands (right, left), joints Hand 21."""

    wrist_aligned: HandErrors
    scale_aligned: HandErrors
    procrustes: HandErrors
    rel_trans_mm: Float[Array, "B"]
    rel_trans_valid: Bool[Array, "B"]
    rel_vertex_mm: Float[Array, "B"]
    """Mean over both hands' vertices, the left moved by its relative translation (RRVE)."""
    rel_vertex_valid: Bool[Array, "B"]
    f_score: Float[Array, "B 2 2"] | None
    """Of each hand at `F_SCORE_THRESHOLDS_MM`, valid where the procrustes vertices are; None where
    it was not asked for."""
    attributes: SampleAttributes
    sample_mask: Bool[Array, "B"]
    """False for the padding of a last batch."""
