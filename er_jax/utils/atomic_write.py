"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(
    path: Path, *, temporary: Path | None = None, durable: bool = False
) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which takes its place when the block has ended well.

    What was at `path` stays until then, and for good where the block raises.

    Args:
      path: of the file.
      temporary: where to write meanwhile, in the same folder; None: `path` with
        `.unfinished` added.
      durable: wait until the disk has it (milliseconds a file), for files whose being there says
        that work is done: not even a power cut then leaves an empty one.
    """
    temporary = temporary or path.with_name(path.name + ".unfinished")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a small JSON file, durably."""
    with atomic_write(path, durable=True) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
