"""The plan: what was found in the inputs, divided into units of work.

It is a Parquet file of entries whose row groups are the units, so that any unit of millions can be
read alone, and whose metadata are the settings. It is made once, and is then what the folder is
about.
"""

import dataclasses
import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from er_jax.bulk.sources import PICTURE, TABLE, Entry
from er_jax.utils.errors import ConfigError, DataError, NotFoundError
from er_jax.utils.progress import progress_bar
from er_jax.video.parquet import pyarrow_module

NAME = "plan.parquet"
_TIME, _SETTINGS = b"er_jax.planned", b"er_jax.settings"


class Plan:
    """A plan that was made.

    Args:
      folder: of the bulk's output.

    Attributes:
      units: how many.
      made: seconds since the epoch.
      settings: that it was made for.

    Raises:
      DataError: it is damaged.
    """

    def __init__(self, folder: Path):
        import pyarrow.parquet as pq

        self._path = folder / NAME
        try:
            metadata = pq.read_metadata(self._path)
            self.made = float(metadata.metadata[_TIME])
            self.settings: dict[str, Any] = json.loads(metadata.metadata[_SETTINGS])
        except (pyarrow_module().ArrowException, OSError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._path}: cannot be read ({error}): bring it back, or give another --output"
            ) from None
        self.units = metadata.num_row_groups

    def unit(self, number: int) -> list[Entry]:
        """The entries of a unit, by its number from 0."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            return [Entry(**row) for row in file.read_row_group(number).to_pylist()]


def make_plan(
    folder: Path, entries: Iterable[Entry], unit: int, settings: dict[str, Any], own: str
) -> None:
    """Writes the plan, unless there is one by then: of several processes the first one's counts.

    Args:
      folder: of the bulk's output.
      entries: of all inputs; they are gone through once and not kept.
      unit: pictures of a unit, about.
      settings: that the folder is about.
      own: what tells this process's file from those of others.

    Raises:
      ConfigError: a file is named more than once.
      NotFoundError: there is nothing to do.
    """
    import pyarrow.parquet as pq

    pa = pyarrow_module()
    temporary = folder / f".{NAME}.{own}"
    whole = ("first", "count")
    names = [field.name for field in dataclasses.fields(Entry)]
    fields = [(name, pa.int64() if name in whole else pa.string()) for name in names]
    told = {_TIME: str(time.time()), _SETTINGS: json.dumps(settings)}
    schema = pa.schema(fields, metadata=told)
    hashes = array("q")
    try:
        with (
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
            progress_bar("Planning", None, "entries") as bar,
        ):
            for group in units_of(entries, unit):
                hashes.extend(hash((one.source, one.first)) for one in group)
                columns = {name: [getattr(one, name) for one in group] for name, _ in fields}
                writer.write_table(pa.table(columns, schema), row_group_size=len(group))
                bar.advance(len(group))
        if not hashes:
            raise NotFoundError("no picture and no video is in what was named")
        _refuse_twice(temporary, hashes)
        try:
            os.link(temporary, folder / NAME)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def units_of(entries: Iterable[Entry], unit: int) -> Iterator[list[Entry]]:
    """Entries grouped into units: pictures and rows up to a number, a tar or a video alone."""
    waiting: list[Entry] = []
    pictures = 0
    for entry in entries:
        if entry.kind not in (PICTURE, TABLE):
            yield [entry]
            continue
        if waiting and pictures + entry.count > unit:
            yield waiting
            waiting, pictures = [], 0
        waiting.append(entry)
        pictures += entry.count
    if waiting:
        yield waiting


def _refuse_twice(path: Path, hashes: "array[int]") -> None:
    import pyarrow.parquet as pq

    ordered = np.sort(np.frombuffer(hashes, np.int64))
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return
    wanted, seen = set(twice.tolist()), set()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["source", "first"]):
            for row in batch.to_pylist():
                place = (row["source"], row["first"])
                if hash(place) in wanted:
                    if place in seen:
                        raise ConfigError(
                            f"{row['source']} is named twice, and {len(twice) - 1} others are: "
                            "name each file, list and folder once"
                        )
                    seen.add(place)
