"""MANO's model files: finding, reading and checking them."""

import dataclasses
import functools
import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from er_jax.mano.joints import HANDS, PARENTS
from er_jax.mano.pickles import NAMES, to_array
from er_jax.utils.errors import DataError
from er_jax.utils.safe_pickle import RefusedPickleError, read_pickle

SHAPES = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (1538, 3),
    "kintree_table": (2, 16),
    "hands_mean": (45,),
    "hands_components": (45, 45),
}
"""Keys of a model file and the shapes of their arrays."""

INTEGER_KEYS = ("f", "kintree_table")
MAX_FILE_BYTES = 16 * 2**20  # official files have 4 MB
ZIP = b"PK\x03\x04"
OTHER_FILES = {
    b"\x1f\x8b": "it is gzip-compressed: unpack it first",
    b"version https://git-lfs": "it is a git-lfs pointer, not the file: run `git lfs pull`",
    b"<": "it is a web page: log in at https://mano.is.tue.mpg.de and download it again",
}

logger = logging.getLogger(__name__)


class HandFileError(DataError, ValueError):
    """A model file is absent, unsafe to read or not a hand model; says file, key and rule."""


@dataclasses.dataclass(frozen=True)
class HandFile:
    """One hand's checked arrays under MANO's own keys, and the file they are from."""

    path: Path
    arrays: dict[str, np.ndarray]


def read_hands(mano_dir: Path, suffixes: tuple[str, ...] = (".npz", ".pkl")) -> dict[str, HandFile]:
    """Both hands' files of a folder, checked, the left hand's shape directions mirrored if need be.

    Args:
      mano_dir: folder of MANO_RIGHT and MANO_LEFT.
      suffixes: kinds of files to look for, the preferred first.

    Raises:
      HandFileError: a file is absent, unsafe to read or not a hand model.
    """
    right, left = (read_hand(find_hand_file(mano_dir, side, suffixes)) for side in HANDS)
    return {"right": right, "left": _with_mirrored_shape_directions(left, right)}


def find_hand_file(mano_dir: Path, side: str, suffixes: tuple[str, ...]) -> Path:
    """The file of a hand, "right" or "left", in a folder or in its subfolder `models`.

    Raises:
      HandFileError: there is none.
    """
    names = [f"MANO_{side.upper()}{suffix}" for suffix in suffixes]
    candidates = [folder / name for folder in (mano_dir, mano_dir / "models") for name in names]
    for path in candidates:
        if path.is_file():
            return path
    raise HandFileError(
        f"{mano_dir}: no {' or '.join(names)} here or in models/; register and download MANO "
        "from https://mano.is.tue.mpg.de, or do without to use the stand-in hand"
    )


def read_hand(path: Path) -> HandFile:
    """One hand's model file, `.npz` or pickle, checked.

    Raises:
      HandFileError: the file is unsafe to read or not a hand model.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise HandFileError(f"{path}: has {size} bytes, a hand model about 4 million")
    data = path.read_bytes()
    for start, reason in OTHER_FILES.items():
        if data.lstrip().startswith(start):
            raise HandFileError(f"{path}: {reason}")
    read = _read_npz if path.suffix == ".npz" else _read_official
    arrays = read(path, data)
    check_hand(arrays, path)
    return HandFile(path, arrays)


def check_hand(arrays: Mapping[str, np.ndarray], path: Path | str) -> None:
    """Checks keys, shapes, types and values of a hand model's arrays.

    Raises:
      HandFileError: naming the file, the key and the rule.
    """

    def require(holds: object, key: str, rule: str) -> None:
        if not holds:
            raise HandFileError(f"{path}: {key}: {rule}")

    for key, shape in SHAPES.items():
        require(key in arrays, key, "is missing")
        array = arrays[key]
        require(array.shape == shape, key, f"has shape {array.shape}, not {shape}")
        kind = "iu" if key in INTEGER_KEYS else "f"
        require(array.dtype.kind in kind, key, f"has type {array.dtype}")
        require(np.isfinite(array).all(), key, "has values that are not finite")
    faces = arrays["f"]
    require(faces.min() >= 0 and faces.max() < 778, "f", "names vertices beyond the 778")
    parents, joints = arrays["kintree_table"].astype(np.int64)
    require(
        np.array_equal(parents[1:], PARENTS[1:]) and np.array_equal(joints, np.arange(16)),
        "kintree_table",
        f"has parents {parents[1:].tolist()}; MANO's tree has {PARENTS[1:].tolist()}",
    )
    sums = arrays["weights"].sum(axis=1)
    require(np.abs(sums - 1).max() < 1e-5, "weights", "do not sum to 1 at every vertex")


def fingerprint(hands: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """SHA-256 of both hands' arrays under MANO's own keys, by "right" and "left".

    The same for the pickles and for what `er_jax.mano.convert` makes of them, and on every machine:
    nothing in it is computed but the mirrored sign of the left hand's shape directions.
    """
    digest = hashlib.sha256()
    for side in HANDS:
        for key in sorted(SHAPES):
            dtype = "<i8" if key in INTEGER_KEYS else "<f8"
            array = hands[side][key].astype(dtype)
            digest.update(f"{side} {key} {array.shape} {dtype}\n".encode())
            digest.update(array.tobytes(order="C"))
    return digest.hexdigest()


def _with_mirrored_shape_directions(left: HandFile, right: HandFile) -> HandFile:
    """The left hand with the x components of its shape directions mirrored, if they are not.

    The official left file repeats the right hand's (github.com/vchoutas/smplx, issue 48).
    """
    shapedirs = left.arrays["shapedirs"]
    if np.abs(shapedirs[:, 0] - right.arrays["shapedirs"][:, 0]).sum() >= 1:
        return left
    _warn_once(
        f"{left.path}: shapedirs: x components are the right hand's, as in the official file: "
        "mirrored"
    )
    mirrored = shapedirs * np.array([-1, 1, 1])[:, None]
    return dataclasses.replace(left, arrays={**left.arrays, "shapedirs": mirrored})


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _read_official(path: Path, data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(ZIP):
        raise HandFileError(
            f"{path}: it is a zip archive: unpack it first, or name it .npz if it is one"
        )
    try:
        content = read_pickle(io.BytesIO(data), NAMES)
    except RefusedPickleError as error:
        raise HandFileError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise HandFileError(f"{path}: holds a {kind}, not a hand model's dict")
    arrays = {}
    for key in SHAPES.keys() & content.keys():
        try:
            arrays[key] = to_array(content[key])
        except RefusedPickleError as error:
            raise HandFileError(f"{path}: {key}: {error}") from error
    return arrays


def _read_npz(path: Path, data: bytes) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for key in SHAPES.keys() & {Path(name).stem for name in archive.namelist()}:
                arrays[key] = _read_npy(archive, key)
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for a damaged file
        raise HandFileError(f"{path}: damaged, or not as er_jax wrote it: {error}") from error
    return arrays


def _read_npy(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """One array of an .npz; its header is checked before memory is taken for it."""
    with archive.open(f"{key}.npy") as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if shape != SHAPES[key] or dtype.kind not in "fiu":
        raise ValueError(f"{key}: is {dtype} of shape {shape}, not numbers of shape {SHAPES[key]}")
    with archive.open(f"{key}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
