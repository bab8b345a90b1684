"""Types of what the metrics compare with `Targets`, and of what they return for each sample.

Hands are an axis (right, left), joints are in the Hand 21 order.
"""

import dataclasses

import jax
from jaxtyping import Array, Bool, Float, Float16, Int

F_SCORE_THRESHOLDS_MM = (5.0, 15.0)
PROTOCOLS = ("wrist_aligned", "scale_aligned", "procrustes")
"""Those that align hands and have `HandErrors`."""
PRESENT = 0.5
"""The score above which a hand is said to be there."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReconstructedMeshes:
    """A reconstruction to evaluate: a network's, a baseline's, or one read from a file. Metres."""

    vertices: Float[Array, "B 2 778 3"] | None
    """None of a method that finds joints alone."""
    joints: Float[Array, "B 2 21 3"]
    """Of `vertices` by MANO's regressor and tips; without vertices the method's own."""
    rel_trans: Float[Array, "B 3"]
    wrists: Float[Array, "B 2 3"] | None = None
    """Where the wrists are in the camera's axes; None where the method does not say."""
    presence: Float[Array, "B 2"] | None = None
    """Score in [0, 1] of each hand's being there, decided at `PRESENT`; None as above."""
    joint_spread: Float[Array, "B 2 21"] | None = None
    """Deviation of each joint's heatmap, cells; None of a method without heatmaps."""


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
class CameraSpaceErrors:
    """Errors of where the hands are in the camera's axes; zero where not valid."""

    joint_mm: Float[Array, "B 2 21"]
    joint_valid: Bool[Array, "B 2 21"]
    wrist_mm: Float[Array, "B 2"]
    relative_depth: Float[Array, "B 2"]
    """(z − z*) / z* of the wrist."""
    wrist_valid: Bool[Array, "B 2"]
    """The hand is there and its wrist annotated."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Presence:
    """Which hands are said to be there and which are; zero and False where not valid."""

    score: Float[Array, "B 2"]
    truth: Bool[Array, "B 2"]
    valid: Bool[Array, "B"]
    """The hand type is annotated."""


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
    """Errors of a batch of samples under every protocol; hands (right, left), joints Hand 21.

    What the reconstruction does not say is None: `camera_space`, `presence`, `joint_spread`.
    """

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
    joint_off_mm: Float16[Array, "B 2 21 3"]
    """Predicted minus annotated joints, both relative to their wrists, whose second differences in
    time are the errors of the acceleration. Valid where the wrist-aligned joints are. Halves, to
    take little memory: they resolve 0.03 mm of 50 mm, and end at 65 m."""
    camera_space: CameraSpaceErrors | None
    presence: Presence | None
    joint_spread: Float[Array, "B 2 21"] | None
    """As in `ReconstructedMeshes`."""
    attributes: SampleAttributes
    sample_mask: Bool[Array, "B"]
    """False for the padding of a last batch."""
