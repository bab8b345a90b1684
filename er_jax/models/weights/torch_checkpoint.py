"""Reads tensors from PyTorch checkpoints without PyTorch, and without running what they contain.

Both of PyTorch's layouts are read: the zip archive (since 1.6) and the sequence of pickles before
it, which many published weights still use.
"""

import functools
import io
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from er_jax.utils.errors import DataError
from er_jax.utils.safe_pickle import Record, RefusedPickleError, read_pickle, records

KINDS = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
TYPES = ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "i2", "i1", "u1", "?"]
DTYPES = {f"torch.{k}Storage": np.dtype(t) for k, t in zip(KINDS, TYPES, strict=True)}
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = "torch._utils._rebuild_parameter"
NAMES: dict[str, type] = {
    "collections.OrderedDict": OrderedDict,
    **records([*DTYPES, *TENSORS, PARAMETER]),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class CheckpointError(DataError, ValueError):
    """A file cannot be read as a checkpoint of tensors."""


def read_torch_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a `.pth` file by name, from its top level or its "model" or "state_dict".

    Raises:
      CheckpointError: the file is no checkpoint, or asks for a name that is not allowed.
    """
    with Path(path).open("rb") as file:
        try:
            read = _read_archive if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            content, storages = read(file)
            for wrapper in ("state_dict", "model"):
                if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                    content = content[wrapper]
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}")
            return {name: _array(name, tensor, storages) for name, tensor in content.items()}
        except Exception as error:  # zipfile, zlib and struct raise a dozen types for a damaged one
            raise CheckpointError(
                f"{path}: cannot be read as a PyTorch checkpoint of a dictionary of tensors: "
                f"{error!s:.400}. Download it again if it is cut off, or save the model's "
                "state_dict alone, or as .safetensors"
            ) from error


def _read_archive(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Zip layout: one folder of data.pkl and data/KEY for each storage."""
    dtypes: dict[str, np.dtype] = {}
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("the archive has no single data.pkl")
        folder = names[0].removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        note = functools.partial(_note_storage, dtypes)
        content = read_pickle(io.BytesIO(archive.read(names[0])), NAMES, note)
        return content, {
            key: np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
            for key, dtype in dtypes.items()
        }


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Pickles of magic number, version, system, content and keys, then the storages in order."""
    dtypes: dict[str, np.dtype] = {}
    if read_pickle(file, NAMES) != LEGACY_MAGIC:
        raise ValueError("it does not start with PyTorch's magic number")
    read_pickle(file, NAMES)
    read_pickle(file, NAMES)
    content = read_pickle(file, NAMES, functools.partial(_note_storage, dtypes))
    storages = {}
    for key in read_pickle(file, NAMES):
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
        if len(storages[key]) != count:
            raise ValueError(f"storage {key} has {len(storages[key])} of {count} numbers")
    return content, storages


def _note_storage(dtypes: dict[str, np.dtype], identifier: Any) -> str:
    """The key of a storage that a pickle says to lie outside it; notes the type of its numbers."""
    match identifier:
        case ("storage", type() as kind, str() as key, *_) if issubclass(kind, Record):
            dtypes[key] = DTYPES[kind.name]
            return key
    raise RefusedPickleError("it asks for something outside it other than a storage: refused")


def _array(name: str, tensor: Any, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The tensor's numbers, after a check that they lie within its storage."""
    if isinstance(tensor, Record) and tensor.name == PARAMETER:
        tensor = tensor.arguments[0]
    match tensor:
        case Record(kind, (str() as key, offset, shape, strides, *_)) if kind in TENSORS:
            values = storages[key]
        case _:
            raise ValueError(f"{name:.80} is a {type(tensor).__name__}, not a tensor")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and (min(offset, *strides, 0) < 0 or last >= values.size):
        raise ValueError(f"{name} reaches beyond its numbers; the file is cut off")
    steps = tuple(stride * values.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
