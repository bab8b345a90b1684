"""What a detector of hands answers with."""

import dataclasses
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from er_jax.utils.errors import UserError

Side = Literal["right", "left"]


class DetectorError(UserError):
    """The detector's files are not there, not the right ones, or cannot be fetched."""

    exit_code = 69  # EX_UNAVAILABLE


@dataclasses.dataclass(frozen=True)
class DetectedHand:
    """One hand found in a picture; pixels of the picture, a pixel's integer position its centre.

    Attributes:
      side: the person's own hand, "right" or "left", in a picture that is not mirrored.
      side_probability: of that side, 0 to 1.
      score: how sure it is that a hand is there, 0 to 1.
      box_px: x, y, width, height around the keypoints.
      keypoints_px: in the order of `er_jax.mano.joints.HAND21`; they may lie outside the picture.
          NaN where the detector gives none (its confidence is then 0).
      confidence: of each keypoint, 0 to 1.
      relative_depth_px: how much farther from the camera than the wrist each keypoint is, in the
          scale of the pixels; None where the detector does not tell.
      joints_m: the detector's own joints in metres, camera axes (x right, y down, z forward), the
          origin in the hand's middle; None where the detector does not tell.
    """

    side: Side
    side_probability: float
    score: float
    box_px: Float[np.ndarray, "4"]
    keypoints_px: Float[np.ndarray, "21 2"]
    confidence: Float[np.ndarray, "21"]
    relative_depth_px: Float[np.ndarray, "21"] | None = None
    joints_m: Float[np.ndarray, "21 3"] | None = None


class Detector(Protocol):
    """Whatever finds hands in a picture."""

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[DetectedHand]:
        """Returns the hands of an RGB picture, the surest first; none is an empty list."""
        ...


def box_around(keypoints_px: Float[np.ndarray, "21 2"]) -> Float[np.ndarray, "4"]:
    """Returns x, y, width, height around the keypoints that are numbers (at least one)."""
    low, high = np.nanmin(keypoints_px, axis=0), np.nanmax(keypoints_px, axis=0)
    return np.concatenate([low, high - low])
