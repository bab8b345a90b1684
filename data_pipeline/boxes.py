"""Square boxes around hands, in pixels; a box is (x, y, width, height)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # workers do without it, since importing it takes long
    from jaxtyping import Bool, Float

ENLARGEMENT = 1.25
JOINT_FIELDS = (
    "joint_world_mm",
    "joint_valid_world",
    "camera_rotation",
    "camera_translation_mm",
    "focal_px",
    "princpt_px",
)
"""The fields of a record that `joint_pixels` reads."""


def joint_boxes(
    joints_px: Float[np.ndarray, "N 2 21 2"],
    valid: Bool[np.ndarray, "N 2 21"],
    image_size_px: Float[np.ndarray, "N 2"],
) -> tuple[Float[np.ndarray, "N 4"], Bool[np.ndarray, "N"]]:  # noqa: UP037
    """The square box of each sample's valid joints, and whether it meets the image.

    Each hand's box is enlarged by 1.25; their union is clipped to the image, made square about its
    centre and enlarged by 1.25 again.

    Args:
      joints_px: any points of the two hands; their number is free.
      valid: which of them count; a hand without one has no part in the box.
      image_size_px: width and height.
    """
    present = valid.any(axis=-1, keepdims=True)
    points = joints_px.astype(np.float64)
    low = np.where(valid[..., None], points, np.inf).min(axis=-2)
    high = np.where(valid[..., None], points, -np.inf).max(axis=-2)
    low, high = np.where(present, low, 0), np.where(present, high, 0)
    centre, half = (low + high) / 2, (high - low) / 2 * ENLARGEMENT
    union_low = np.where(present, centre - half, np.inf).min(axis=1)
    union_high = np.where(present, centre + half, -np.inf).max(axis=1)

    last_pixel = np.asarray(image_size_px, np.float64) - 1
    clipped_low = np.maximum(union_low, 0)
    clipped_high = np.minimum(union_high, last_pixel)
    meets_image = (clipped_high > clipped_low).all(axis=-1)
    clipped_low = np.where(meets_image[:, None], clipped_low, 0)
    clipped_high = np.where(meets_image[:, None], clipped_high, 0)
    side = (clipped_high - clipped_low).max(axis=-1, keepdims=True) * ENLARGEMENT
    corner = (clipped_low + clipped_high) / 2 - side / 2
    return np.concatenate([corner, side, side], axis=-1), meets_image


def joint_pixels(
    records: Mapping[str, np.ndarray],
) -> tuple[Float[np.ndarray, "N 2 21 2"], Bool[np.ndarray, "N 2 21"]]:
    """The joints of records in their images, and which are annotated and before the camera.

    Args:
      records: their `JOINT_FIELDS`, on a leading axis.
    """
    camera_mm = np.einsum("nij,nhkj->nhki", records["camera_rotation"], records["joint_world_mm"])
    camera_mm += records["camera_translation_mm"][:, None, None]
    depth = camera_mm[..., 2]
    valid = records["joint_valid_world"] & (depth > 0)
    pixels = camera_mm[..., :2] / np.where(depth > 0, depth, 1)[..., None]
    pixels = pixels * records["focal_px"][:, None, None]
    return pixels + records["princpt_px"][:, None, None], valid


def meets_image(
    boxes_px: Float[np.ndarray, "N 4"], image_size_px: Float[np.ndarray, "N 2"]
) -> Bool[np.ndarray, "N"]:  # noqa: UP037
    """Returns whether a box has an area and any of it lies in the image."""
    low = np.maximum(boxes_px[:, :2], 0)
    high = np.minimum(boxes_px[:, :2] + boxes_px[:, 2:], np.asarray(image_size_px) - 1)
    return (high > low).all(axis=-1)
