"""A picture as people hand it in: a file of any format, an array or a Pillow image."""

import dataclasses
import io
import math
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.utils.errors import BadImageError, ConfigError

Pixels = UInt8[np.ndarray, "H W 3"]
Picture = Path | str | np.ndarray | Image.Image
"""What a picture may be given as."""

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
"""Of the files that are taken for pictures in a folder; a file that is named is always tried."""
ASSUMED_FOCAL = 1.2
"""Focal length, in longer sides of the picture, where nothing is known of it: about 45° wide."""
DIAGONAL_35MM = math.hypot(36.0, 24.0)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An upright picture and what its file says of the camera.

    Attributes:
      pixels: RGB.
      path: of the file, where it came from one.
      stored_size_px: width and height in the file, before it was turned upright.
      exif_orientation: 1 to 8, as EXIF has it; 1: it was upright.
      focal_px: by EXIF's focal length of an equal 35 mm camera; None: not told.
      images_in_file: of an animation all its frames, of which this is the first.
    """

    pixels: Pixels
    path: Path | None = None
    stored_size_px: tuple[int, int] = (0, 0)
    exif_orientation: int = 1
    focal_px: float | None = None
    images_in_file: int = 1

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pixels.shape[:2]
        return width, height

    def at_most(self, longest_px: int) -> tuple["Photograph", float]:
        """The photograph, made smaller where its longer side is longer, and by what factor."""
        scale = min(1.0, longest_px / max(self.size_px))
        if scale == 1.0:
            return self, 1.0
        width, height = (max(round(side * scale), 1) for side in self.size_px)
        pixels = cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)
        focal = None if self.focal_px is None else scale * self.focal_px
        return dataclasses.replace(self, pixels=pixels, focal_px=focal), scale


@dataclasses.dataclass(frozen=True)
class PhotographCamera:
    """The pinhole camera that a picture is taken to be made with.

    Attributes:
      focal_px: x, y.
      principal_point_px: x, y; a pixel's integer position is its centre.
      focal_source: "given", "EXIF" or "assumed".
    """

    focal_px: tuple[float, float]
    principal_point_px: tuple[float, float]
    focal_source: str

    def scaled(self, scale: float) -> "PhotographCamera":
        """The camera of the picture made larger or smaller."""
        x, y = self.principal_point_px
        middle = (scale * (x + 0.5) - 0.5, scale * (y + 0.5) - 0.5)
        focal = (scale * self.focal_px[0], scale * self.focal_px[1])
        return dataclasses.replace(self, focal_px=focal, principal_point_px=middle)

    @property
    def doubt(self) -> str | None:
        """What should be known before distances are trusted; None where the camera is known."""
        if self.focal_source != "assumed":
            return None
        return (
            f"focal length assumed ({self.focal_px[0]:.0f} px): distances from the camera scale "
            "with it; give the focal length"
        )

    @property
    def projection(self) -> PerspectiveCamera:
        """The camera to draw with."""
        return PerspectiveCamera(self.focal_px, self.principal_point_px)


def read_photograph(
    path: Path, data: bytes | None = None, *, most_pixels: int | None = None
) -> Photograph:
    """Any image file, turned upright as its EXIF data say; of several images in it the first.

    Grey images, palettes, CMYK and 16 bits a channel become 8-bit RGB; what is transparent lies
    over white.

    Args:
      path: of the file, or a name for `data`.
      data: the file's bytes, where it is on no disk.
      most_pixels: refuse a larger one before it is decoded; None: 2 × `Image.MAX_IMAGE_PIXELS`.

    Raises:
      BadImageError: the file is missing, a folder, cut short, no image, or too large to be one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size and odd metadata, on which nothing depends
            with Image.open(path if data is None else io.BytesIO(data)) as file:
                if most_pixels is not None and math.prod(file.size) > most_pixels:
                    raise Image.DecompressionBombError
                return _from_pillow(file, path)
    except FileNotFoundError:
        raise BadImageError(f"{path}: no such image") from None
    except IsADirectoryError:
        raise BadImageError(f"{path}: a folder, not an image") from None
    except Image.UnidentifiedImageError:
        raise BadImageError(f"{path}: not an image (JPEG, PNG, WebP, …)") from None
    except Image.DecompressionBombError:
        limit = (most_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0)) / 10**6
        raise BadImageError(
            f"{path}: larger than {limit:.0f} megapixels; make it smaller"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(f"{path}: cannot be read whole ({error})") from None


def blank(size_px: tuple[int, int]) -> Photograph:
    """A picture of a size, of no memory."""
    pixels = np.broadcast_to(np.uint8(0), (size_px[1], size_px[0], 3))
    return Photograph(pixels, stored_size_px=size_px)


def photograph_of(picture: Picture | Photograph) -> Photograph:
    """The photograph of a path, an array or a Pillow image.

    Args:
      picture: arrays are RGB (height, width, 3) or grey (height, width), bytes.

    Raises:
      BadImageError: see `read_photograph`; or an array of another type or shape.
    """
    if isinstance(picture, Photograph):
        return picture
    if isinstance(picture, str | Path):
        return read_photograph(Path(picture))
    if isinstance(picture, Image.Image):
        return _from_pillow(picture, None)
    pixels = np.asarray(picture)
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImageError(
            f"an array of type {pixels.dtype} and shape {pixels.shape} is no picture: RGB bytes "
            "(height, width, 3) are needed, uint8 from 0 to 255"
        )
    height, width = pixels.shape[:2]
    return Photograph(np.ascontiguousarray(pixels), stored_size_px=(width, height))


def camera_of(
    photograph: Photograph,
    focal_px: float | tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
) -> PhotographCamera:
    """The camera of a photograph: as given, else by its EXIF data, else assumed.

    Raises:
      ConfigError: a focal length that is not above zero, or a number that is not finite.
    """
    width, height = photograph.size_px
    given = [] if focal_px is None else np.ravel(focal_px).tolist()
    numbers = [*given, *(principal_point_px or ())]
    if not all(map(math.isfinite, numbers)) or any(f <= 0 for f in given):
        raise ConfigError(
            f"focal length {focal_px}, principal point {principal_point_px}: pixels are needed, "
            "the focal length above zero"
        )
    if given:
        focal, source = (given[0], given[-1]), "given"
    elif photograph.focal_px is not None:
        focal, source = (photograph.focal_px,) * 2, "EXIF"
    else:
        focal, source = (ASSUMED_FOCAL * max(width, height),) * 2, "assumed"
    middle = ((width - 1) / 2, (height - 1) / 2)
    return PhotographCamera(focal, principal_point_px or middle, source)


def _from_pillow(file: Image.Image, path: Path | None) -> Photograph:
    stored = file.size
    exif = file.getexif()
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    image = ImageOps.exif_transpose(file)
    pixels = _as_rgb(image)
    focal = _focal_px(exif, pixels.shape[1], pixels.shape[0])
    known = orientation if orientation in range(1, 9) else 1
    # An MPO's other images are the camera's previews and gain maps of the first.
    images = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
    return Photograph(pixels, path, stored, known, focal, images)


def _as_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _focal_px(exif: Any, width: int, height: int) -> float | None:
    """By EXIF's 35 mm focal length, which compares diagonals of pictures (CIPA DCG-001)."""
    try:
        tags = exif.get_ifd(ExifTags.IFD.Exif)
        focal_mm = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
    except (ValueError, TypeError, KeyError, SyntaxError, ZeroDivisionError, OSError):
        return None
    if not math.isfinite(focal_mm) or focal_mm <= 0:
        return None
    return focal_mm / DIAGONAL_35MM * math.hypot(width, height)
