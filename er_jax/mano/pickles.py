"""Reads MANO's Python-2 pickles without running anything they name.

A pickle is a program for a small stack machine, whose instructions may import and call any
function. A hand model needs few of them: here the instructions are interpreted one by one, what
would be a call or an object becomes an inert `Record` of its name and arguments, and every
instruction or name beyond those of the official files is refused. Nothing that the file names
(chumpy, scipy, numpy) is imported. Memory stays within a small multiple of the file's size: the
number of instructions is limited, and no value is shown, compared or multiplied before it is known
to be small, since a few nested tuples can stand for more than any memory holds.
"""

import dataclasses
import math
import pickletools
import re
from typing import Any

import numpy as np

LITERAL = re.compile(
    r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|UNICODE|BYTES)8?|BYTEARRAY8"
)
"""Instructions that only push a number, a string or bytes."""

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

ENCODE = "_codecs encode"
CHUMPY = ("chumpy.ch Ch", "chumpy.reordering Select")
SPARSE = ("scipy.sparse.csc csc_matrix", "scipy.sparse._csc csc_matrix")
RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
FROM_BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
ADMITTED = frozenset(
    {"numpy ndarray", "numpy dtype", "__builtin__ set", "builtins set", "__builtin__ bytearray"}
    | {ENCODE, *CHUMPY, *SPARSE, *RECONSTRUCT, *FROM_BUFFER}
)
"""The names in official files, and those that numpy, scipy and Python 3 give the same things."""

DTYPES = frozenset(f"{kind}{size}" for kind in "fiu" for size in (4, 8))
MAX_INSTRUCTIONS = 20_000  # official files have some hundreds
MAX_AXES = 3


class RefusedPickleError(ValueError):
    """The pickle asks for something a hand model does not need, or is damaged."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    text: str


@dataclasses.dataclass(eq=False)
class Record:
    """An object of the pickle: what would build it and the state to set on it; never the object."""

    name: str
    arguments: tuple
    state: Any = None


def read_pickle(data: bytes) -> Any:
    """What a pickle holds: dicts, lists, tuples, numbers and strings; objects as `Record`s.

    Raises:
        RefusedPickleError: an instruction or a name that is not admitted; a truncated or otherwise
            malformed pickle.
    """
    machine = _Machine()
    position = 0
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data)):
            position = at or 0
            if count == MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"it has more than {MAX_INSTRUCTIONS} instructions")
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except RefusedPickleError:
        raise
    except Exception as error:  # whatever a damaged file does to the interpreter
        reason = f"damaged or truncated pickle, at or after byte {position}: {error!s:.200}"
        raise RefusedPickleError(reason) from error


class _Machine:
    """The stack machine, with those instructions that a hand model needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Carries out one instruction."""
        match instruction:
            case _ if LITERAL.fullmatch(instruction):
                self.stack.append(argument)
            case _ if instruction in CONSTANTS:
                self.stack.append(CONSTANTS[instruction])
            case _ if instruction in FIXED_TUPLES:
                self.stack.append(tuple(self._pop(FIXED_TUPLES[instruction])))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "EMPTY_LIST" | "EMPTY_SET":  # no set is ever looked into
                self.stack.append([])
            case "EMPTY_DICT":
                self.stack.append({})
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self._pop_to_mark()))
            case "LIST":
                self.stack.append(self._pop_to_mark())
            case "DICT":
                items = self._pop_to_mark()
                self.stack.append({})
                self._set_items(items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                self._set_items(self._pop(2))
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "GLOBAL":
                self.stack.append(_admitted(argument))
            case "STACK_GLOBAL":
                module, name = self._pop(2)
                if type(module) is not str or type(name) is not str:
                    raise RefusedPickleError("a name other than of strings is refused")
                self.stack.append(_admitted(f"{module} {name}"))
            case "REDUCE" | "NEWOBJ":
                self._record(*self._pop(2))
            case "BUILD":
                self._build(*self._pop(1))
            case _:
                raise RefusedPickleError(f"the instruction {instruction} is refused")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise RefusedPickleError("damaged pickle: it takes more values than it gave")
        return self._pop_from(len(self.stack) - count)

    def _pop_to_mark(self) -> list[Any]:
        return self._pop_from(self.marks.pop())

    def _pop_from(self, start: int) -> list[Any]:
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedPickleError("appending to something that is not a list is refused")
        self.stack[-1].extend(values)

    def _set_items(self, items: list[Any]) -> None:
        keys = items[::2]
        if type(self.stack[-1]) is not dict or not all(isinstance(key, str) for key in keys):
            raise RefusedPickleError("a dict with keys other than strings is refused")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def _record(self, name: Any, arguments: Any) -> None:
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise RefusedPickleError(f"a call of {type(name).__name__} is refused")
        self.stack.append(Record(name.text, arguments))

    def _build(self, state: Any) -> None:
        if not isinstance(self.stack[-1], Record):
            raise RefusedPickleError(
                f"setting the state of {type(self.stack[-1]).__name__} is refused"
            )
        self.stack[-1].state = state


def _admitted(name: str) -> Name:
    if name not in ADMITTED:
        module, _, attribute = name.partition(" ")
        raise RefusedPickleError(
            f"it names {module:.80}.{attribute:.80}, which no hand model needs: refused"
        )
    return Name(name)


def to_array(value: Any) -> np.ndarray:
    """The array that a value read by `read_pickle` stands for: numpy, csc matrix or chumpy.

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
        case Record(name, (buffer, dtype, shape, order)) if name in FROM_BUFFER:
            return _numeric_array(buffer, dtype, shape, fortran=order == "F")
        case Record(name, _, (_, shape, dtype, fortran, buffer)) if name in RECONSTRUCT:
            return _numeric_array(buffer, dtype, shape, fortran=fortran is True)
        case Record(
            name, _, {"_shape": shape, "indptr": starts, "indices": rows, "data": data}
        ) if name in SPARSE:
            return _dense(shape, _to_array(starts), _to_array(rows), _to_array(data))
        case Record("chumpy.ch Ch", _, {"x": content}):
            return _to_array(content)
        case Record(
            "chumpy.reordering Select",
            _,
            {"a": Record("chumpy.ch Ch") as source, "idxs": indices, "preferred_shape": shape},
        ):
            return _to_array(source).ravel()[_to_array(indices)].reshape(shape)
    raise RefusedPickleError("it is not an array of numbers")


