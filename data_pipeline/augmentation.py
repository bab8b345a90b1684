"""The host's share of the input: one affine crop of the image, and its colour.

Conventions of the reference (spec of the targets): a flip mirrors the image first, x → W−1−x, and
the box with it; the crop then maps the box's centre to the crop's centre.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:  # workers do without it, since importing it takes long
    from jaxtyping import Float, UInt8


@dataclasses.dataclass(frozen=True)
class AugmentationRange:
    """The limits within which a training sample is varied; the defaults are the reference's.

    Scale is 1 + `scale`·clip(N, −1, 1) of the box's side; the rotation
    `rotation_degrees`·clip(N, −2, 2) with `rotation_probability`; each colour channel is multiplied
    by U(1 − `colour`, 1 + `colour`); the image is mirrored with `flip_probability`. A picture of
    both hands is cropped around one of them, either as often, with `one_hand_probability`.
    """

    scale: float = 0.25
    rotation_degrees: float = 30.0
    rotation_probability: float = 0.6
    colour: float = 0.2
    flip_probability: float = 0.5
    one_hand_probability: float = 0.0


NO_AUGMENTATION = AugmentationRange(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The variation of one sample.

    `around_hand` is the hand (0 right, 1 left, of the image before the mirror) that a picture of
    both is cropped around; None: the record's box.
    """

    scale: float = 1.0
    rotation_degrees: float = 0.0
    flip: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    around_hand: int | None = None

    def as_array(self) -> Float[np.ndarray, "3"]:  # noqa: UP037
        """Returns what targets need to know of it: scale, rotation in degrees, flip."""
        return np.array([self.scale, self.rotation_degrees, self.flip], np.float32)


def draw_augmentation(
    extent: AugmentationRange, *, seed: int, epoch: int, index: int
) -> Augmentation:
    """The augmentation of record `index` in an epoch, the same whenever it is asked for.

    Counter-based (Philox): no draw depends on another sample's.
    """
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, index, epoch]))
    scale, turn = random.standard_normal(2).tolist()
    # What is drawn before stays as it is only if new draws come last.
    turned, flipped, *colour, alone, hand = random.random(7).tolist()
    red, green, blue = (1 + extent.colour * (2 * value - 1) for value in colour)
    rotation = extent.rotation_degrees * min(max(turn, -2.0), 2.0)
    return Augmentation(
        scale=1 + extent.scale * min(max(scale, -1.0), 1.0),
        rotation_degrees=rotation if turned < extent.rotation_probability else 0.0,
        flip=flipped < extent.flip_probability,
        colour=(red, green, blue),
        around_hand=int(2 * hand) if alone < extent.one_hand_probability else None,
    )


def image_to_crop(
    bbox_px: Float[np.ndarray, "4"],  # noqa: UP037
    image_width: int,
    augmentation: Augmentation,
    input_size: int,
) -> Float[np.ndarray, "2 3"]:
    """`img2bb`: from pixels of the image, mirrored already if it is, to pixels of the crop."""
    x, y, width, height = bbox_px.tolist()
    centre_x, centre_y = x + width / 2, y + height / 2
    if augmentation.flip:
        centre_x = image_width - 1 - centre_x
    zoom = input_size / (width * augmentation.scale)
    angle = math.radians(augmentation.rotation_degrees)
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    middle = input_size / 2
    return np.array(
        [
            [cos, sin, middle - cos * centre_x - sin * centre_y],
            [-sin, cos, middle + sin * centre_x - cos * centre_y],
        ]
    )


def crop(
    image: UInt8[np.ndarray, "height width 3"],
    img2bb: Float[np.ndarray, "2 3"],
    augmentation: Augmentation,
    input_size: int,
) -> UInt8[np.ndarray, "input_size input_size 3"]:
    """The crop, black outside the image. The mirror is part of the one warp."""
    source_to_crop = mirror_first(img2bb, image.shape[1]) if augmentation.flip else img2bb
    cropped = cv2.warpAffine(
        image, source_to_crop, (input_size, input_size), flags=cv2.INTER_LINEAR
    )
    if augmentation.colour == (1.0, 1.0, 1.0):
        return cropped
    return cv2.multiply(cropped, np.array((*augmentation.colour, 1.0)))


def mirror_first(img2bb: Float[np.ndarray, "2 3"], image_width: int) -> Float[np.ndarray, "2 3"]:
    """The affine that mirrors the image (x → W−1−x) and then applies `img2bb`."""
    mirrored = img2bb.copy()
    mirrored[:, 0] = -img2bb[:, 0]
    mirrored[:, 2] = img2bb[:, 2] + img2bb[:, 0] * (image_width - 1)
    return mirrored


@dataclasses.dataclass(frozen=True)
class Crop:
    """The square of an image that the network sees, and the way back into the image.

    Attributes:
      image: the crop.
      affine: from pixels of the image, mirrored already if it is, to pixels of the crop.
    """

    image: UInt8[np.ndarray, "input_size input_size 3"]
    affine: Float[np.ndarray, "2 3"]

    @classmethod
    def of(
        cls,
        image: UInt8[np.ndarray, "height width 3"],
        bbox_px: Float[np.ndarray, "4"],  # noqa: UP037
        input_size: int,
        augmentation: Augmentation | None = None,
    ) -> Crop:
        """Cuts a square box out of an image, varied where an augmentation is given."""
        augmentation = augmentation or Augmentation()
        affine = image_to_crop(bbox_px, image.shape[1], augmentation, input_size)
        return cls(crop(image, affine, augmentation, input_size), affine)

    def to_image(self, points_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points of the crop in pixels of the image (of the mirrored one, where it was)."""
        inverse = cv2.invertAffineTransform(np.asarray(self.affine, np.float64))
        return points_px @ inverse[:, :2].T + inverse[:, 2]
