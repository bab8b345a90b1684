"""Image files: read, checked whole, and decoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import simplejpeg

from er_jax.utils.errors import BadImageError

if TYPE_CHECKING:  # workers do without it, since importing it takes long
    from jaxtyping import UInt8

DARK_BRIGHTNESS = 10.0
"""Mean brightness, of 255, under which an image is called dark."""

_JPEG_START = b"\xff\xd8"


class ImageFile(NamedTuple):
    """An image file that was read whole."""

    data: bytes
    grey: float
    """Mean brightness of it in grey, of 255, by a decoding at an eighth of its size."""


def read_image_file(path: Path, image_size_px: tuple[int, int]) -> ImageFile:
    """The file, once it is sure that its bytes decode to an image of the annotated size.

    Raises:
      BadImageError: the file is missing, cut short, unreadable or of another size.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadImageError(f"{path}: missing") from None
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        size, grey = _check_jpeg(data) if data.startswith(_JPEG_START) else _check_other(data)
    except ValueError as error:
        reason = "empty" if not data else f"unreadable or cut short ({error})"
        raise BadImageError(f"{path}: {reason}") from None
    if size != tuple(image_size_px):
        raise BadImageError(
            f"{path}: {size[0]}×{size[1]} pixels, annotated as "
            f"{image_size_px[0]}×{image_size_px[1]}"
        )
    return ImageFile(data, grey)


def decode_image(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of a JPEG or PNG file's bytes, grey ones too.

    Raises:
      ValueError: the bytes are of no image.
    """
    if data.startswith(_JPEG_START):
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError("neither a JPEG nor a PNG image")
    return image


def is_dark(image: ImageFile, below: float = DARK_BRIGHTNESS) -> bool:
    """Returns whether the mean of all pixels and channels is below a brightness, of 255.

    Grey is 0.299 R + 0.587 G + 0.114 B, at most 1.77 times the mean of the three: what is twice as
    bright in grey need not be decoded in full.
    """
    return image.grey < 2 * below and mean_brightness(image.data) < below


def mean_brightness(data: bytes) -> float:
    """Mean of all pixels and channels, of 255."""
    return float(decode_image(data).mean())


def _check_jpeg(data: bytes) -> tuple[tuple[int, int], float]:
    """Width, height and mean grey of a JPEG, decoded at an eighth: all its bits are read."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    grey = simplejpeg.decode_jpeg(
        data, colorspace="GRAY", min_height=1, min_width=1, min_factor=1, strict=True
    )
    return (width, height), float(grey.mean())


def _check_other(data: bytes) -> tuple[tuple[int, int], float]:
    image = decode_image(data)
    height, width, _ = image.shape
    return (width, height), float(image.mean())
