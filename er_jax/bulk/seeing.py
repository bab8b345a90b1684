"""What is done on the processor for each picture: reading, and finding hands. No JAX here."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from er_jax.bulk.sources import Entry, Given
from er_jax.detection import DetectedHand, Detector
from er_jax.photographs.photograph import Photograph, Pixels, blank, read_photograph
from er_jax.utils.errors import BadImageError
from er_jax.video.following import follow_clip
from er_jax.video.frames import Frames
from er_jax.video.observations import Observations
from er_jax.video.tracking import Tracker

TOLD = 0.95
"""Share of a video's frames, by its own count, from which all of them are there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A picture that was read, and the hands found in it.

    Attributes:
      source: path of the file.
      key: which picture of that file.
      size_px: width and height, upright.
      focal_px: by EXIF; None: not told.
      hands: as detected.
      pixels: of the picture; None where nobody looks at it any more.
    """

    source: str
    key: str
    size_px: tuple[int, int]
    focal_px: float | None
    hands: list[DetectedHand]
    pixels: Pixels | None

    @property
    def photograph(self) -> Photograph:
        """The picture, or a blank one of its size."""
        if self.pixels is None:
            return dataclasses.replace(blank(self.size_px), focal_px=self.focal_px)
        return Photograph(self.pixels, stored_size_px=self.size_px, focal_px=self.focal_px)


@dataclasses.dataclass(frozen=True)
class Failed:
    """What could not be read.

    Attributes:
      source: path of the file.
      key: which part of it.
      reason: in words.
    """

    source: str
    key: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """The hands of a piece of a video, followed through it.

    Attributes:
      source: path of the file.
      first: number of its first frame in the video.
      seen: what was found; None: there are no such frames, because the file told too many.
      short: why not all of its frames could be decoded; empty: they could.
    """

    source: str
    first: int
    seen: Observations | None
    short: str = ""

    @property
    def key(self) -> str:
        """The frames' numbers."""
        count = 0 if self.seen is None else len(self.seen.times_s)
        return f"frames {self.first} to {self.first + count - 1}"


def see(
    pictures: Iterable[Given], detector: Detector, *, keep_pixels: bool
) -> Iterator[Seen | Failed]:
    """Reads pictures and finds the hands in them.

    Args:
      pictures: to be read.
      detector: of hands.
      keep_pixels: for a network, which looks at them again.
    """
    for one in pictures:
        if one.reason:
            yield Failed(one.source, one.key, one.reason)
            continue
        try:
            photograph = read_photograph(Path(one.source), one.data)
            hands = detector(photograph.pixels)
        except BadImageError as error:
            yield Failed(one.source, one.key, str(error))
            continue
        except Exception as error:  # a fault of ours must not end a night's work
            yield Failed(one.source, one.key, f"{type(error).__name__}: {error}")
            continue
        yield Seen(
            source=one.source,
            key=one.key,
            size_px=photograph.size_px,
            focal_px=photograph.focal_px,
            hands=hands,
            pixels=photograph.pixels if keep_pixels else None,
        )


def follow(entry: Entry, make_tracker: Callable[[], Tracker]) -> Followed | Failed:
    """Follows the hands of a piece of a video."""
    try:
        frames = part_of(entry)
        seen = follow_clip(frames, make_tracker)
    except BadImageError as error:
        if entry.first:
            return Followed(entry.source, entry.first, None)
        return Failed(entry.source, "", str(error))
    except Exception as error:
        return Failed(entry.source, "", f"{type(error).__name__}: {error}")
    found, told = len(seen.times_s), frames.count
    # How many there are from here to the end, files tell only nearly.
    short = found < (entry.count or TOLD * told)
    reason = f"only {found} of {told} frames could be decoded" if short else ""
    return Followed(entry.source, entry.first, seen, reason)


def part_of(entry: Entry) -> Frames:
    """The frames of a piece of a video.

    Raises:
      BadImageError: it is no video.
    """
    return Frames.of(Path(entry.source)).part(entry.first, entry.count)
