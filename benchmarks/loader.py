"""Samples a second of the training loader: 512×334 JPEGs, crop 256, full augmentation.

    python -m benchmarks.loader [--data_dir=DATASETS --dataset=interhand26m/all] [--samples=2560]

Without a built dataset one is generated first. Each line is of a process of its own: rates with
some numbers of workers and with threads; the time of the first batch of 32 with eight workers, from
making the loader, after its module was imported; and what a batch of 640 costs the process that
trains in processor time of its own, next to its workers'. Processor time is that of all its threads
and falsified by a busy machine less than wall time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LARGE, SMALL, REPETITIONS = 640, 32, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir")
    parser.add_argument("--dataset", default="interhand26m/all")
    parser.add_argument("--samples", type=int, default=2560)
    parser.add_argument("--one", help="JSON of one measurement, which this process is to make")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        data_dir = options.data_dir or build_dataset(Path(folder))
        common = {"data_dir": data_dir, "dataset": options.dataset, "samples": options.samples}
        for workers in (0, 1, 2, 4):
            run(common | {"workers": workers, "batch_size": SMALL})
        for _ in range(REPETITIONS):
            run(common | {"workers": 8, "batch_size": SMALL, "samples": SMALL})
        for workers in (2, 8):
            run(common | {"workers": workers, "batch_size": LARGE, "samples": 8 * LARGE})


def build_dataset(folder: Path) -> str:
    """Generates a raw dataset of 2000 images and builds it."""
    from benchmarks.raw_tree import write_raw_tree

    raw_dir = folder / "raw"
    write_raw_tree(raw_dir, annotations=2000, with_images=True)
    arguments = ["interhand26m", f"--raw_dir={raw_dir}", f"--data_dir={folder}"]
    command = [sys.executable, "-m", "data_pipeline.build", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(folder)


def run(measurement: dict) -> None:
    command = [sys.executable, "-m", "benchmarks.loader", f"--one={json.dumps(measurement)}"]
    subprocess.run(command, check=True)


def measure(
    data_dir: str, dataset: str, workers: int, batch_size: int, samples: int
) -> dict[str, float]:
    """The first batch, and the rate and the processor time of this process after two batches."""
    from data_pipeline.loader import LoaderOptions, make_train_loader

    started = time.perf_counter()
    loader = make_train_loader(
        data_dir,
        dataset,
        batch_size=batch_size,
        seed=0,
        options=LoaderOptions(worker_count=workers, threads=1),
    )
    next(loader)
    first_batch = time.perf_counter() - started
    next(loader)
    started, cpu_before = time.perf_counter(), time.process_time()
    batches = samples // batch_size
    for _ in range(batches):
        next(loader)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    started = time.perf_counter()
    loader.close()
    return {
        "workers": workers,
        "batch_size": batch_size,
        "first_batch_s": round(first_batch, 2),
        "samples_per_s": round(batches * batch_size / seconds),
        "own_cpu_ms_a_batch": round(1000 * cpu / batches, 1),
        "close_s": round(time.perf_counter() - started, 2),
    }


if __name__ == "__main__":
    main()
