"""Finds built datasets by name and reads their records."""

import bisect
import itertools
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipeline.records import BUILDER_VERSION, RecordCodec
from er_jax.utils.errors import DataError


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
        splits = {
            split["name"]: {
                "records": sum(map(int, split["shardLengths"])),
                "bytes": int(split["numBytes"]),
            }
            for split in info["splits"]
        }
        versions[name] = {"version": info["version"], **splits}
    return versions


class RecordSource:
    """A split's records by index, read from its shards; the image as the file's bytes.

    May be pickled; each process opens its files when it first reads.
    """

    def __init__(self, folder: Path, split: str):
        info = json.loads((folder / "dataset_info.json").read_text())
        shards = {s["name"]: list(map(int, s["shardLengths"])) for s in info["splits"]}
        lengths = {name: sum(records) for name, records in shards.items()}
        if split not in lengths:
            raise DataError(
                f"{folder} has no split {split!r}, only {', '.join(lengths)}. Take one of these, "
                "or build it again from a raw tree that has the split."
            )
        self.folder = folder
        self.split = split
        self.has_vertices = "mano_vertices_m" in (folder / "features.json").read_text()
        self._length = lengths[split]
        self._shard_lengths = shards[split]
        self._reader: Any = None
        self._codec: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._reader is None:
            with self._lock:
                if self._reader is None:
                    builder = tfds.builder_from_directory(self.folder)
                    self._codec = RecordCodec(builder.info.features)
                    self._reader = builder.as_data_source(
                        self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
                    )
        try:
            return self._codec.decode(self._reader[index])
        except Exception as error:  # of ArrayRecord's reader or of the record's decoder
            raise DataError(
                f"{self._shard_of(index)} cannot be read at record {index} of {self.split}: "
                f"{error}. The file is damaged or gone: take it from a copy, or build the dataset "
                "again with `python -m data_pipeline.build`; a run then goes on from its newest "
                "checkpoint."
            ) from error

    def _shard_of(self, index: int) -> Path:
        ends = list(itertools.accumulate(self._shard_lengths))
        shard, count = bisect.bisect_right(ends, index), len(ends)
        dataset = self.folder.parts[-3]
        name = f"{dataset}-{self.split}.array_record-{shard:05d}-of-{count:05d}"
        return self.folder / name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_codec": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
