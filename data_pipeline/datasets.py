"""Finds built datasets by name and reads their records."""

import bisect
import itertools
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from data_pipeline.records import (
    BUILDER_VERSION,
    FIELDS,
    TEXT_FIELDS,
    RecordCodec,
    absent_fields,
)
from er_jax.utils.errors import DataError

REPORT = "build_report.json"
"""What a dataset was built from and what became of each annotation; lies in its folder."""


def find_dataset(data_dir: str | Path, name: str) -> Path:
    """The folder of a built dataset.

    Args:
      data_dir: where the TFDS datasets lie.
      name: `dataset` or `dataset/config`, such as `interhand26m/interacting_mano`; the config is
        `all` if not given.

    Raises:
      DataError: it is not there, not finished, or of another version of the builder.
    """
    dataset, _, config = name.partition("/")
    folder = Path(data_dir) / dataset / (config or "all")
    final = folder / BUILDER_VERSION
    if (final / "dataset_info.json").exists():
        return final
    command = f"python -m data_pipeline.build {dataset}"
    if (folder / f"{BUILDER_VERSION}.incomplete").exists():
        raise DataError(
            f"{final} is not finished: its build was interrupted. Run the same `{command} …` "
            "again; it goes on where it was."
        )
    others = sorted(p.parent.name for p in folder.glob("*/dataset_info.json"))
    if others:
        raise DataError(
            f"{folder} was built by version {', '.join(others)} of the builder, and this code "
            f"reads version {BUILDER_VERSION}. Build it again with `{command} …`."
        )
    built = sorted(
        f"{p.parents[2].name}/{p.parents[1].name}"
        for p in Path(data_dir).glob("*/*/*/dataset_info.json")
    )
    raise DataError(
        f"{data_dir} has no dataset {dataset}/{config or 'all'}, only "
        f"{', '.join(built) or 'none'}. "
        f"Build it with `{command} --raw_dir=… --data_dir={data_dir}`."
    )


def dataset_versions(data_dir: str | Path, names: str | Iterable[str]) -> dict[str, Any]:
    """Returns what tells a built dataset, or each of several, from another: version and splits.

    Args:
      data_dir: where the TFDS datasets lie.
      names: as for `find_dataset`; what follows a `:` is not looked at.

    Raises:
      DataError: see `find_dataset`.
    """
    versions = {}
    for name in [names] if isinstance(names, str) else names:
        folder = find_dataset(data_dir, name.partition(":")[0])
        info = json.loads((folder / "dataset_info.json").read_text())
        splits: dict[str, dict[str, Any]] = {
            split["name"]: {
                "records": sum(map(int, split["shardLengths"])),
                "bytes": int(split["numBytes"]),
            }
            for split in info["splits"]
        }
        for split, counts in splits.items():
            if part := part_of(folder, split):
                counts["part"] = part
        versions[name] = {"version": info["version"], **splits}
    return versions


def part_of(folder: Path, split: str) -> str | None:
    """Says which part of a published split a built one is; None: no choice left any of it out."""
    try:
        report = json.loads((folder / REPORT).read_text())
    except FileNotFoundError:  # of a folder that another program made
        return None
    return report["splits"].get(split, {}).get("part")


class RecordSource:
    """A split's records by index, read from its shards; the image as the file's bytes.

    Where the dataset has no such field, a record has what stands for it (`records.FIELDS`).
    May be pickled; each process opens its files when it first reads.
    """

    def __init__(self, folder: Path, split: str, fields: Sequence[str] | None = None):
        """Finds the split's shards.

        Args:
          folder: of the dataset.
          split: such as `test`.
          fields: of a record to decode; None: all.

        Raises:
          DataError: there is no such split.
        """
        info = json.loads((folder / "dataset_info.json").read_text())
        shards = {s["name"]: list(map(int, s["shardLengths"])) for s in info["splits"]}
        if split not in shards:
            raise DataError(
                f"{folder} has no split {split!r}, only {', '.join(shards)}. Take one of these, "
                "or build it again from a raw tree that has the split."
            )
        self.folder = folder
        self.split = split
        self._codec = RecordCodec.of_dataset(folder, fields)
        self.has_vertices = "mano_vertices_m" in self._codec.fields
        self._absent = absent_fields(self._codec.fields, fields or (*TEXT_FIELDS, *FIELDS))
        self._ends = list(itertools.accumulate(shards[split]))
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} records, and none of index {index}")
        shard = bisect.bisect_right(self._ends, index)
        try:
            position = index - (self._ends[shard - 1] if shard else 0)
            (data,) = self._reader(shard).read([position])
            return {**self._absent, **self._codec.decode(data)}
        except Exception as error:  # of ArrayRecord's reader or of the record's decoder
            raise DataError(
                f"{self._path(shard)} cannot be read at record {index} of {self.split}: "
                f"{error}. The file is damaged or gone: take it from a copy, or build the dataset "
                "again with `python -m data_pipeline.build`; a run then goes on from its newest "
                "checkpoint."
            ) from error

    def _reader(self, shard: int) -> Any:
        """The reader of a shard, which all threads share."""
        if shard not in self._readers:
            with self._lock:
                if shard not in self._readers:
                    # For single records from all over the file, as TFDS reads them.
                    self._readers[shard] = ArrayRecordReader(
                        str(self._path(shard)),
                        options="readahead_buffer_size:0",
                        file_reader_buffer_size=32768,
                    )
        return self._readers[shard]

    def _path(self, shard: int) -> Path:
        dataset, count = self.folder.parts[-3], len(self._ends)
        name = f"{dataset}-{self.split}.array_record-{shard:05d}-of-{count:05d}"
        return self.folder / name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
