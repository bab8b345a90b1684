"""The pictures behind the hands: small JPEGs of every frame, from a picture or a video."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from er_jax.photographs.photograph import Photograph, Pixels, read_photograph
from er_jax.utils.errors import DataError, UserError
from er_jax.utils.progress import progress_bar
from er_jax.video.frames import VIDEO_ENDINGS, Frames
from er_jax.video.track import Clip

LONGEST_PX = {"picture": 1280, "clip": 400}
"""Longer side of what is shown: of a single picture, and of a clip's frames."""
_QUALITY = 92  # of what is kept; what is sent is encoded again


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Frames as they are shown.

    Attributes:
      times_s: of all F frames, from 0.
      jpegs: of the same, made smaller.
      size_px: width and height before that.
    """

    times_s: Float[np.ndarray, "F"]
    jpegs: tuple[bytes, ...]
    size_px: tuple[int, int]

    def pixels(self, frame: int) -> Pixels:
        """RGB of a frame."""
        data = np.frombuffer(self.jpegs[frame], np.uint8)
        return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def pictures_of(
    result: Path, clip: Clip, picture_name: str | None, given: Path | None = None
) -> Pictures | None:
    """The pictures that a result was made of.

    Args:
      result: its file, beside which they are looked for.
      clip: of the result.
      picture_name: file name that the result tells.
      given: where they are; None: they are looked for, and what is not there or does not fit is
        told by a warning.

    Returns:
      None: there are none.

    Raises:
      DataError: those that were given cannot be read, or do not fit the result.
    """
    if given is not None:
        return _fitting(given, clip)
    beside = None if picture_name is None else result.with_name(picture_name)
    if beside is None or not beside.exists():
        told = "does not say what it was made of" if beside is None else f"{beside} is not there"
        logging.warning("%s: %s, so no picture is shown; give --picture FILE", result, told)
        return None
    try:
        return _fitting(beside, clip)
    except UserError as error:
        logging.warning("%s (so no picture is shown; give --picture FILE)", error)
        return None


def with_times_of(clip: Clip, pictures: Pictures | None) -> Clip:
    """The clip with the times of its pictures, which also those frames have that no hand is in."""
    return clip if pictures is None else dataclasses.replace(clip, times_s=pictures.times_s)


def _fitting(path: Path, clip: Clip) -> Pictures:
    pictures = read_pictures(path)
    wide, high = pictures.size_px
    width, height = clip.size_px
    if abs(wide * height - high * width) > max(width, height, wide, high):
        raise DataError(
            f"{path}: {wide}×{high} px, but the hands were found in {width}×{height} px: another "
            "picture; give the one that the result was made of"
        )
    frames = 1 + max(int(track.frames[-1]) for track in clip.tracks)
    if len(pictures.jpegs) < frames:
        raise DataError(
            f"{path}: {len(pictures.jpegs)} frames, but hands were found in frame {frames - 1}: "
            "another clip, or cut short; give the one that the result was made of"
        )
    return pictures


def read_pictures(path: Path) -> Pictures:
    """The frames of a picture, of a video or of a folder of frames.

    Args:
      path: of it.

    Raises:
      BadImageError: it is not there, or cannot be read.
    """
    if not path.is_dir() and path.suffix.lower() not in VIDEO_ENDINGS:
        photograph = read_photograph(path)
        return Pictures(np.zeros(1), (_jpeg(photograph, "picture"),), photograph.size_px)
    frames = Frames.of(path)
    times, jpegs = [], []
    size_px = (0, 0)
    with progress_bar("Reading pictures", frames.count, "frames") as bar:
        for time_s, photograph in _upright(frames):
            times.append(time_s)
            jpegs.append(_jpeg(photograph, "clip"))
            size_px = photograph.size_px
            bar.advance()
    return Pictures(np.array(times), tuple(jpegs), size_px)


def _upright(frames: Frames) -> Iterator[tuple[float, Photograph]]:
    for frame in frames.read_ahead():
        yield frame.time_s, Photograph(frame.pixels)


def _jpeg(photograph: Photograph, kind: str) -> bytes:
    small, _ = photograph.at_most(LONGEST_PX[kind])
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    return cv2.imencode(".jpg", small.pixels[..., ::-1], quality)[1].tobytes()
