"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(
    path: Path, *, beside: Path | None = None, durable: bool = False
) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which takes its place when the block has ended well.

    What was at `path` stays until then, and for good where the block raises.

    Args:
      path: of the file.
      beside: where to write meanwhile, in the same folder; None: `path` with `.unfinished` added.
      durable: wait until the disk has it (milliseconds a file), for files whose being there says
        that work is done: not even a power cut then leaves an empty one.
    """
    beside = beside or path.with_name(path.name + ".unfinished")
    try:
        yield beside
        if durable:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a small JSON file, durably."""
    with written_whole(path, durable=True) as beside:
        beside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
