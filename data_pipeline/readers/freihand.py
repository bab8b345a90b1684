"""FreiHAND (Zimmermann et al. 2019): from the folder as it is published to records.

Its format, by its own code (github.com/lmb-freiburg/freihand):

- `training/rgb/%08d.jpg`: four pictures of each of the N entries of the annotation files, of entry
  i with background k at i + k·N (`utils/fh_utils.py`); `evaluation/rgb/%08d.jpg`: one picture each.
- `…_K.json`: 3×3 intrinsics. `…_xyz.json`: 21 joints, metres, camera axes, in the Hand 21 order
  (`plot_hand`). `…_verts.json`: 778 vertices, metres.
- `…_mano.json`: 61 numbers an entry, in a list of their own: pose 48 without the mean pose, shape
  10, pixel of the root 2, scale 1. The root is Middle_1 of their hand model
  (`er_jax.mano.freihand`); it lies at depth f / scale, where f is the mean of the two focal lengths
  (`utils/model.py`).
- The evaluation's `xyz`, `verts` and `mano` were published later, and may be absent.
"""

import argparse
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from data_pipeline.build.labels import (
    Camera,
    HandLabels,
    ImageLabels,
    ManoFit,
    table_of,
)
from data_pipeline.build.request import BuildRequest, SplitTable
from data_pipeline.records import REQUIRED_FIELDS
from er_jax.mano.joints import HAND21, MANO16, joint_order
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import DataError
from er_jax.utils.progress import Tracker

logger = logging.getLogger(__name__)

HELP = "FreiHAND: single right hands, four backgrounds each"
NAME = "freihand"
BACKGROUNDS = ("gs", "hom", "sample", "auto")
"""Green screen; three replacements of it, in the order of the files."""
SIZE_PX = (224, 224)
SHAPES: Mapping[str, tuple[int, ...]] = {
    "K": (3, 3),
    "xyz": (21, 3),
    "mano": (61,),
    "verts": (778, 3),
}
"""Of an entry of each annotation file."""
RECORD_FIELDS = (
    *REQUIRED_FIELDS,
    "seq_name",
    "focal_px",
    "princpt_px",
    "joint_world_mm",
    "joint_valid_world",
    "joint_valid_view",
    "mano_valid",
    "mano_pose",
    "mano_betas",
    "mano_trans_m",
)
VERTEX_FIELDS = ("mano_vertices_m", "mano_vertices_valid")
ROOT = MANO16.index("Middle_1")
FARTHEST_MM = 6.0
"""Fits whose joints are typically farther from the annotated ones are of another hand model."""
SAME_POSE = 4
"""Decimals by which the fingers and the shape of two entries are those of one moment."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the hand model, the backgrounds, the validation split and the box."""
    add = parser.add_argument
    add("--mano_dir", required=True, help="MANO's files; stand_in: the stand-in hand")
    add(
        "--backgrounds",
        default=",".join(BACKGROUNDS),
        help=f"which of {', '.join(BACKGROUNDS)} to take, with commas between them (all)",
    )
    add(
        "--val_every",
        type=at_least(0),
        default=40,
        metavar="N",
        help="every Nth moment of the training set is of val, with all its views and backgrounds "
        "(40; 0: none)",
    )
    add(
        "--box",
        choices=("image", "joints"),
        default="image",
        help="the whole image, which is a crop around the hand (image); or around the joints",
    )


