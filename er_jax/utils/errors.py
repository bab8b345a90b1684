"""Errors that a user can do something about: the message names the place, reason and remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: it was ended, and the same command goes on


class UserError(Exception):
    """Something is wrong that the user can mend; a command ends with its message and exit code."""

    exit_code = 1
    """As in sysexits.h."""


class ConfigError(UserError, ValueError):
    """A setting is wrong or does not fit the run."""

    exit_code = 78  # EX_CONFIG


class NotFoundError(UserError, FileNotFoundError):
    """Something that was named is not there."""

    exit_code = 66  # EX_NOINPUT


class DataError(UserError):
    """Something is wrong with the data; the message names the file, the reason and the remedy."""

    exit_code = 65  # EX_DATAERR


class BadImageError(DataError):
    """An image file is missing, cut short, unreadable or not of the annotated size."""


class WorkerError(DataError):
    """A process that prepares samples died."""

    exit_code = 71  # EX_OSERR


class DiskError(DataError):
    """The operating system does not let a file be written or read."""

    exit_code = 74  # EX_IOERR


class NonFiniteError(UserError, FloatingPointError):
    """Losses or gradients are not finite."""

    exit_code = 76  # EX_PROTOCOL, for want of a better one


def disk_error(path: Path, reason: Exception) -> DiskError:
    """Returns what to say when the operating system does not let `path` be written."""
    return DiskError(
        f"{path}: cannot be written ({reason}). If the disk is full, make room and run the same "
        "command again: what is whole is kept."
    )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Has the block raise a `DiskError` where the operating system does not let it write."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise disk_error(path, error) from None
