"""The entries of InterHand2.6M's annotation files, and how they are decoded and checked."""

import mmap
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from data_pipeline.errors import DataError

JOINTS = 42  # of both hands, in the dataset's own order: right 0-20, left 21-41

Number = int | float
T = TypeVar("T")


class ImageEntry(msgspec.Struct, gc=False):
    """One of `images[]`."""

    id: int
    file_name: str
    width: int
    height: int
    capture: int | str
    subject: int | str
    seq_name: int | str
    camera: int | str
    frame_idx: int | str


class AnnotationEntry(msgspec.Struct, gc=False):
    """One of `annotations[]`."""

    id: int
    image_id: int
    joint_valid: list[Number | list[Number]]
    hand_type: Literal["right", "left", "interacting"]
    hand_type_valid: Number | bool


class DataFile(msgspec.Struct, gc=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


class CameraEntry(msgspec.Struct):
    """The cameras of a capture: camera name to numbers."""

    campos: dict[str, list[float]]
    camrot: dict[str, list[list[float]]]
    focal: dict[str, list[float]]
    princpt: dict[str, list[float]]


class FrameEntry(msgspec.Struct, gc=False):
    """The joints of a frame, in the world's axes."""

    world_coord: list[list[float]]
    joint_valid: list[Number | list[Number]]


class ManoEntry(msgspec.Struct, gc=False):
    pose: list[float]
    shape: list[float]
    trans: list[float]


class ManoFrameEntry(msgspec.Struct, gc=False):
    right: ManoEntry | None = None
    left: ManoEntry | None = None


class RootnetEntry(msgspec.Struct, gc=False):
    annot_id: int
    bbox: list[float]
    abs_depth: list[float]


def validity(path: Path, place: str, values: list[Any]) -> np.ndarray:
    flags = [bool(v[0]) if isinstance(v, list) else bool(v) for v in values]
    if len(flags) != JOINTS:
        raise wrong(path, f"{place} has {len(flags)} values instead of {JOINTS}")
    return np.array(flags)


def shaped(path: Path, place: str, values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except ValueError:
        raise wrong(path, f"{place} is ragged instead of of shape {shape}") from None
    if array.shape != shape:
        raise wrong(path, f"{place} is of shape {array.shape} instead of {shape}")
    return array


def wrong(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: {reason}. This reader knows InterHand2.6M v1.0; if the file is of another "
        "version, or edited, take the original of v1.0."
    )


def decode(path: Path, decoder: msgspec.json.Decoder[T], data: Any, place: str = "") -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise wrong(path, f"{error}" + (f", in {place}" if place else "")) from None
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path}: no valid JSON ({error}). The file was probably cut short: compare its size "
            "with the original's and download it again."
        ) from None


def mapped(path: Path) -> mmap.mmap | bytes:
    """The file's bytes, mapped into memory: the kernel may drop its pages again."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Lay the dataset out as it is published, images/ and annotations/ "
            "under the folder given by --raw_dir."
        ) from None
