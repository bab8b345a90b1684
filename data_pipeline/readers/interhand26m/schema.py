"""The entries of InterHand2.6M's annotation files, and how they are decoded and checked.

The types found in the published files vary: validity is a boolean or a number, flat or one list a
joint; keys and ids are numbers or strings of them. The readers take whatever
`numpy.array(value, float32).reshape(…)` takes, as the dataset's own loader does, as long as the
numbers are finite and keep their order.
"""

import itertools
import math
import mmap
import operator
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from er_jax.utils.errors import DataError

JOINTS = 42  # of both hands, in the dataset's own order: right 0-20, left 21-41

T = TypeVar("T")


class ImageEntry(msgspec.Struct, gc=False):
    """One of `images[]`."""

    id: Any
    file_name: str
    width: Any
    height: Any
    capture: Any
    subject: Any
    seq_name: Any
    camera: Any
    frame_idx: Any


class AnnotationEntry(msgspec.Struct, gc=False):
    """One of `annotations[]`."""

    id: Any
    image_id: Any
    joint_valid: Any
    hand_type: str
    hand_type_valid: Any


class DataFile(msgspec.Struct, gc=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


class CameraEntry(msgspec.Struct):
    """The cameras of a capture: camera name to numbers."""

    campos: dict[str, Any]
    camrot: dict[str, Any]
    focal: dict[str, Any]
    princpt: dict[str, Any]


class FrameEntry(msgspec.Struct, gc=False):
    """The joints of a frame, in the world's axes."""

    world_coord: Any
    joint_valid: Any


class ManoEntry(msgspec.Struct, gc=False):
    pose: Any
    shape: Any
    trans: Any


class ManoFrameEntry(msgspec.Struct, gc=False):
    right: ManoEntry | None = None
    left: ManoEntry | None = None


class RootnetEntry(msgspec.Struct, gc=False):
    annot_id: Any
    bbox: Any
    abs_depth: Any


def key_text(value: Any) -> str:
    """A capture, frame or camera as text, the same whether it was written 7, "7" or "07"."""
    try:
        return str(int(value))
    except (TypeError, ValueError):
        return str(value)


def whole_number(path: Path, place: str, value: Any) -> int:
    """An id or a size: an integer, or a float or a string that is one."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (isinstance(value, float) and number != value):
        raise wrong(path, f"{place} is {value!r:.40} instead of a whole number")
    return number


def flags(path: Path, place: str, value: Any, count: int) -> np.ndarray:
    """Booleans, (count,): of booleans or numbers, flat or nested; what is not zero holds."""
    return shaped(path, place, value, (count,)) != 0


def shaped(path: Path, place: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Finite numbers as float64 of a shape.

    A flat list will do, as will more or fewer brackets, but not another order: a list of three
    lists of 42 numbers is no (42, 3).
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise wrong(
            path, f"{place} is ragged or has text in it instead of being numbers of shape {shape}"
        ) from None
    if array.shape != shape:
        if not _same_order(array.shape, shape):
            raise wrong(path, f"{place} is of shape {array.shape} instead of {shape}")
        array = array.reshape(shape)
    if not np.isfinite(array).all():
        raise wrong(path, f"{place} has values that are null or not finite")
    return array


def _same_order(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Returns whether one shape only cuts the other's axes into pieces."""
    found_strides, wanted_strides = (
        set(itertools.accumulate(reversed(shape), operator.mul, initial=1))
        for shape in (found, wanted)
    )
    return math.prod(found) == math.prod(wanted) and (
        found_strides <= wanted_strides or found_strides >= wanted_strides
    )


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
        raise _no_json(path, str(error), data) from None


def _no_json(path: Path, error: str, data: Any) -> DataError:
    found = re.search(r"byte (\d+)", error)
    if not found:
        return DataError(
            f"{path}: no valid JSON ({error}). The file was probably cut short: compare its size "
            "with the original's and download it again."
        )
    byte = int(found[1])
    near = bytes(data[max(byte - 60, 0) : byte + 20]).decode(errors="replace")
    return DataError(
        f"{path}: no valid JSON ({error}), near {near!r}. JSON has no NaN or Infinity, and the "
        "published file has none: take the original, or mend whatever wrote this one."
    )


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
