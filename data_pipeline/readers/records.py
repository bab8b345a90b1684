"""Own data: a JSON-lines file, an image a line, with whatever is known of its hands.

`docs/own_data.md` documents the format and goes from twenty images to a trained network.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from PIL import ExifTags, Image

from data_pipeline.build.labels import (
    Camera,
    HandLabels,
    ImageLabels,
    ManoFit,
    checked,
    fields_of,
    table_of,
)
from data_pipeline.build.request import BuildRequest, SplitTable
from er_jax.mano.conventions import JOINT_ORDERS
from er_jax.mano.joints import HAND21, HANDS, joint_order
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import DataError
from er_jax.utils.progress import Tracker

HELP = "own data: a JSON-lines file, an image a line"
NAME = "records"
SPLITS = ("train", "val", "test")
_FITS_AT_ONCE = 256
_SHOWN = 20


class ManoEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """MANO's parameters: axis-angles, the wrist's first; metres."""

    pose: list[float]
    betas: list[float]
    translation_m: list[float]
    mean_pose_included: bool = False


class HandEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of a hand; a joint that is not known is null."""

    joints_m: list[list[float] | None] | None = None
    joints_px: list[list[float] | None] | None = None
    seen: list[bool] | None = None
    mano: ManoEntry | None = None
    vertices_m: list[list[float]] | None = None
    confidence: float | None = None


class CameraEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A pinhole camera; where `rotation` or `translation_m` is given, joints and fits are in the
    world's axes, and in the camera's otherwise."""

    focal_px: list[float]
    princpt_px: list[float]
    rotation: list[list[float]] | None = None
    translation_m: list[float] | None = None


class Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A line of the file."""

    image: str
    right: HandEntry | None = None
    left: HandEntry | None = None
    hand_type: Literal["right", "left", "interacting", "unknown"] | None = None
    joint_order: str | list[str] = "er_jax"
    camera: CameraEntry | None = None
    box_px: list[float] | None = None
    split: Literal["train", "val", "test"] | None = None
    capture: str | None = None
    subject: str | None = None
    sequence: str | None = None
    camera_name: str | None = None
    frame: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, and what is not in it."""
    add = parser.add_argument
    add("--annotations", type=Path, required=True, help="the JSON-lines file")
    add("--raw_dir", type=Path, help="folder that the images' names begin in; default: the file's")
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of all readers of this format."""
    add = parser.add_argument
    add("--name", default="all", help="of the dataset, which is then the command's/NAME (all)")
    add(
        "--val_every",
        type=at_least(0),
        default=0,
        metavar="N",
        help="of the lines that name no split, every Nth is of val, the others of train (0: none)",
    )
    add(
        "--mano_dir",
        help="MANO's files, for hands that have MANO's parameters without joints (stand_in: the "
        "stand-in hand)",
    )


def make_request(options: argparse.Namespace) -> BuildRequest:
    """Returns the request that the command's options make."""
    return request_of(
        options.annotations,
        options.raw_dir or options.annotations.parent,
        dataset=NAME,
        name=options.name,
        description=f"own data by {options.annotations.name}",
        val_every=options.val_every,
        mano_dir=options.mano_dir,
    )


def request_of(
    path: Path,
    image_dir: Path,
    *,
    dataset: str,
    name: str,
    description: str,
    val_every: int,
    mano_dir: str | None,
) -> BuildRequest:
    """The request for what a file in this format describes.

    Raises:
      DataError: the file is missing or not in the format, with its line; or an image is missing.
    """
    entries = read_lines(path)
    model = _hand_model(path, entries, mano_dir)
    images = _with_joints_of_fits(list(_labels_of(path, image_dir, entries, model)), model)
    by_split: dict[str, list[ImageLabels]] = {split: [] for split in SPLITS}
    unnamed = 0
    for (_, entry), image in zip(entries, images, strict=True):
        split = entry.split
        if split is None:
            unnamed += 1
            split = "val" if val_every and unnamed % val_every == 0 else "train"
        by_split[split].append(image)
    fields = fields_of(images)

    def read_split(split: str, track: Tracker) -> SplitTable:
        track(f"{split}: images", len(by_split[split]), len(by_split[split]))
        return table_of(by_split[split], image_dir, fields)

    return BuildRequest(
        dataset=dataset,
        config=name,
        description=description,
        splits=[split for split in SPLITS if by_split[split]],
        options={"val_every": val_every, "hand_model": model and model.sha256},
        source_files={path.name: path},
        read_split=read_split,
        fields=fields,
    )