def _numeric_array(buffer: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    match dtype:
        case Record(
            "numpy dtype", (str() as code, *_), (_, "<" | ">" as order, None, None, None, *_)
        ):
            if code not in DTYPES:
                raise RefusedPickleError(f"dtype {code:.20} is refused")
        case _:
            raise RefusedPickleError("a dtype other than of plain numbers is refused")
    match buffer:
        case Record(name, (str() as text, "latin1")) if name == ENCODE:
            raw = text.encode("latin-1")
        case str():  # a Python-2 string
            raw = buffer.encode("latin-1")
        case bytes() | bytearray():
            raw = bytes(buffer)
        case _:
            raise RefusedPickleError("an array of objects is refused")
    plain = np.dtype(order + code)
    if type(shape) is not tuple or len(shape) > MAX_AXES:
        raise RefusedPickleError(f"a shape other than a tuple of up to {MAX_AXES} is refused")
    if not all(type(size) is int and 0 <= size <= len(raw) for size in shape):
        raise RefusedPickleError(f"an array says a size beyond the {len(raw)} bytes it holds")
    if math.prod(shape) * plain.itemsize != len(raw):
        raise RefusedPickleError(f"an array says shape {shape}, {code}, but holds {len(raw)} bytes")
    array = np.frombuffer(raw, plain).reshape(shape, order="F" if fortran else "C")
    return array.astype(plain.newbyteorder("="))


def _dense(shape: Any, starts: np.ndarray, rows: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The dense matrix of compressed sparse columns (MANO's joint regressor, 16 × 778)."""
    if shape != (16, 778):
        raise RefusedPickleError("a sparse matrix of a shape other than (16, 778) is refused")
    bounds = starts.shape == (779,) and starts.min() >= 0 and starts.max() <= len(data)
    widths = np.diff(starts.astype(np.int64)).astype(np.int64)
    if not bounds or np.min(widths) < 0 or np.sum(widths) != len(data) or np.min(rows) < 0:
        raise RefusedPickleError("an inconsistent sparse matrix is refused")
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, (rows, np.repeat(np.arange(778), widths)), data)
    return dense
