"""The numbered files of a LeRobot dataset: tables of frames, and videos of their pictures."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from er_jax.utils.errors import DataError
from er_jax.video.frames import av_module
from er_jax.video.lerobot_stats import shades_of

FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
FILES_A_CHUNK = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200

Picture = UInt8[np.ndarray, "H W 3"]


class NumberedFiles:
    """Numbered files of a folder, of which a new one begins where the last one is large."""

    def __init__(self, folder: Path, ending: str, largest_mb: int):
        self._folder, self._ending, self._largest = folder, ending, largest_mb * 2**20
        self._number = -1
        self.place = (0, 0)
        self.path = folder

    def full(self) -> bool:
        """Says whether another file is due."""
        return self._number < 0 or self.path.stat().st_size >= self._largest

    def begin(self) -> None:
        """Goes on to the next file."""
        self._number += 1
        self.place = divmod(self._number, FILES_A_CHUNK)
        chunk, file = self.place
        self.path = self._folder / f"{FILE.format(chunk_index=chunk, file_index=file)}"
        self.path = self.path.with_name(self.path.name + self._ending)
        self.path.parent.mkdir(parents=True, exist_ok=True)


class Tables:
    """The files of `data`."""

    def __init__(self, folder: Path):
        self._files = NumberedFiles(folder, ".parquet", DATA_FILE_MB)
        self._writer: Any = None

    def __enter__(self) -> "Tables":
        return self

    def add(self, table: Any) -> tuple[int, int]:
        """Appends an episode; returns the chunk and the file that it is in."""
        import pyarrow.parquet as pq

        if self._files.full():
            self._close()
            self._files.begin()
            self._writer = pq.ParquetWriter(self._files.path, table.schema)
        self._writer.write_table(table)
        return self._files.place

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Videos:
    """The files of `videos`: H.264 with every second picture whole, as readers jump about."""

    def __init__(self, folder: Path, fps: int):
        self._files = NumberedFiles(folder, ".mp4", VIDEO_FILE_MB)
        self._fps = fps
        self._av = av_module()
        self._container: Any = None
        self._stream: Any = None
        self._shown = 0
        self.size_px = (0, 0)

    def __enter__(self) -> "Videos":
        return self

    def add(
        self,
        name: str,
        size_px: tuple[int, int],
        pictures: Iterable[Picture],
        chosen: Int[np.ndarray, "n"],
    ) -> tuple[dict[str, Any], Int[np.ndarray, "3 256"]]:
        """Appends an episode's pictures.

        Args:
          name: of its clip.
          size_px: width and height of the pictures.
          pictures: of all its frames.
          chosen: numbers of the frames to show, ascending; some may come twice.

        Returns:
          Where they are, as LeRobot says it of an episode; how often each shade of red, green and
          blue is seen in them.

        Raises:
          DataError: the pictures are fewer, or not of their size or of that of those before.
        """
        if self._files.full():
            self._close()
            self._files.begin()
            self._open(size_px)
        elif _even(size_px) != self.size_px:
            width, height = self.size_px
            raise DataError(
                f"{name}: its pictures are not of the size {width}×{height} of those "
                "before; put it into a dataset of its own"
            )
        first = self._shown
        counts = np.zeros((3, 256), np.int64)
        times = np.bincount(chosen, minlength=chosen[-1] + 1)
        given = iter(pictures)
        for frame, again in enumerate(times.tolist()):
            picture = next(given, None)
            if picture is None or picture.shape[1::-1] != size_px:
                what = "is missing" if picture is None else "is not of the clip's size"
                raise DataError(f"{name}: picture {frame} of {len(times)} {what}")
            for _ in range(again):
                self._show(picture)
            counts += again * shades_of(picture)
        chunk, file = self._files.place
        spans = {"from_timestamp": first / self._fps, "to_timestamp": self._shown / self._fps}
        return {"chunk_index": chunk, "file_index": file, **spans}, counts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self, size_px: tuple[int, int]) -> None:
        self._container = self._av.open(str(self._files.path), "w")
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self.size_px = self._stream.width, self._stream.height = _even(size_px)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, self._fps)
        self._stream.options = {"crf": "20", "g": "2", "bf": "0"}
        self._shown = 0

    def _show(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        width, height = self.size_px
        rest = (height - picture.shape[0], width - picture.shape[1])
        if any(rest):
            picture = np.pad(picture, ((0, rest[0]), (0, rest[1]), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self._shown, Fraction(1, self._fps)
        self._container.mux(self._stream.encode(frame))
        self._shown += 1

    def _close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None


def _even(size_px: tuple[int, int]) -> tuple[int, int]:
    """The size that yuv420p can have; a last row or column is shown twice."""
    width, height = size_px
    return width + width % 2, height + height % 2