def read_lines(path: Path) -> list[tuple[int, Line]]:
    """The lines of a file and their numbers, from 1; empty ones left out.

    Raises:
      DataError: see `request_of`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    decoder = msgspec.json.Decoder(Line)
    lines = []
    for number, text in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines.append((number, decoder.decode(text)))
        except msgspec.ValidationError as error:
            raise DataError(
                f"{path}, line {number}: {error}. docs/own_data.md has a table of all keys."
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}, line {number}: no valid JSON ({error}). Each line is one object; a list "
                "of all images is not."
            ) from None
    if not lines:
        raise DataError(f"{path}: it has no line.")
    return lines


def _labels_of(
    path: Path, image_dir: Path, lines: Sequence[tuple[int, Line]], model: Any
) -> Iterator[ImageLabels]:
    unreadable = []
    for number, line in lines:
        where = f"{path}, line {number}"
        if line.right is None and line.left is None:
            raise DataError(f"{where}: nothing is said of any hand: give `right`, `left` or both.")
        try:
            size_px = _upright_size(image_dir / line.image)
        except ValueError as error:
            unreadable.append(f"line {number}: {image_dir / line.image}: {error}")
            size_px = (0, 0)
        if not unreadable:
            yield _image_labels(where, number, line, size_px, model)
    if unreadable:
        shown = "\n  ".join(unreadable[:_SHOWN])
        more = f"\n  and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
        raise DataError(
            f"{path}: {len(unreadable)} images cannot be used:\n  {shown}{more}\n"
            "Names are relative to --raw_dir, which is the file's own folder if not given. Restore "
            "the images, or take their lines out."
        )


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height by the file's header; it must be upright without EXIF's help."""
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            size = image.size
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"no readable image ({error})") from None
    if orientation not in (0, 1):
        raise ValueError(
            f"its EXIF data turn it (orientation {orientation}), so that pixels mean two things: "
            "save it upright"
        )
    return size


def _image_labels(
    where: str, number: int, line: Line, size_px: tuple[int, int], model: Any
) -> ImageLabels:
    order = _joint_order(where, line.joint_order)
    given = [side for side in HANDS if getattr(line, side) is not None]
    there = line.hand_type or (given[0] if len(given) == 1 else "interacting")
    if there in HANDS and given != [there]:
        raise DataError(
            f"{where}: hand_type is {there}, but it says something of the {' and the '.join(given)}"
            " hand."
        )
    camera = None
    if line.camera is not None:
        camera = Camera(
            focal_px=np.array(line.camera.focal_px),
            princpt_px=np.array(line.camera.princpt_px),
            rotation=_array(where, "camera.rotation", line.camera.rotation),
            translation_m=_array(where, "camera.translation_m", line.camera.translation_m),
        )
    right, left = (
        None if hand is None else _hand_labels(f"{where}: {side}", hand, side, order, model)
        for side, hand in zip(HANDS, (line.right, line.left), strict=True)
    )
    return ImageLabels(
        file_name=line.image,
        annotation_id=number,
        size_px=size_px,
        right=right,
        left=left,
        hands_there=None if there == "unknown" else there,
        camera=camera,
        box_px=_array(where, "box_px", line.box_px),
        capture=line.capture,
        subject=line.subject,
        seq_name=line.sequence,
        camera_name=line.camera_name,
        frame_idx=line.frame,
        where=where,
    )


def _joint_order(where: str, given: str | list[str]) -> np.ndarray:
    if isinstance(given, str):
        if given not in JOINT_ORDERS:
            raise DataError(
                f"{where}: joint_order {given!r} is not known: name one of "
                f"{', '.join(JOINT_ORDERS)}, or list the names of the 21 joints."
            )
        given = list(JOINT_ORDERS[given])
    try:
        return joint_order(given, HAND21)
    except ValueError as error:
        raise DataError(f"{where}: joint_order: {error}; the names are {HAND21}.") from None


def _hand_labels(
    where: str, hand: HandEntry, side: str, order: np.ndarray, model: Any
) -> HandLabels:
    if all(x is None for x in (hand.joints_m, hand.joints_px, hand.mano, hand.vertices_m)):
        raise DataError(
            f"{where}: nothing is known of this hand: give joints_m, joints_px, mano or vertices_m."
        )
    return HandLabels(
        joints_m=_joints(where, "joints_m", hand.joints_m, 3, order),
        joints_px=_joints(where, "joints_px", hand.joints_px, 2, order),
        seen=None if hand.seen is None else _seen(where, hand.seen, order),
        mano=None if hand.mano is None else _mano_fit(where, hand.mano, side, model),
        vertices_m=_array(where, "vertices_m", hand.vertices_m),
        confidence=hand.confidence,
    )


