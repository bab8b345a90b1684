"""Samples a second of the training loader: 512×334 JPEGs, crop 256, full augmentation.

    python -m benchmarks.loader [--samples=4000] [--worker_counts=0,1,2]

A generated dataset is built first. With no worker process one thread prepares, so that its rate is
that of one core; `cpu_ms` is processor time a sample, which a busy machine does not falsify.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.raw_tree import write_raw_tree
from data_pipeline.build import __main__ as build
from data_pipeline.loader import LoaderOptions, make_train_loader

BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--worker_counts", default="0,1,2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw_dir = Path(folder) / "raw"
        write_raw_tree(raw_dir, annotations=2000, with_images=True)
        with contextlib.redirect_stdout(None):
            assert build.main(["interhand26m", f"--raw_dir={raw_dir}", f"--data_dir={folder}"]) == 0
        for worker_count in map(int, options.worker_counts.split(",")):
            print(json.dumps(measure(folder, worker_count, options.samples)), flush=True)


def measure(data_dir: str, worker_count: int, samples: int) -> dict[str, float]:
    """Rates after the first batch, which waits for the workers to start."""
    loader = make_train_loader(
        data_dir,
        "interhand26m",
        batch_size=BATCH_SIZE,
        seed=0,
        options=LoaderOptions(worker_count=worker_count, threads=1, ahead=2),
    )
    started = time.perf_counter()
    next(loader)
    first_batch = time.perf_counter() - started
    started, before = time.perf_counter(), os.times()
    batches = samples // BATCH_SIZE
    for _ in range(batches):
        next(loader)
    seconds, after = time.perf_counter() - started, os.times()
    loader.close()
    result = {
        "worker_count": worker_count,
        "first_batch_s": first_batch,
        "samples_per_s": batches * BATCH_SIZE / seconds,
    }
    if worker_count == 0:
        cpu = after.user + after.system - before.user - before.system
        result["cpu_ms"] = 1000 * cpu / (batches * BATCH_SIZE)
    return result


if __name__ == "__main__":
    main()
