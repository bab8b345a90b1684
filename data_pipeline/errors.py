"""Errors that a user of the data pipeline can do something about."""

from pathlib import Path


class DataError(Exception):
    """Something is wrong with the data; the message names the file, the reason and the remedy."""


class WorkerError(DataError):
    """A process that prepares samples died."""


class BadImageError(DataError):
    """An image file is missing, cut short, unreadable or not of the annotated size."""


def disk_error(path: Path, reason: Exception) -> DataError:
    """What to say when the operating system does not let `path` be written."""
    return DataError(
        f"{path}: cannot be written ({reason}). If the disk is full, make room and run the same "
        "command again: what is whole is kept."
    )