def _joints(
    where: str, key: str, given: list[list[float] | None] | None, size: int, order: np.ndarray
) -> np.ndarray | None:
    if given is None:
        return None
    absent = [np.nan] * size
    joints = _array(where, key, [absent if joint is None else joint for joint in given])
    if joints.shape != (len(order), size):
        raise DataError(
            f"{where}: {key} has the shape {joints.shape}, not {(len(order), size)}: give all 21 "
            "joints, null for one that is not known."
        )
    return joints[order]


def _seen(where: str, given: list[bool], order: np.ndarray) -> np.ndarray:
    if len(given) != len(order):
        raise DataError(f"{where}: seen has {len(given)} values, not {len(order)}.")
    return np.array(given, bool)[order]


def _array(where: str, key: str, given: Any) -> Any:
    if given is None:
        return None
    try:
        return np.array(given, np.float64)
    except ValueError:
        raise DataError(f"{where}: {key}: its rows are not of one length.") from None


def _hand_model(path: Path, lines: Sequence[tuple[int, Line]], mano_dir: str | None) -> Any:
    """The hand model, where a line cannot be understood without it.

    Raises:
      DataError: there is such a line, and no `mano_dir`.
    """
    wanting = [
        number
        for number, line in lines
        for hand in (line.right, line.left)
        if hand is not None and hand.mano is not None and _needs_model(hand, hand.mano)
    ]
    if not wanting:
        return None
    if mano_dir is None:
        raise DataError(
            f"{path}, line {wanting[0]}: hands have MANO's parameters and no joints, or the mean "
            f"pose in them ({len(wanting)} in all), for which the hand model is needed: give its "
            "folder by --mano_dir=MANO; for the stand-in hand, --mano_dir=stand_in."
        )
    from er_jax.mano import load_hands  # and JAX, which not every file needs

    return load_hands(None if mano_dir == "stand_in" else mano_dir)


def _needs_model(hand: HandEntry, fit: ManoEntry) -> bool:
    return fit.mean_pose_included or _joints_are_the_fits(hand)


def _joints_are_the_fits(hand: HandEntry | HandLabels) -> bool:
    return hand.mano is not None and hand.joints_m is None and hand.vertices_m is None


def _mano_fit(where: str, fit: ManoEntry, side: str, model: Any) -> ManoFit:
    pose = np.array(fit.pose, np.float64)
    if fit.mean_pose_included:
        if pose.shape != (48,):
            raise DataError(f"{where}: mano.pose has {len(pose)} numbers, not 48.")
        pose[3:] -= np.asarray(model.mean_pose[HANDS.index(side)], np.float64)
    return ManoFit(pose=pose, betas=np.array(fit.betas), translation_m=np.array(fit.translation_m))


def _with_joints_of_fits(images: Sequence[ImageLabels], model: Any) -> list[ImageLabels]:
    """The images, with joints of hands that have MANO's parameters alone."""
    images = list(images)
    if model is None:
        return images
    from er_jax.mano import joints_from_vertices, mano_forward

    wanting = [
        (row, index, hand.mano)
        for row, image in enumerate(images)
        for index, hand in image.hands
        if hand.mano is not None and _joints_are_the_fits(hand)
    ]
    for start in range(0, len(wanting), _FITS_AT_ONCE):
        part = wanting[start : start + _FITS_AT_ONCE]
        pose, betas, translation = (
            np.zeros((_FITS_AT_ONCE, 2, size), np.float32) for size in (48, 10, 3)
        )
        for place, (row, index, fit) in enumerate(part):
            where = images[row].where
            pose[place, index] = checked(where, "MANO pose", fit.pose, (48,))
            betas[place, index] = checked(where, "MANO betas", fit.betas, (10,))
            translation[place, index] = checked(where, "MANO translation", fit.translation_m, (3,))
        vertices = mano_forward(model, betas, pose, translation).vertices
        joints = np.asarray(joints_from_vertices(model, vertices), np.float64)
        for place, (row, index, _) in enumerate(part):
            side = HANDS[index]
            hand = dataclasses.replace(getattr(images[row], side), joints_m=joints[place, index])
            images[row] = dataclasses.replace(images[row], **{side: hand})
    return images
