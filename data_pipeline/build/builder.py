"""Builds a TFDS dataset folder from record tables, so that what looks whole is whole.

Everything is written in `<version>.incomplete`, whose `dataset` folder is renamed to `<version>` at
the end. An interrupted build goes on where it was if the same is asked of the same annotation
files, and starts afresh otherwise.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.utils import Version

from data_pipeline.build.request import BuildRequest, differences, identity
from data_pipeline.build.shards import (
    ShardJob,
    ShardResult,
    shard_bounds,
    shuffled_order,
    write_shards,
)
from data_pipeline.datasets import REPORT
from data_pipeline.records import (
    ANNOTATIONS,
    BOX_SOURCES,
    BUILDER_VERSION,
    HAND_TYPES,
    RecordTable,
    record_features,
)
from er_jax.utils.atomic_write import write_json
from er_jax.utils.errors import DataError, disk_errors
from er_jax.utils.locks import locked
from er_jax.utils.progress import Tracker

logger = logging.getLogger(__name__)

_RECORD_BYTES = 2500  # of everything but the image; vertices come on top
_VERTEX_BYTES = 2 * 778 * 3 * 4


def dataset_dir(data_dir: Path, dataset: str, config: str) -> Path:
    return data_dir / dataset / config / BUILDER_VERSION


def build(
    request: BuildRequest,
    data_dir: Path,
    *,
    workers: int,
    max_bad_images: int,
    overwrite: bool,
    tracker: Tracker,
) -> Path:
    """Builds the dataset, or finds it built, and returns its folder.

    Raises:
      DataError: see `er_jax.utils.errors`; what is whole is kept for the next run.
    """
    final = dataset_dir(data_dir, request.dataset, request.config)
    incomplete = final.with_name(final.name + ".incomplete")
    wanted = identity(request)
    refused = f"Another process is building {final}: wait for it, or end it."
    with disk_errors(final), locked(final.with_name(final.name + ".lock"), refused):
        if final.exists():
            different = differences(final, wanted)
            if not different:
                logger.info("%s is built already, from these very files", final)
                shutil.rmtree(incomplete, ignore_errors=True)
                return final
            if not overwrite:
                raise DataError(
                    f"{final} was built from other files or with other options:\n"
                    + "".join(f"  {difference}\n" for difference in different)
                    + "Give another --data_dir, or --overwrite to replace it."
                )
        places = [str(path.absolute()) for path in request.source_files.values()]
        _start_or_continue(incomplete, {**wanted, "places": places})
        folder = incomplete / "dataset"
        folder.mkdir(exist_ok=True)
        reports, infos = {}, []
        for split in request.splits:
            info, reports[split] = _build_split(
                request, split, incomplete, workers, max_bad_images, tracker
            )
            infos.append(info)
        _write_metadata(request, folder, infos)
        write_json(folder / REPORT, {"request": wanted, "splits": reports})
        _put_in_place(incomplete, final)
    return final


def _build_split(
    request: BuildRequest,
    split: str,
    incomplete: Path,
    workers: int,
    max_bad_images: int,
    tracker: Tracker,
) -> tuple[tfds.core.SplitInfo, dict[str, Any]]:
    work = incomplete / split
    plan = _saved_plan(request, split, work, tracker)
    table = RecordTable.load(work / "table")
    template = tfds.core.ShardedFileTemplate(
        data_dir=incomplete / "dataset",
        dataset_name=request.dataset,
        split=split,
        filetype_suffix="array_record",
    )
    shards = len(plan.bounds)
    jobs = [
        ShardJob(
            table_dir=str(work / "table"),
            path=str(template.sharded_filepath(shard_index=i, num_shards=shards)),
            note=str(work / f"shard_{i:05d}.json"),
            start=start,
            stop=stop,
            drop_dark=plan.drop_dark,
            bad_image_limit=max_bad_images,
        )
        for i, (start, stop) in enumerate(plan.bounds)
    ]
    _check_free_space(plan.needed_bytes, jobs)
    results = write_shards(
        jobs, workers, lambda done: tracker(f"{split}: records", done, len(table))
    )
    lengths = [result.records for result in results]
    if not sum(lengths):
        raise DataError(f"Split {split!r}: every record was left out as its image was read.")
    _save_annotations(work, incomplete / "dataset" / ANNOTATIONS / split, table, results)
    size = sum(result.data_bytes for result in results)
    info = tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )
    return info, _split_report(table, plan, results, size)


def _save_annotations(
    work: Path, folder: Path, table: RecordTable, results: Sequence[ShardResult]
) -> None:
    """Writes the split's records without their images, in their order, a file a column."""
    order = np.load(work / "table" / "order.npy")
    left_out = [row for result in results for row in result.left_out]
    shutil.rmtree(folder, ignore_errors=True)
    kept = table.select(order[~np.isin(order, left_out)])
    dataclasses.replace(kept, image_dir=Path()).save(folder)


