"""Builds the datasets: `python -m data_pipeline.build interhand26m --raw_dir=… --data_dir=…`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from data_pipeline.build import builder, hic
from data_pipeline.build.interhand26m import reader
from data_pipeline.build.request import REPORT, BuildRequest
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import DataError
from er_jax.utils.progress import tracker


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
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
    for split, counts in splits.items():
        for bad in counts["bad_images"]:
            console.print(f"{split}: left out {bad}", markup=False, highlight=False)
    console.print(f"{folder}", markup=False, highlight=False, soft_wrap=True)


def interhand26m_request(options: argparse.Namespace) -> BuildRequest:
    """Returns the request that the command's options make.

    Raises:
      DataError: the raw tree or a list of ids is not there.
    """
    raw_dir: Path = options.raw_dir
    splits = options.splits or reader.splits_of(raw_dir)
    if not splits:
        raise DataError(
            f"{raw_dir / 'annotations'} has none of the splits {', '.join(reader.SPLITS)}. "
            "--raw_dir must be the folder that holds images/ and annotations/."
        )
    id_lists = _id_lists(options, splits)
    ids = {split: _annotation_ids(path) for split, path in id_lists.items()}
    sources = {f"{split}, {path.name}": path for split, path in id_lists.items()}
    for split in splits:
        found = reader.annotation_files(raw_dir, split).values()
        sources |= {path.name: path for path in found}
    return BuildRequest(
        dataset=reader.NAME,
        config=options.subset if options.fps == 5 else f"{options.subset}_{options.fps}fps",
        description=(
            f"InterHand2.6M v1.0 (CC-BY-NC 4.0), {options.fps} fps, subset {options.subset}; "
            "https://mks0601.github.io/InterHand2.6M/"
        ),
        splits=splits,
        options={"boxes": options.boxes, "box_rule": reader.BOX_RULE},
        source_files=sources,
        read_split=lambda split, track: reader.read_split(
            raw_dir,
            split,
            subset=options.subset,
            annotation_ids=ids.get(split),
            box_choice=options.boxes,
            progress=lambda what, done, total: track(f"{split}: {what}", done, total),
        ),
    )


def hic_request(options: argparse.Namespace) -> BuildRequest:
    """Returns the request that the command's options make."""
    return BuildRequest(
        dataset=hic.NAME,
        config=options.subset,
        description=(
            f"HIC (Tzionas et al. 2016), {options.subset}; "
            "https://files.is.tue.mpg.de/dtzionas/Hand-Object-Capture/"
        ),
        splits=(hic.SPLIT,),
        options={},
        source_files={"HIC.json": hic.annotation_file(options.raw_dir)},
        read_split=lambda split, track: hic.read_split(
            options.raw_dir, subset=options.subset, progress=track
        ),
        with_vertices=True,
    )


def _id_lists(options: argparse.Namespace, splits: Sequence[str]) -> dict[str, Path]:
    """The file of annotation ids by split; none of a subset that needs none."""
    template = options.annotation_ids
    if options.subset not in reader.ID_LIST_SUBSETS:
        if template is not None:
            raise DataError(
                f"--annotation_ids is given, but subset {options.subset!r} takes no list of ids: "
                f"name one of {', '.join(reader.ID_LIST_SUBSETS)} with --subset."
            )
        return {}
    if template is None:
        raise DataError(
            f"Subset {options.subset!r} is a list of annotation ids that you supply: "
            f"--annotation_ids='…/aid_{options.subset}_{{split}}.txt', one id a line."
        )
    if len(splits) > 1 and "{split}" not in template:
        raise DataError(
            f"--annotation_ids={template} is one list for {', '.join(splits)}: ids are those of "
            "one split. Put {split} where the files' names differ, or name one split with --splits."
        )
    return {split: Path(template.replace("{split}", split)) for split in splits}


def _annotation_ids(path: Path) -> np.ndarray:
    try:
        return np.array(path.read_text().split(), dtype=np.int64)
    except FileNotFoundError:
        raise DataError(
            f"{path}, given by --annotation_ids, is missing. If this split has no list (the "
            "dataset's val has no human annotations), name the other splits with --splits."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not a list of annotation ids, one a line ({error}).") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.build",
        description="Builds a dataset as it is published into TFDS shards.",
    )
    datasets = parser.add_subparsers(
        required=True, metavar="dataset", help="its options: dataset --help"
    )
    interhand = datasets.add_parser(reader.NAME, help="InterHand2.6M v1.0")
    interhand.set_defaults(make_request=interhand26m_request)
    interhand.add_argument("--subset", choices=reader.SUBSETS, default="all")
    interhand.add_argument(
        "--annotation_ids",
        metavar="PATH",
        help="list of ids of human_annot or machine_annot; {split} stands for the split's name",
    )
    interhand.add_argument(
        "--boxes",
        choices=("auto", "joints", "rootnet"),
        default="auto",
        help="auto: RootNet's for val and test where its file is there, the joints' for train",
    )
    interhand.add_argument(
        "--splits", type=_splits, help="train,val,test; default: those that are there"
    )
    interhand.add_argument(
        "--fps",
        type=int,
        choices=(5, 30),
        default=5,
        help="which of the two releases it is; the dataset of 30 is named SUBSET_30fps",
    )
    _add_common(interhand)
    hands_in_action = datasets.add_parser(hic.NAME, help="HIC")
    hands_in_action.set_defaults(make_request=hic_request)
    hands_in_action.add_argument("--subset", choices=hic.SUBSETS, default="all")
    _add_common(hands_in_action)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--raw_dir", type=Path, required=True, help="the dataset as it is published")
    add("--data_dir", type=Path, required=True, help="where TFDS datasets lie")
    add("--workers", type=at_least(1), default=os.cpu_count(), help="processes that write records")
    add("--max_bad_images", type=at_least(0), default=0, help="unreadable images left out, at most")
    add("--overwrite", action="store_true", help="replace a dataset built from other files")


def _splits(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if not set(names) <= {*reader.SPLITS} or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not some of {','.join(reader.SPLITS)}, each once"
        )
    return tuple(split for split in reader.SPLITS if split in names)


if __name__ == "__main__":
    sys.exit(main())
