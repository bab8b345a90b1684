"""A lock that a process holds while it writes somewhere, and that ends with it however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from er_jax.utils.errors import DataError


@contextmanager
def locked(path: Path, refused: str) -> Iterator[None]:
    """Holds a lock.

    Args:
      path: of the lock's file, which is there meanwhile; its folder is made if absent.
      refused: what to say where another process holds it.

    Raises:
      DataError: another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it meanwhile, and another locked a new one.
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise BlockingIOError
        except BlockingIOError:
            raise DataError(refused) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