def make_request(options: argparse.Namespace) -> BuildRequest:
    """Returns the request that the command's options make."""
    from er_jax.mano import hand_model_identity, load_hands  # and JAX, which no other reader needs

    backgrounds = _backgrounds(options.backgrounds)
    hands = load_hands(None if options.mano_dir == "stand_in" else options.mano_dir)
    reader = _Folder(
        options.raw_dir, hands.hand("right"), backgrounds, options.val_every, options.box == "image"
    )
    splits = reader.splits()
    folders = ["training"] * ("train" in splits) + ["evaluation"] * ("test" in splits)
    files = [reader.path(folder, key) for folder in folders for key in reader.keys(folder)]
    return BuildRequest(
        dataset=NAME,
        config="all" if backgrounds == BACKGROUNDS else "-".join(backgrounds),
        description="FreiHAND (Zimmermann et al. 2019); "
        "https://lmb.informatik.uni-freiburg.de/projects/freihand/",
        splits=splits,
        options={
            "backgrounds": list(backgrounds),
            "val_every": options.val_every,
            "box": options.box,
            **hand_model_identity(hands),
        },
        source_files={path.name: path for path in files},
        read_split=reader.read_split,
        fields=reader.fields,
    )


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The dataset's folder, and how it is to be read.

    Attributes:
      raw_dir: holds `training`, `evaluation` and the annotation files.
      hand: the right hand's model.
      backgrounds: of the training pictures.
      val_every: see `add_arguments`.
      whole_image: whether the box is the image.
    """

    raw_dir: Path
    hand: Any
    backgrounds: tuple[str, ...]
    val_every: int
    whole_image: bool

    def path(self, folder: str, key: str) -> Path:
        return self.raw_dir / f"{folder}_{key}.json"

    def keys(self, folder: str) -> tuple[str, ...]:
        """The annotation files that a split is made of; of the evaluation what there is of them."""
        if folder == "training":
            return ("K", "xyz", "mano")
        there = [key for key in SHAPES if self.path(folder, key).exists()]
        return tuple(key for key in there if key != "verts" or "mano" not in there)

    @property
    def fields(self) -> tuple[str, ...]:
        """Of its records: vertices too where the evaluation has no parameters."""
        vertices = VERTEX_FIELDS if "verts" in self.keys("evaluation") else ()
        return (*RECORD_FIELDS, *vertices)

    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has.

        Raises:
          DataError: it has none.
        """
        training = self.path("training", "K").exists()
        evaluation = self.path("evaluation", "K").exists()
        if not training and not evaluation:
            raise DataError(
                f"{self.raw_dir} has neither training_K.json nor evaluation_K.json. --raw_dir is "
                "the folder that FreiHAND_pub_v2.zip was unpacked into."
            )
        if not training:
            logger.warning("%s has no training_K.json: only the test split is built", self.raw_dir)
        if not evaluation:
            logger.warning("%s has no evaluation_K.json: no test split is built", self.raw_dir)
        train = ("train", "val") if self.val_every else ("train",)
        return (*(train if training else ()), *(("test",) if evaluation else ()))

    def read_split(self, split: str, progress: Tracker) -> SplitTable:
        """The records of a split.

        Raises:
          DataError: a file is missing, cut short or not as described.
        """
        folder = "evaluation" if split == "test" else "training"
        keys = self.keys(folder)
        found = {}
        for done, key in enumerate(keys):
            found[key] = read_entries(self.path(folder, key), SHAPES[key])
            progress(f"{split}: annotation files", done + 1, len(keys))
        for key, entries in found.items():
            if len(entries) != len(found["K"]):
                raise DataError(
                    f"{self.path(folder, key)} has {len(entries)} entries and {folder}_K.json "
                    f"{len(found['K'])}. Take all files from one release, whole."
                )
        entries = np.arange(len(found["K"]))
        if split == "test":
            backgrounds = {"evaluation": 0}
        else:
            backgrounds = {b: BACKGROUNDS.index(b) * len(entries) for b in self.backgrounds}
            if self.val_every:
                entries = entries[_of_val(found["mano"], self.val_every) == (split == "val")]
            if not entries.size:
                raise DataError(
                    f"{self.raw_dir}: no entry is left for {split} with --val_every="
                    f"{self.val_every}. Give another number, or 0 for no validation split."
                )
        for name, first in backgrounds.items():
            self._check_images(folder, name, first, len(found["K"]))
        notes: list[str] = []
        hands = list(self._hands(folder, found, notes))
        cameras = [
            Camera(focal_px=k[[0, 1], [0, 1]].copy(), princpt_px=k[:2, 2].copy())
            for k in found["K"]
        ]
        known = len(keys) > 1
        box = np.array([0, 0, *SIZE_PX]) if self.whole_image or not known else None
        images = [
            ImageLabels(
                file_name=_file_name(folder, first + entry),
                annotation_id=int(first + entry),
                size_px=SIZE_PX,
                right=hands[entry],
                hands_there="right",
                camera=cameras[entry],
                box_px=box,
                seq_name=name,
                where=f"{self.raw_dir / folder}_*.json, entry {entry}",
            )
            for name, first in backgrounds.items()
            for entry in entries.tolist()
        ]
        part = None
        if split != "test" and self.backgrounds != BACKGROUNDS:
            part = f"backgrounds {', '.join(self.backgrounds)} of {', '.join(BACKGROUNDS)}"
        if not known:
            notes.append(
                "no annotation but K is there: it can be predicted on, not evaluated. "
                "FreiHAND_pub_v2_eval.zip holds the others"
            )
        table = table_of(images, self.raw_dir, self.fields)
        return dataclasses.replace(table, notes=notes, part=part)

    def _check_images(self, folder: str, name: str, first: int, count: int) -> None:
        for number in (first, first + count - 1):
            path = self.raw_dir / _file_name(folder, number)
            if not path.exists():
                remedy = "Unpack all of the archive"
                if folder == "training":
                    remedy += ", or name by --backgrounds those that are there"
                raise DataError(
                    f"{path} is missing, of {count} pictures of {name!r} from "
                    f"{_file_name(folder, first)} on. {remedy}."
                )

    def _hands(
        self, folder: str, found: Mapping[str, np.ndarray], notes: list[str]
    ) -> Iterator[HandLabels]:
        """What is known of the hand of each entry; a note says how far its sources are apart."""
        fits: Sequence[ManoFit | None] = [None] * len(found["K"])
        if "mano" in found:
            fits = self._fits(folder, found["mano"], found["K"], found.get("xyz"), notes)
        for entry, fit in enumerate(fits):
            yield HandLabels(
                joints_m=found["xyz"][entry] if "xyz" in found else None,
                mano=fit,
                vertices_m=found["verts"][entry] if "verts" in found else None,
            )

    def _fits(
        self,
        folder: str,
        mano: Float[np.ndarray, "N 61"],
        intrinsics: Float[np.ndarray, "N 3 3"],
        joints: Float[np.ndarray, "N 21 3"] | None,
        notes: list[str],
    ) -> list[ManoFit]:
        """MANO's parameters, with the translation that brings the root where it is said to be.

        Raises:
          DataError: the fits' joints are far from the annotated ones.
        """
        from er_jax.mano.freihand import freihand_bones

        pose, betas, pixel, scale = np.split(mano, [48, 58, 60], axis=-1)
        if (scale <= 0).any():
            raise DataError(
                f"{self.path(folder, 'mano')}: entry {int(np.argmin(scale))} has the scale "
                f"{scale.min():g}, its 61st number, which is not positive. Take the original file."
            )
        focal = (intrinsics[:, 0, 0] + intrinsics[:, 1, 1])[:, None] / 2
        root = np.concatenate([pixel - intrinsics[:, :2, 2], focal], axis=-1) / scale
        bones = freihand_bones(self.hand, betas, pose)
        translation = root - bones[:, ROOT]
        if joints is not None:
            annotated = joints[:, joint_order(HAND21, MANO16)]
            off = np.linalg.norm(bones + translation[:, None] - annotated, axis=-1)
            typical = 1000 * float(np.median(off.mean(axis=-1)))
            if not typical <= FARTHEST_MM:
                raise DataError(
                    f"{self.path(folder, 'mano')}: the joints of its hands are typically "
                    f"{typical:.0f} mm from those of {folder}_xyz.json. --mano_dir must hold the "
                    "MANO files that FreiHAND was made with (v1.2), and both files be of one "
                    "release (FreiHAND_pub_v2)."
                )
            notes.append(
                f"joints of the MANO parameters are {typical:.2f} mm (median of hands) from "
                f"{folder}_xyz.json"
            )
        return [
            ManoFit(pose=one, betas=shape, translation_m=place)
            for one, shape, place in zip(pose, betas, translation, strict=True)
        ]


