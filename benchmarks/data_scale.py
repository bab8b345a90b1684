"""Time and memory of the dataset build at InterHand2.6M's size.

    python -m benchmarks.data_scale [--annotations=1361062] [--images=20000]

Indexes a generated annotation tree of that many train annotations, then builds a dataset with
images, and prints both rates. Needs about 2 GB in the temporary folder for the annotations and
0.1 MB for each image.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.raw_tree import write_raw_tree
from data_pipeline.build import __main__ as build
from data_pipeline.readers.interhand26m import reader


def index(raw_dir: str, result: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Indexes the train split in a process of its own, whose peak memory is the index's."""
    started = time.perf_counter()
    table = reader.read_split(Path(raw_dir), "train").table
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result.put({"records": len(table), "seconds": seconds, "peak_gib": peak})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=int, default=1_361_062)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw_dir = Path(folder) / "annotations_only"
        write_raw_tree(raw_dir, annotations=options.annotations, with_images=False)
        size = sum(path.stat().st_size for path in raw_dir.rglob("*.json")) / 2**30
        context = multiprocessing.get_context("spawn")
        result: multiprocessing.Queue[dict[str, float]] = context.Queue()
        process = context.Process(target=index, args=(str(raw_dir), result))
        process.start()
        measured = result.get()
        process.join()
        print(json.dumps({"index": {**measured, "json_gib": size}}))

        raw_dir = Path(folder) / "with_images"
        write_raw_tree(raw_dir, annotations=options.images, with_images=True)
        started = time.perf_counter()
        arguments = [f"--raw_dir={raw_dir}", f"--data_dir={folder}", f"--workers={options.workers}"]
        assert build.main(["interhand26m", *arguments]) == 0
        seconds = time.perf_counter() - started
        print(
            json.dumps({"build": {"seconds": seconds, "records_per_s": options.images / seconds}})
        )


if __name__ == "__main__":
    main()
