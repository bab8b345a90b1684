"""Square boxes around hands, in pixels; a box is (x, y, width, height)."""

import numpy as np
from jaxtyping import Bool, Float

ENLARGEMENT = 1.25


def joint_boxes(
    joints_px: Float[np.ndarray, "N 2 21 2"],
    valid: Bool[np.ndarray, "N 2 21"],
    image_size_px: Float[np.ndarray, "N 2"],
) -> tuple[Float[np.ndarray, "N 4"], Bool[np.ndarray, "N"]]:
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


def meets_image(
    boxes_px: Float[np.ndarray, "N 4"], image_size_px: Float[np.ndarray, "N 2"]
) -> Bool[np.ndarray, "N"]:
    """Returns whether a box has an area and any of it lies in the image."""
    low = np.maximum(boxes_px[:, :2], 0)
    high = np.minimum(boxes_px[:, :2] + boxes_px[:, 2:], np.asarray(image_size_px) - 1)
    return (high > low).all(axis=-1)