def read_entries(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "N ..."]:
    """The entries of an annotation file; one at a time is parsed, so that memory stays modest.

    Raises:
      DataError: the file is missing or cut short, or an entry is not of this shape.
    """
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). --raw_dir is the folder that "
            "FreiHAND_pub_v2.zip was unpacked into."
        ) from None
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path}: no valid list in JSON ({error}). The file was probably cut short: unpack it "
            "again."
        ) from None
    table = np.empty((len(entries), *shape))
    size = int(np.prod(shape))
    for number, entry in enumerate(entries):
        try:
            values = np.asarray(msgspec.json.decode(entry), np.float64)
        except (ValueError, TypeError):
            values = np.empty(0)
        if values.size != size:
            raise DataError(
                f"{path}: entry {number} has {values.size or 'no regular list of'} numbers "
                f"instead of {'×'.join(map(str, shape))}. Take the original file."
            )
        if not np.isfinite(values).all():
            raise DataError(f"{path}: entry {number} has a value that is no number.")
        table[number] = values.reshape(shape)
    return table


def _of_val(mano: Float[np.ndarray, "N 61"], every: int) -> Bool[np.ndarray, "N"]:
    """Which entries are of the validation split: every so manieth moment, in order of appearance.

    Entries of one moment, which are views of it, have one shape and the same turns of the fingers.
    """
    keys = np.round(mano[:, 3:58], SAME_POSE) + 0.0  # of -0.0 and 0.0 one
    _, first, moment = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))
    return place[moment.reshape(-1)] % every == every - 1


def _backgrounds(text: str) -> tuple[str, ...]:
    named = [name.strip() for name in text.split(",")]
    unknown = [name for name in named if name not in BACKGROUNDS]
    if unknown:
        raise DataError(
            f"--backgrounds={text}: {unknown[0]!r} is none of {', '.join(BACKGROUNDS)}."
        )
    return tuple(name for name in BACKGROUNDS if name in named)


def _file_name(folder: str, number: int) -> str:
    return f"{folder}/rgb/{number:08d}.jpg"
