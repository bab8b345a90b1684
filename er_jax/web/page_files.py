"""The one folder of uploads and results: how much may lie in it, and for how long."""

import dataclasses
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from er_jax.utils.errors import DataError


@dataclasses.dataclass(frozen=True)
class Kept:
    """What may lie in the folder.

    Attributes:
      bytes: of all files together.
      files: number of all files.
      seconds: after which a file is removed.
    """

    bytes: int = 2_000_000_000
    files: int = 2_000
    seconds: float = 1800.0


class FullError(DataError):
    """As much lies in the folder as may: ask again later."""


class Files:
    """The folder, which is emptied of what is old, and wholly at the end.

    Args:
      folder: which nobody else uses; made if absent.
      kept: what may lie in it.
    """

    def __init__(self, folder: Path, kept: Kept):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.kept = kept
        self._promised_bytes = self._promised_files = 0
        self._lock = threading.Lock()
        self._stays: frozenset[Path] = frozenset()

    def __contains__(self, path: str) -> bool:
        """Whether a path is that of a file in the folder."""
        try:
            return Path(path).resolve().is_relative_to(self.folder) and Path(path).is_file()
        except (OSError, ValueError):
            return False

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """Keeps room for a file while it is being written.

        Raises:
          FullError: there is none.
        """
        with self._lock:
            held, files = self._held()
            if (
                held + self._promised_bytes + size_bytes > self.kept.bytes
                or files + self._promised_files + 1 > self.kept.files
            ):
                raise FullError(
                    "Others' files take all the room there is here. They are removed "
                    f"{_minutes(self.kept.seconds)} after they were made: try again then."
                )
            self._promised_bytes += size_bytes
            self._promised_files += 1
        try:
            yield
        finally:
            with self._lock:
                self._promised_bytes -= size_bytes
                self._promised_files -= 1

    def keep_what_is_there(self) -> None:
        """Has what lies in the folder now stay until the end."""
        self._stays = frozenset(path for path in self.folder.rglob("*") if path.is_file())

    def new_folder(self) -> Path:
        """A folder for results, whose name cannot be guessed."""
        folder = self.folder / "results" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def sweep(self) -> None:
        """Removes files that are old, and folders that are empty."""
        oldest = time.time() - self.kept.seconds
        for root, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                path = Path(root, name)
                try:
                    if path not in self._stays and path.lstat().st_ctime < oldest:
                        path.unlink()
                except FileNotFoundError:
                    continue
            self._remove_if_empty(Path(root), oldest)

    def empty(self) -> None:
        """Removes all that lies in the folder."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_if_empty(self, folder: Path, oldest: float) -> None:
        try:
            if folder != self.folder and folder.lstat().st_ctime < oldest:
                folder.rmdir()
        except OSError:  # something lies in it
            return

    def _held(self) -> tuple[int, int]:
        """Bytes and number of the files."""
        size = count = 0
        for root, _, names in os.walk(self.folder):
            for name in names:
                try:
                    size += Path(root, name).lstat().st_size
                    count += 1
                except FileNotFoundError:
                    continue
        return size, count


def _minutes(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
