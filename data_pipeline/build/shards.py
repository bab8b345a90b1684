"""Writes a split's records into ArrayRecord shards with several processes.

The order of the records is one global shuffle, the same in every build. A shard is written beside
its place and renamed when it is whole; a note then says what became of its records. A shard
that has its note is not written again, unless images were left out of it that may be there now.
"""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipeline.images import is_dark, read_image_file
from data_pipeline.records import RecordCodec, RecordTable, record_features
from er_jax.utils.atomic_write import atomic_write, write_json
from er_jax.utils.errors import BadImageError, DataError, disk_error
from er_jax.utils.processes import follow_parent

SHARD_BYTES = 256 << 20
SMALL_SHARD_RECORDS = 512
"""Small datasets too are cut into pieces of about so many, up to eight, to be written at once."""

_COUNT_EVERY = 32


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to write: records `order[start:stop]` of a saved table."""

    table_dir: str
    path: str
    note: str
    start: int
    stop: int
    drop_dark: bool
    bad_image_limit: int


class ShardResult(msgspec.Struct):
    """The counts of what became of a shard's records."""

    records: int
    data_bytes: int
    dark: int
    """Dark images, left out or not."""
    bad_images: list[str]
    left_out: list[int]
    """Rows of the table whose images were dark or bad."""
    hand_types: list[int]


def shuffled_order(count: int) -> np.ndarray:
    """The one permutation of `count` records; no generator's future change can alter it."""
    return np.argsort(np.random.Philox(key=count).random_raw(count), kind="stable")


def shard_bounds(count: int, mean_bytes: float) -> list[tuple[int, int]]:
    """Equal pieces of at most about 256 MiB."""
    by_size = -int(-count * mean_bytes // SHARD_BYTES)
    shards = max(by_size, min(8, count // SMALL_SHARD_RECORDS), 1)
    edges = np.linspace(0, count, shards + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def write_shards(
    jobs: list[ShardJob], workers: int, progress: Callable[[int], None]
) -> list[ShardResult]:
    """Writes the shards that are not there yet; results in the order of `jobs`.

    Args:
      workers: processes; 1 writes in this one.
      progress: called with the number of records done so far.

    Raises:
      DataError: more bad images than allowed, a full disk, or a process that was killed.
    """
    pending = [job for job in jobs if not _is_done(job)]
    found = sum(job.stop - job.start for job in jobs) - sum(j.stop - j.start for j in pending)
    progress(found)
    bad_images: list[str] = []
    for done, result in _run(pending, workers):
        progress(found + done)
        if result is not None:
            bad_images += result.bad_images
            _check_bad_images(bad_images, jobs[0].bad_image_limit)
    return [_read_note(job) for job in jobs]


def _is_done(job: ShardJob) -> bool:
    found = Path(job.note).exists() and Path(job.path).exists()
    return found and not _read_note(job).bad_images


def _read_note(job: ShardJob) -> ShardResult:
    return msgspec.json.decode(Path(job.note).read_bytes(), type=ShardResult)


def _check_bad_images(bad_images: list[str], limit: int) -> None:
    if len(bad_images) > limit:
        shown = "\n  ".join(bad_images[:20])
        more = f"\n  and {len(bad_images) - 20} more" if len(bad_images) > 20 else ""
        raise DataError(
            f"{len(bad_images)} bad images, {limit} allowed:\n  {shown}{more}\n"
            "Restore these files, or let the build leave out up to N of them with "
            "--max_bad_images=N. What is already built is kept for the next run."
        )


def _run(jobs: list[ShardJob], workers: int) -> Iterator[tuple[int, ShardResult | None]]:
    """Yields records done so far, and each shard's result as it ends."""
    if workers == 1 or len(jobs) <= 1:
        done = 0
        for job in jobs:
            result = _write_shard(job, lambda records: None)
            done += job.stop - job.start
            yield done, result
        return
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, _start_worker, (counter, stop)
    ) as pool:
        futures = {pool.submit(_write_shard_in_worker, job) for job in jobs}
        try:
            while futures:
                ended, futures = concurrent.futures.wait(
                    futures, 0.5, concurrent.futures.FIRST_COMPLETED
                )
                yield counter.value, None
                for future in ended:
                    yield counter.value, future.result()
        except BrokenProcessPool:
            raise DataError(
                "A process that writes records was killed, perhaps for want of memory. Run the "
                "same command again, with fewer --workers: what is whole is kept."
            ) from None
        finally:  # where the user wants an end, too
            stop.set()
            pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """Another process failed, or the user wants an end."""


_shared: Any = None  # a worker process's counter of records and its order to stop


def _start_worker(counter: Any, stop: Any) -> None:
    global _shared
    _shared = counter, stop
    follow_parent()


def _write_shard_in_worker(job: ShardJob) -> ShardResult:
    counter, stop = _shared

    def count(records: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with counter.get_lock():
            counter.value += records

    return _write_shard(job, count)


def _write_shard(job: ShardJob, count: Callable[[int], None]) -> ShardResult:
    path = Path(job.path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    table = RecordTable.load(Path(job.table_dir))
    order = np.load(Path(job.table_dir) / "order.npy", mmap_mode="r")[job.start : job.stop]
    codec = RecordCodec.of(record_features(table.columns))
    result = ShardResult(0, 0, 0, [], [], [0, 0, 0])
    try:
        with atomic_write(path, temporary=unfinished, durable=True):
            writer = ArrayRecordWriter(str(unfinished), "group_size:1,uncompressed")
            for done, row in enumerate(order, start=1):
                _write_record(writer, codec, table, int(row), job, result)
                if done % _COUNT_EVERY == 0:
                    count(_COUNT_EVERY)
            writer.close()
        count(len(order) % _COUNT_EVERY)
        write_json(Path(job.note), msgspec.to_builtins(result))
    except (OSError, RuntimeError) as error:  # RuntimeError: the writer's, with the system's reason
        raise disk_error(path, error) from None
    return result


def _write_record(
    writer: ArrayRecordWriter,
    codec: RecordCodec,
    table: RecordTable,
    row: int,
    job: ShardJob,
    result: ShardResult,
) -> None:
    record = table.record(row)
    width, height = record["image_size_px"].tolist()
    try:
        image = read_image_file(table.image_path(row), (width, height))
    except BadImageError as error:
        result.bad_images.append(str(error))
        result.left_out.append(row)
        _check_bad_images(result.bad_images, job.bad_image_limit)
        return
    if is_dark(image):
        result.dark += 1
        if job.drop_dark:
            result.left_out.append(row)
            return
    data = codec.encode({**record, "image": image.data})
    writer.write(data)
    result.records += 1
    result.data_bytes += len(data)
    result.hand_types[int(record["hand_type"])] += 1