class _Plan(msgspec.Struct):
    """The plan by which a split is written; kept, so that a later run writes the same shards."""

    counts: dict[str, int]
    drop_dark: bool
    notes: list[str]
    findings: dict[str, Any]
    part: str | None
    needed_bytes: float
    bounds: list[tuple[int, int]]


def _saved_plan(request: BuildRequest, split: str, work: Path, tracker: Tracker) -> _Plan:
    """Reads the split's annotations, unless an interrupted run has left them read."""
    path = work / "plan.json"
    if not path.exists():
        shutil.rmtree(work, ignore_errors=True)
        index = request.read_split(split, tracker)
        table = index.table
        if {*table.columns} != {*request.fields}:
            raise ValueError(
                f"{request.dataset}: split {split!r} has the fields "
                f"{sorted(table.columns)}, its request names {sorted(request.fields)}"
            )
        table.save(work / "table")
        np.save(work / "table" / "order.npy", shuffled_order(len(table)))
        record_bytes, share_there = _mean_record_bytes(table)
        plan = _Plan(
            counts=dict(index.counts),
            drop_dark=index.drop_dark,
            notes=list(index.notes),
            findings=dict(index.findings),
            part=index.part,
            needed_bytes=len(table) * share_there * record_bytes,
            bounds=shard_bounds(len(table), record_bytes),
        )
        write_json(path, msgspec.to_builtins(plan))
    return msgspec.json.decode(path.read_bytes(), type=_Plan)


def _split_report(
    table: RecordTable, plan: _Plan, results: Sequence[ShardResult], size: int
) -> dict[str, Any]:
    sources = np.bincount(table.columns["bbox_source"][:], minlength=len(BOX_SOURCES))
    hand_types = np.sum([result.hand_types for result in results], axis=0)
    bad_images = sorted(bad for result in results for bad in result.bad_images)
    dark = sum(result.dark for result in results)
    return {
        "part": plan.part,
        "counts": {
            **plan.counts,
            "dropped: dark image": dark if plan.drop_dark else 0,
            "dropped: bad image": len(bad_images),
            "records": sum(result.records for result in results),
            "of these dark": 0 if plan.drop_dark else dark,
        },
        "notes": plan.notes,
        **plan.findings,
        "hand_types": dict(zip(HAND_TYPES, hand_types.tolist(), strict=True)),
        "box_sources": {name: int(n) for name, n in zip(BOX_SOURCES, sources, strict=True) if n},
        "shards": len(results),
        "bytes": size,
        "bad_images": bad_images,
    }


def _start_or_continue(incomplete: Path, wanted: Mapping[str, Any]) -> None:
    """Empties the folder, unless it was left by the same request."""
    request_path = incomplete / "request.json"
    if request_path.exists():
        if json.loads(request_path.read_text()) == wanted:
            if any(incomplete.glob("*/plan.json")):
                logger.info("going on with what an earlier run left in %s", incomplete)
            return
        logger.info("starting afresh: %s is of another request", incomplete)
    shutil.rmtree(incomplete, ignore_errors=True)
    incomplete.mkdir()
    write_json(request_path, wanted)


def _mean_record_bytes(table: RecordTable) -> tuple[float, float]:
    """Bytes of a record by some of those whose image is there, and how many of them these are."""
    rows = np.linspace(0, len(table) - 1, min(64, len(table))).astype(int)
    sizes = [p.stat().st_size for p in map(table.image_path, rows) if p.exists()]
    vertices = _VERTEX_BYTES if "mano_vertices_m" in table.columns else 0
    return float(np.mean(sizes or [0])) + _RECORD_BYTES + vertices, len(sizes) / len(rows)


def _check_free_space(needed: float, jobs: Sequence[ShardJob]) -> None:
    folder = Path(jobs[0].path).parent
    written = sum(Path(job.path).stat().st_size for job in jobs if Path(job.path).exists())
    free = shutil.disk_usage(folder).free
    if needed - written > free:
        raise DataError(
            f"{folder}: the build needs about {(needed - written) / 2**30:.1f} GiB more and the "
            f"disk has {free / 2**30:.1f} GiB. Make room, or give another --data_dir."
        )


def _write_metadata(
    request: BuildRequest, folder: Path, infos: Sequence[tfds.core.SplitInfo]
) -> None:
    shards = {str(path) for info in infos for path in info.filepaths}
    for path in folder.iterdir():
        if path.is_file() and str(path) not in shards:  # half written by an interrupted run
            path.unlink()
    info = tfds.core.DatasetInfo(
        builder=DatasetIdentity(
            name=request.dataset,
            version=Version(BUILDER_VERSION),
            data_dir=str(folder),
            module_name="",
            config_name=request.config,
        ),
        description=request.description,
        features=record_features(request.fields),
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict(infos))
    info.write_to_directory(folder)


def _put_in_place(incomplete: Path, final: Path) -> None:
    if final.exists():
        final.rename(incomplete / "replaced")
    (incomplete / "dataset").rename(final)
    shutil.rmtree(incomplete)
