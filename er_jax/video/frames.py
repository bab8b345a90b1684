"""Frames of a video file or of a folder of pictures, read ahead; and a video file to write."""

import dataclasses
import itertools
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from er_jax.photographs.photograph import PICTURE_ENDINGS, read_photograph
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import BadImageError, ConfigError

Pixels = UInt8[np.ndarray, "H W 3"]
T = TypeVar("T")

VIDEO_ENDINGS = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"),
    *(".3gp", ".ogv"),
)
"""Of the files that are taken for clips."""
AHEAD = 8
_TICKS = 90_000  # a second, as MPEG counts


@dataclasses.dataclass(frozen=True)
class Frame:
    """One upright RGB frame.

    Attributes:
      index: in the clip, from 0.
      time_s: since the first one.
      pixels: RGB.
    """

    index: int
    time_s: float
    pixels: Pixels


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of a video file, or the pictures of a folder in the order of their names' numbers.

    Attributes:
      path: of the file or the folder.
      count: of frames, as the file says, which may be a little off; 0 where it does not.
      frame_rate: frames a second, on average.
      first: number of the first frame that is given, of all; see `part`.
      open_ended: whether frames beyond `count` are given too.
    """

    path: Path
    count: int
    frame_rate: float
    first: int = 0
    open_ended: bool = True

    @classmethod
    def of(cls, path: Path, *, frame_rate: float = 30.0) -> "Frames":
        """Opens a clip.

        Args:
          path: of a file that FFmpeg reads, or of a folder of pictures.
          frame_rate: of a folder, where nothing tells.

        Raises:
          BadImageError: it is not there, or has no frame.
        """
        if path.is_dir():
            count = len(_pictures(path))
            if not count:
                raise BadImageError(f"{path}: no picture in this folder")
            return cls(path, count, frame_rate)
        with _opened(path) as (container, stream):
            rate = stream.average_rate or stream.guessed_rate
            seconds = float((stream.duration or 0) * (stream.time_base or 0))
            # Matroska tells it of the whole file alone.
            seconds = seconds or (container.duration or 0) / av_module().time_base
            count = stream.frames or round(seconds * float(rate or 0))
            return cls(path, count, float(rate or frame_rate))

    def part(self, first: int, count: int) -> "Frames":
        """Some of the frames, numbered from 0, with their times in the whole clip.

        Those before are decoded too, since files do not tell exactly where a frame begins.

        Args:
          first: number of the first one.
          count: how many; 0: all that follow.
        """
        rest = max(self.count - first, 0)
        return dataclasses.replace(self, first=first, count=count or rest, open_ended=not count)

    def __iter__(self) -> Iterator[Frame]:
        """Decodes the frames.

        Raises:
          BadImageError: a picture of a folder cannot be read, or is of another size than the first.
        """
        frames = self._of_folder() if self.path.is_dir() else self._of_file()
        size = None
        for frame in itertools.islice(frames, None if self.open_ended else self.count):
            size = size or frame.pixels.shape
            if frame.pixels.shape != size:
                raise BadImageError(
                    f"{self.path}: frame {frame.index} has {_size(frame.pixels.shape)} pixels, the "
                    f"first one {_size(size)}: give frames of one size."
                )
            yield frame

    def read_ahead(self) -> Iterator[Frame]:
        """The frames, decoded by another thread while this one works."""
        return in_background(lambda: iter(self), AHEAD)

    def _of_folder(self) -> Iterator[Frame]:
        for index, path in enumerate(_pictures(self.path)[self.first :]):
            time_s = (self.first + index) / self.frame_rate
            yield Frame(index, time_s, read_photograph(path).pixels)

    def _of_file(self) -> Iterator[Frame]:
        with _opened(self.path) as (container, stream):
            stream.thread_type = "AUTO"
            first = None
            decoded = container.decode(stream)
            for index in range(1 << 62):
                try:
                    frame = next(decoded)
                except StopIteration:
                    return
                except _errors() as error:  # cut short: what was whole is used
                    if index == 0:
                        raise BadImageError(f"{self.path}: no frame can be decoded") from error
                    return
                time = frame.time if frame.time is not None else index / self.frame_rate
                first = time if first is None else first
                if index < self.first:
                    continue
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(frame.rotation / 90) % 4
                upright = np.ascontiguousarray(np.rot90(pixels, turns))
                yield Frame(index - self.first, time - first, upright)


def in_background(make: Callable[[], Iterator[T]], ahead: int) -> Iterator[T]:
    """The items of an iterator that another thread runs, at most so many ahead."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: tuple[bool, Any]) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in make():
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # handed over to who waits
            put((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stop.set()
        thread.join()


class VideoWriter:
    """Writes an H.264 file in MP4. To be used by `written_video`."""

    def __init__(self, path: Path, frame_rate: float):
        av = av_module()
        self._container = av.open(str(path), "w", format="mp4")
        rate = Fraction(frame_rate).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "20"}
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._last = -1

    def add(self, pixels: Pixels, time_s: float) -> None:
        """Adds a frame; all are of the first one's size, an odd row or column is left out."""
        av = av_module()
        height, width = (side - side % 2 for side in pixels.shape[:2])
        if self._last < 0:
            self._stream.width, self._stream.height = width, height
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), "rgb24")
        frame.pts = max(round(time_s * _TICKS), self._last + 1)
        frame.time_base = Fraction(1, _TICKS)
        self._last = frame.pts
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._last >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def written_video(path: Path, frame_rate: float) -> Iterator[VideoWriter]:
    """A video file that is there whole or not at all."""
    with atomic_write(path) as temporary:
        writer = VideoWriter(temporary, frame_rate)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    av = av_module()
    if not path.exists():
        raise BadImageError(f"{path}: no such file")
    try:
        container = av.open(str(path))
    except _errors() as error:
        raise BadImageError(f"{path}: not a video that FFmpeg reads ({error})") from None
    with container:
        if not container.streams.video:
            raise BadImageError(f"{path}: there are no pictures in it, sound perhaps")
        yield container, container.streams.video[0]


def av_module() -> Any:
    """PyAV, which only those need who have videos.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import av  # a tenth of a second, and only for those who have videos
    except ImportError:
        raise ConfigError(
            "videos need PyAV, which is not installed: pip install 'er_jax[video]'"
        ) from None
    # Not PyAV's own way, whose callback waits for Python: a decoder that was closed meanwhile hung.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    return av


def _errors() -> tuple[type[Exception], ...]:
    return (av_module().error.FFmpegError, OSError, ValueError)


def _pictures(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_ENDINGS]
    return sorted(found, key=lambda path: [_number(t) for t in re.split(r"(\d+)", path.name)])


def _number(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
