"""MediaPipe's landmark network: what its outputs mean in the picture.

Facts from MediaPipe 0.10.21: `modules/hand_landmark` (its graphs and
`HandLandmarksToRectCalculator`).
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from er_jax.detection.regions import Region
from er_jax.mano.joints import HAND21, joint_order

INPUT_SIZE = 224

_PALM = joint_order(
    HAND21,
    (
        "Wrist",
        *(f"{f}_{i}" for f in ("Thumb",) for i in (1, 2, 3)),
        *(f"{f}_{i}" for f in ("Index", "Middle", "Ring", "Pinky") for i in (1, 2)),
    ),
)
"""The joints that the next region is drawn around."""
_WRIST, _INDEX, _MIDDLE, _RING = joint_order(HAND21, ("Wrist", "Index_1", "Middle_1", "Ring_1"))
_SCALE = 2.0
_SHIFT = 0.1


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """One answer of the landmark network, in the picture.

    Attributes:
      presence: that there is a hand, 0 to 1.
      right: that it is a right one, 0 to 1.
      keypoints_px: (21, 2), `HAND21`.
      relative_depth_px: (21,), from the wrist, away from the camera.
      joints_m: (21, 3), camera axes.
    """

    presence: float
    right: float
    keypoints_px: Float[np.ndarray, "21 2"]
    relative_depth_px: Float[np.ndarray, "21"]
    joints_m: Float[np.ndarray, "21 3"]


def place_landmarks(
    region: Region,
    landmarks: Float[np.ndarray, "63"],
    world: Float[np.ndarray, "63"],
    presence: float,
    right: float,
) -> Landmarks:
    """Takes the outputs from the region's crop into the picture.

    Args:
      landmarks: x, y in pixels of the crop, 0 its edge; z in the same scale, away from the camera.
      world: metres, in the crop's axes.
    """
    crop = landmarks.reshape(21, 3).astype(np.float64) / INPUT_SIZE
    joints = world.reshape(21, 3).astype(np.float64)
    return Landmarks(
        presence=presence,
        right=right,
        keypoints_px=region.to_picture(crop[:, :2]),
        relative_depth_px=(crop[:, 2] - crop[_WRIST, 2]) * region.side,
        joints_m=np.column_stack([joints[:, :2] @ region.rotation.T, joints[:, 2]]),
    )


def region_of_hand(keypoints_px: Float[np.ndarray, "21 2"]) -> Region:
    """The square in which the network finds this hand again, fingers upwards."""
    knuckles = (keypoints_px[_INDEX] + keypoints_px[_RING]) / 4 + keypoints_px[_MIDDLE] / 2
    along = knuckles - keypoints_px[_WRIST]
    upright = Region(0.0, 0.0, 1.0, math.atan2(along[0], -along[1]))
    points = keypoints_px[_PALM] @ upright.rotation
    low, high = points.min(axis=0), points.max(axis=0)
    size = high - low
    middle = (low + high) / 2 - (0, _SHIFT * size[1])
    x, y = upright.rotation @ middle
    return Region(x, y, _SCALE * float(size.max()), upright.angle)
