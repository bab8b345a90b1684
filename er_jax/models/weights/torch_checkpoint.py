"""Reads tensors from PyTorch checkpoints without PyTorch, and without running what they contain.

A checkpoint is a pickle, and a pickle can call any function. The unpickler here knows the few
names that a dictionary of tensors needs, and refuses every other. Both of PyTorch's layouts are
read: the zip archive (since 1.6) and the sequence of pickles before it, which many published
weights still use.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGE_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
MALFORMED = (  # what reading a damaged pickle or archive can raise
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class CheckpointError(ValueError):
    """A file cannot be read as a checkpoint of tensors."""


class Tensor(NamedTuple):
    """A view of a storage, whose data may come after the pickle."""

    storage: str
    dtype: type
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Storage(NamedTuple):
    """What a pickle says of a storage."""

    dtype: type
    key: str


def read_torch_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a `.pth` file by name, from its top level or its "model" or "state_dict".

    Raises:
        CheckpointError: the file is no checkpoint, or asks for a name that is not allowed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            read = _read_archive if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            content, storages = read(file)
    except _Refused as error:
        raise CheckpointError(
            f"{path}: refuses to load {error}, which is no part of a dictionary of tensors; "
            "save the model's state_dict alone, or as .safetensors"
        ) from None
    except MALFORMED as error:
        raise CheckpointError(f"{path} is no PyTorch checkpoint, or is cut off: {error}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no dictionary of tensors (a state_dict)")
    return {name: _view(path, name, tensor, storages) for name, tensor in content.items()}


def _read_archive(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    """Zip layout: one folder of data.pkl and data/KEY for each storage."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("the archive has no single data.pkl")
        folder = names[0].removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        content = _Unpickler(io.BytesIO(archive.read(names[0]))).load()
        prefix = folder + "data/"
        storages = {
            name.removeprefix(prefix): archive.read(name)
            for name in archive.namelist()
            if name.startswith(prefix)
        }
    return content, storages


def _read_legacy(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    """Pickles of magic number, version, system, content and keys, then the storages in order."""
    if _Unpickler(file).load() != LEGACY_MAGIC:
        raise pickle.UnpicklingError("it does not start with PyTorch's magic number")
    _Unpickler(file).load()
    _Unpickler(file).load()
    unpickler = _Unpickler(file)
    content = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        size = count * np.dtype(unpickler.dtypes[key]).itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise pickle.UnpicklingError(f"storage {key} has {len(storages[key])} of {size} bytes")
    return content, storages


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries, numbers, strings and tensors."""

    def __init__(self, file):
        super().__init__(file, encoding="utf-8")
        self.dtypes: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        try:
            return ALLOWED[(module, name)]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, identifier: tuple) -> Storage:
        kind, dtype, key, *_ = identifier
        if kind != "storage":
            raise _Refused(f"a persistent {kind}")
        self.dtypes[key] = dtype
        return Storage(dtype, key)


def _rebuild_tensor(storage: Storage, offset: int, shape, strides, *_) -> Tensor:
    return Tensor(storage.key, storage.dtype, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Tensor, *_) -> Tensor:
    return tensor


ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _view(path: Path, name: str, tensor: Tensor, storages: dict[str, bytes]) -> np.ndarray:
    """The tensor's numbers, after a check that they lie within its storage."""
    try:
        values: np.ndarray = np.frombuffer(storages[tensor.storage], tensor.dtype)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the numbers of {name} are missing or cut off") from error
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    empty = 0 in tensor.shape
    if not empty and (tensor.offset < 0 or min(tensor.strides, default=0) < 0):
        raise CheckpointError(f"{path}: {name} has a negative offset or stride")
    if not empty and last >= values.size:
        raise CheckpointError(f"{path}: {name} reaches beyond its numbers; the file is cut off")
    strides = tuple(stride * values.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
