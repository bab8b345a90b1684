"""What a picture costs in bulk, stage by stage, and what Ray adds.

    python -m benchmarks.bulk [--pictures=512] [--folder=FOLDER] [--ray]

Drawn whole pictures, 640×480, as PNG files, or those of a folder. Each stage alone, on one process
for what is done on processors, on JAX's device for the fit; then all together as `er_jax bulk` does
it, and with `--ray` by a local cluster, whose rows must be the same. Needs the detector's networks.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from data_pipeline.synthetic.sequence import draw_sequence
from er_jax.bulk.pool import Looker, Looking
from er_jax.bulk.results import HANDS, Camera, reconstructed, write_unit
from er_jax.bulk.run import TOGETHER, Bulk, Tally, made_with, run
from er_jax.bulk.sources import Given, entries_of
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import read_photograph
from er_jax.utils.arguments import at_least
from er_jax.utils.cache import cache_dir
from er_jax.utils.xla_cpu import prepare_cpu

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pictures", type=at_least(TOGETHER), default=512)
    parser.add_argument("--folder", type=Path, help="of pictures; without: they are drawn")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.ray:
            from er_jax.bulk.with_ray import LOCAL, connected

            connected(LOCAL)
        prepare_cpu(cache_dir() / "compiled")
        engine = load(detect=False)
        paths = _pictures(folder / "drawn", options)
        console.print(_stages(paths, engine, folder / "unit"))
        inputs = folder / "inputs.txt"
        inputs.write_text("".join(f"{path}\n" for path in paths))
        _together(console, inputs, len(paths), engine, folder, with_ray=options.ray)


def _pictures(folder: Path, options: argparse.Namespace) -> list[Path]:
    if options.folder is not None:
        found = (Path(entry.source) for entry in entries_of([str(options.folder)]))
        return list(itertools.islice(found, options.pictures))
    folder.mkdir()
    sequence = draw_sequence(0, options.pictures / 4, 4)
    for index, frame in enumerate(sequence.frames()):
        cv2.imwrite(str(folder / f"{index:06d}.png"), frame[..., ::-1])
    return sorted(folder.iterdir())


def _stages(paths: Sequence[Path], engine: Engine, folder: Path) -> Table:
    look = Looker(Looking())
    given = [Given(str(path)) for path in paths]
    groups = [given[first : first + TOGETHER] for first in range(0, len(given), TOGETHER)]
    reconstructed(look(groups[0]), engine, Camera())  # programs are compiled
    read_s, _ = _timed(lambda: [read_photograph(path) for path in paths])
    look_s, seen = _timed(lambda: [look(group) for group in groups])
    fit_s, parts = _timed(lambda: [reconstructed(one, engine, Camera()) for one in seen])
    write_s, _ = _timed(lambda: write_unit(folder, 0, parts, made_with(engine)))
    hands = sum(len(part.hands) for part in parts)
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    table = Table(title=f"{len(paths)} pictures, {hands} hands, {size / hands:.0f} bytes a hand")
    for column in ("stage", "where", "ms a picture"):
        table.add_column(column, justify="right")
    for name, where, seconds in (
        ("read and decode", "a core", read_s),
        ("find hands", "a core", look_s - read_s),
        ("fit, and make rows", "the device", fit_s),
        ("write the shards", "a core", write_s),
    ):
        table.add_row(name, where, f"{1000 * seconds / len(paths):.1f}")
    return table


def _together(
    console: Console, inputs: Path, count: int, engine: Engine, folder: Path, *, with_ray: bool
) -> None:
    plain, other = (
        Bulk((str(inputs),), folder / name, unit=max(count // 8, TOGETHER)) for name in ("a", "b")
    )
    cores = os.cpu_count() or 1
    seconds, tally = _timed(lambda: run(plain, engine, Looking(), cores))
    console.print(f"{cores} processes: {_rate(tally, seconds)}")
    if not with_ray:
        return
    from er_jax.bulk.with_ray import Ray, run_with_ray

    ray_s, tally = _timed(lambda: run_with_ray(other, engine, Looking(), Ray(lookers=cores - 1)))
    console.print(
        f"by Ray, {cores - 1} + 1 actors: {_rate(tally, ray_s)}, {ray_s / seconds:.2f} of the time"
    )
    for path in sorted((plain.output / HANDS).iterdir()):
        if not pq.read_table(path).equals(pq.read_table(other.output / HANDS / path.name)):
            sys.exit(f"{path.name}: other rows by Ray")
    console.print("the same rows")


def _rate(tally: Tally, seconds: float) -> str:
    return f"{(tally.inputs + tally.failed) / seconds:.1f} pictures/s, all of it {seconds:.0f} s"


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    done = work()
    return time.monotonic() - began, done


if __name__ == "__main__":
    main()
