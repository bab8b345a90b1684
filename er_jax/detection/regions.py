"""Turned squares of a picture, cut out for a network, and the way back."""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@dataclasses.dataclass(frozen=True)
class Region:
    """A turned square of a picture.

    Attributes:
      x, y: its middle, in pixels (a pixel's integer position is its centre).
      side: in pixels.
      angle: by how much its upwards direction is turned clockwise from the picture's; radians.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @property
    def rotation(self) -> Float[np.ndarray, "2 2"]:
        """From the region's axes to the picture's; columns are the region's right and down."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def to_crop(self, size: int) -> Float[np.ndarray, "2 3"]:
        """The affine from pixels of the picture to pixels of a crop with `size` pixels a side.

        The region's edges become the crop's: its middle comes to (size − 1) / 2.
        """
        linear = self.rotation.T * (size / self.side)
        return np.column_stack([linear, (size - 1) / 2 - linear @ (self.x, self.y)])

    def to_picture(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points in sides, (0, 0) the region's upper left corner, as pixels of the picture."""
        return (np.asarray(points) - 0.5) * self.side @ self.rotation.T + (self.x, self.y)

    def from_picture(self, points_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """The inverse of `to_picture`."""
        return (np.asarray(points_px) - (self.x, self.y)) @ self.rotation / self.side + 0.5


class Pyramid:
    """A picture and, as they are needed, its halves: so that crops shrink without aliasing."""

    def __init__(self, image: UInt8[np.ndarray, "H W 3"]):
        self._levels = [image]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self._levels[0].shape[1], self._levels[0].shape[0]

    def crop(self, region: Region, size: int) -> Float[np.ndarray, "size size 3"]:
        """The region with `size` pixels a side, values 0 to 1; black outside of the picture."""
        level = max(0, int(math.log2(max(region.side / size, 1))))
        while len(self._levels) <= level and min(self._levels[-1].shape[:2]) >= 2:
            image = self._levels[-1]
            half = (image.shape[1] // 2, image.shape[0] // 2)
            self._levels.append(cv2.resize(image, half, interpolation=cv2.INTER_AREA))
        image = self._levels[min(level, len(self._levels) - 1)]
        affine = region.to_crop(size)
        width, height = self.size_px
        scale = np.array([width / image.shape[1], height / image.shape[0]])
        affine[:, 2] += affine[:, :2] @ ((scale - 1) / 2)
        affine[:, :2] *= scale
        crop = cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR)
        return np.multiply(crop, np.float32(1 / 255), dtype=np.float32)
