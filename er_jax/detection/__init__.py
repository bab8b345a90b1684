"""Where a picture's hands are: boxes, sides, keypoints, persons. No hand model and no JAX here."""

from er_jax.detection.keypoints_file import (
    FileDetections,
    ImageKeypoints,
    KeypointsError,
    read_keypoints,
    write_keypoints,
)
from er_jax.detection.people import Person, pair_people
from er_jax.detection.types import DetectedHand, Detector, DetectorError

__all__ = [
    "DetectedHand",
    "Detector",
    "DetectorError",
    "FileDetections",
    "ImageKeypoints",
    "KeypointsError",
    "Person",
    "pair_people",
    "read_keypoints",
    "write_keypoints",
]
