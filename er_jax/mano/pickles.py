"""The arrays of MANO's Python-2 pickles, from records of numpy, scipy and chumpy objects.

No value is shown, compared or multiplied before it is known to be small, since a few nested tuples
can stand for more than any memory holds.
"""

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from er_jax.utils.safe_pickle import Record, RefusedPickleError, records

NAMES = records(
    [
        *("numpy.ndarray", "numpy.dtype", "_codecs.encode"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
        *("scipy.sparse.csc.csc_matrix", "scipy.sparse._csc.csc_matrix"),
        *("chumpy.ch.Ch", "chumpy.reordering.Select"),
        *("__builtin__.set", "builtins.set", "__builtin__.bytearray"),
    ]
)
"""The names in official files, and those that numpy, scipy and Python 3 give the same things."""

DTYPES = frozenset(f"{kind}{size}" for kind in "fiu" for size in (4, 8))


def to_array(value: Any) -> np.ndarray:
    """The array that a value of a pickle stands for: numpy, csc matrix or chumpy.

    Args:
      value: as `read_pickle` gives it with `NAMES`.

    Raises:
      RefusedPickleError: it stands for no array of numbers, or is inconsistent.
    """
    try:
        return _to_array(value)
    except RefusedPickleError:
        raise
    except Exception as error:  # whatever inconsistent records do
        raise RefusedPickleError(f"inconsistent array: {error!s:.200}") from error


def _to_array(value: Any) -> np.ndarray:
    match value:
        case Record(name, (buffer, dtype, shape, order)) if name.endswith("._frombuffer"):
            return _numbers(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")
        case Record(name, _, (_, shape, dtype, fortran, buffer)) if name.endswith("._reconstruct"):
            return _numbers(buffer, dtype).reshape(shape, order="F" if fortran is True else "C")
        case Record(
            name, _, {"_shape": shape, "indptr": starts, "indices": rows, "data": data}
        ) if name.endswith(".csc_matrix"):
            if shape != (16, 778):  # the joint regressor's
                raise RefusedPickleError("a sparse matrix of a shape other than (16, 778)")
            matrix = csc_matrix(tuple(map(_to_array, (data, rows, starts))), shape)
            matrix.check_format(full_check=True)
            return matrix.toarray()
        case Record("chumpy.ch.Ch", _, {"x": content}):
            return _to_array(content)
        case Record(
            "chumpy.reordering.Select",
            _,
            {"a": Record("chumpy.ch.Ch") as source, "idxs": indices, "preferred_shape": shape},
        ):
            return _to_array(source).ravel()[_to_array(indices)].reshape(shape)
    raise RefusedPickleError("it is not an array of numbers")


def _numbers(buffer: Any, dtype: Any) -> np.ndarray:
    """The flat array of a buffer, in the machine's byte order; `reshape` takes no memory."""
    match buffer:
        case Record("_codecs.encode", (str() as text, "latin1")) | (str() as text):
            raw = text.encode("latin-1")  # a bare string is Python 2's
        case bytes() | bytearray():
            raw = bytes(buffer)
        case _:
            raise RefusedPickleError("an array of objects is refused")
    match dtype:
        case Record(
            "numpy.dtype", (str() as code, *_), (_, "<" | ">" as order, None, None, None, *_)
        ) if code in DTYPES:
            numbers = np.frombuffer(raw, order + code)
            return numbers.astype(numbers.dtype.newbyteorder("="))
    raise RefusedPickleError("a dtype other than of plain numbers is refused")
