"""Builds the datasets: `python -m data_pipeline.build interhand26m --raw_dir=… --data_dir=…`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_pipeline.build import builder
from data_pipeline.datasets import REPORT
from data_pipeline.readers import all_readers
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import DataError
from er_jax.utils.progress import tracker

BAD_IMAGES_SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of devices that are not there
    try:
        request = options.make_request(options)
        with tracker() as track:
            folder = builder.build(
                request,
                options.data_dir,
                workers=options.workers,
                max_bad_images=options.max_bad_images,
                overwrite=options.overwrite,
                tracker=track,
            )
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is whole", file=sys.stderr)
        return 130
    print_report(folder)
    return 0


def print_report(folder: Path) -> None:
    """Prints what a built dataset holds and what was dropped by which rule."""
    report = json.loads((folder / REPORT).read_text())
    splits = report["splits"]
    table = Table(title=f"{report['request']['dataset']}/{report['request']['config']}")
    table.add_column("annotations")
    for split in splits:
        table.add_column(split, justify="right")
    rows: dict[str, dict[str, int]] = {}
    for split, counts in splits.items():
        for group in ("counts", "hand_types", "box_sources"):
            for name, count in counts[group].items():
                label = name if group == "counts" else f"  {group.replace('_', ' ')[:-1]}: {name}"
                rows.setdefault(label, {})[split] = count
    for label, row in rows.items():
        table.add_row(label, *(f"{row.get(split, 0):,}" for split in splits))
    console = Console()
    console.print(table)
    for line in _notes(splits):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{folder}", markup=False, highlight=False, soft_wrap=True)


def _notes(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Sentences on each split: what its reader found, bad images, which part of it it is."""
    of_note: dict[str, list[str]] = {}
    for split, report in splits.items():
        for note in report["notes"]:
            of_note.setdefault(note, []).append(split)
    yield from (f"{', '.join(same)}: {note}" for note, same in of_note.items())
    for split, report in splits.items():
        bad = report["bad_images"]
        yield from (f"{split}: left out {one}" for one in bad[:BAD_IMAGES_SHOWN])
        if len(bad) > BAD_IMAGES_SHOWN:
            yield f"{split}: left out {len(bad) - BAD_IMAGES_SHOWN:,} more; {REPORT} names them"
        if report["part"]:
            yield f"{split}: part of the split: {report['part']}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.build",
        description="Builds a dataset as it is published into TFDS shards.",
    )
    datasets = parser.add_subparsers(
        required=True, metavar="dataset", help="its options: dataset --help"
    )
    for name, reader in all_readers().items():
        command = datasets.add_parser(
            name,
            help=reader.HELP,
            description=reader.HELP,
            conflict_handler="resolve",  # a reader's own option goes before the one of that name
        )
        command.set_defaults(make_request=reader.make_request)
        _add_common(command)
        reader.add_arguments(command)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--raw_dir", type=Path, required=True, help="the dataset as it is published")
    add("--data_dir", type=Path, required=True, help="where TFDS datasets lie")
    add("--workers", type=at_least(1), default=os.cpu_count(), help="processes that write records")
    add("--max_bad_images", type=at_least(0), default=0, help="unreadable images left out, at most")
    add("--overwrite", action="store_true", help="replace a dataset built from other files")


if __name__ == "__main__":
    sys.exit(main())
