"""InterHand2.6M v1.0: its options, the schema of its files, their columns, and the rules."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.build.request import BuildRequest
from data_pipeline.readers.interhand26m import reader
from data_pipeline.readers.interhand26m.downloaded import ImagesOnDisk, in_order
from data_pipeline.readers.interhand26m.schema import key_text
from er_jax.utils.errors import DataError

if TYPE_CHECKING:  # which imports JAX
    from er_jax.mano import HandModel

HELP = "InterHand2.6M v1.0"
STAND_IN = "stand_in"
"""For `--mano_dir`: the project's own stand-in hand, which the drawn dataset's fits are of."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds subset, boxes, splits and frame rate."""
    parser.add_argument("--subset", choices=reader.SUBSETS, default="all")
    parser.add_argument(
        "--annotation_ids",
        metavar="PATH",
        help="list of ids of human_annot or machine_annot; {split} stands for the split's name",
    )
    parser.add_argument(
        "--boxes",
        choices=("auto", "joints", "rootnet"),
        default="auto",
        help="auto: RootNet's for val and test where its file is there, the joints' for train",
    )
    parser.add_argument(
        "--splits", type=_splits, help="train,val,test; default: those that are there"
    )
    parser.add_argument(
        "--fps",
        type=int,
        choices=(5, 30),
        default=5,
        help="which of the two releases it is; the dataset of 30 is named SUBSET_30fps",
    )
    parser.add_argument(
        "--squashed",
        choices=("drop", "mend"),
        default="drop",
        help="images of another shape than their camera is calibrated for: drop, or mend it",
    )
    parser.add_argument(
        "--captures",
        type=_captures,
        metavar="0,1",
        help="only these, as annotations/*/*_camera.json names them",
    )
    parser.add_argument(
        "--existing_only", action="store_true", help="only images that are downloaded"
    )
    parser.add_argument(
        "--mano_dir",
        help="MANO's files, to compare fits with joints; stand_in: the stand-in hand's",
    )
    parser.add_argument(
        "--max_fit_error_mm",
        type=_positive,
        metavar="MM",
        help="drops records with a fit that is farther off its joints, on average",
    )


def make_request(options: argparse.Namespace) -> BuildRequest:
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
    hands, identity = _hands(options)
    if options.captures is not None:
        _check_captures(raw_dir, splits, options.captures)
    on_disk = {
        split: ImagesOnDisk(raw_dir / "images" / split, options.captures)
        for split in splits
        if options.existing_only
    }
    return BuildRequest(
        dataset=reader.NAME,
        config=options.subset if options.fps == 5 else f"{options.subset}_{options.fps}fps",
        description=(
            f"InterHand2.6M v1.0 (CC-BY-NC 4.0), {options.fps} fps, subset {options.subset}; "
            "https://mks0601.github.io/InterHand2.6M/"
        ),
        splits=splits,
        options={
            "boxes": options.boxes,
            "box_rule": reader.BOX_RULE,
            "squashed": options.squashed,
            "captures": options.captures,
            "existing_only": {split: images.identity() for split, images in on_disk.items()},
            "max_fit_error_mm": options.max_fit_error_mm,
            "fits_compared_with": identity,
        },
        source_files=sources,
        read_split=lambda split, track: reader.read_split(
            raw_dir,
            split,
            subset=options.subset,
            annotation_ids=ids.get(split),
            box_choice=options.boxes,
            squashed=options.squashed,
            captures=options.captures,
            on_disk=on_disk.get(split),
            hands=hands,
            max_fit_error_mm=options.max_fit_error_mm,
            progress=lambda what, done, total: track(f"{split}: {what}", done, total),
        ),
        fields=reader.RECORD_FIELDS,
    )


def _hands(options: argparse.Namespace) -> tuple["HandModel | None", str | None]:
    """The hands that fits are compared with, and their SHA-256."""
    if options.mano_dir is None:
        if options.max_fit_error_mm is not None:
            raise DataError(
                f"--max_fit_error_mm={options.max_fit_error_mm:g} needs the hand model that the "
                "fits were made with: add --mano_dir=MANO, the folder of MANO's files."
            )
        return None, None
    from er_jax.mano import load_hands  # takes seconds that others need not wait

    hands = load_hands(None if options.mano_dir == STAND_IN else options.mano_dir)
    return hands, hands.sha256


def _check_captures(raw_dir: Path, splits: Sequence[str], asked: Sequence[str]) -> None:
    """Makes sure that each capture is in a split, and each split has one of them."""
    there = {split: reader.captures_of(raw_dir, split) for split in splits}
    every = list(dict.fromkeys(capture for captures in there.values() for capture in captures))
    unknown = [capture for capture in asked if capture not in every]
    if unknown:
        raise DataError(
            f"--captures names {', '.join(unknown)}, which no split of {raw_dir} has: there are "
            f"{', '.join(every)}."
        )
    for split, captures in there.items():
        if not {*captures} & {*asked}:
            raise DataError(
                f"{split} has none of --captures={','.join(asked)}, only {', '.join(captures)}. "
                "Name one of these too, or the other splits with --splits."
            )


def _captures(text: str) -> list[str]:
    names = [key_text(name.strip()) for name in text.split(",")]
    if "" in names or len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not some captures, each once, such as 0,1")
    return sorted(names, key=in_order)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of millimetres above 0")
    return value


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


def _splits(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if not set(names) <= {*reader.SPLITS} or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not some of {','.join(reader.SPLITS)}, each once"
        )
    return tuple(split for split in reader.SPLITS if split in names)
