"""Reads pickles without running anything that they name.

A pickle is a program that may import and call any function. Here a name is looked up in a table of
the caller's, never imported, and stands for a `Record`: what would be a call or an object becomes
the name, the arguments and the state, and does nothing. Every other name is refused.

Memory stays within a small multiple of the file's size, however it lies about sizes. Time does not:
a few nested tuples as the key of a dict take for ever to hash.
"""

import pickle
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

MAX_INSTRUCTIONS = 500_000  # a hand model has some hundreds, a network's tensors about 30 each


class RefusedPickleError(ValueError):
    """The pickle asks for something that its reader does not need, or is damaged."""


class Record:
    """The recipe that would build an object, and the state to set on it; never the object."""

    __match_args__ = ("name", "arguments", "state")
    name: str  # of a class or function, `module.name`
    arguments: tuple
    state: Any

    def __new__(cls, *arguments: Any) -> "Record":
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


def records(names: Iterable[str]) -> dict[str, type[Record]]:
    """A table for `read_pickle` of names that become records."""
    return {name: type("Record", (Record,), {"name": name}) for name in names}


def _no_identifier(identifier: Any) -> Any:
    raise RefusedPickleError("it asks for something outside it: refused")


def read_pickle(
    stream: BinaryIO,
    names: Mapping[str, type],
    persistent: Callable[[Any], Any] = _no_identifier,
) -> Any:
    """Returns what the pickle at a stream's position holds; the stream then stands behind it.

    Args:
      stream: that can seek. Python 2's strings are read as Latin-1.
      names: `module.name` → what stands for it: `records`, or a class whose building from any
          arguments does nothing else, such as OrderedDict.
      persistent: from the identifier of something outside the pickle to what stands for it.

    Raises:
      RefusedPickleError: a name that is not in the table, more than `MAX_INSTRUCTIONS`, a
          truncated or otherwise malformed pickle.
    """
    start = stream.tell()
    try:
        _check_instructions(stream)
        stream.seek(start)
        unpickler = _Unpickler(stream, encoding="latin1")
        unpickler.names, unpickler.persistent = names, persistent
        return unpickler.load()
    except RefusedPickleError:
        raise
    except Exception as error:  # whatever a damaged file does to the interpreter
        reason = f"damaged or truncated pickle, at or before byte {stream.tell()}: {error!s:.200}"
        raise RefusedPickleError(reason) from error


def _check_instructions(stream: BinaryIO) -> None:
    """Bounds what `pickle` takes memory for unseen: places in its memo, lengths, their number."""
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        if count == MAX_INSTRUCTIONS:
            raise RefusedPickleError(f"it has more than {MAX_INSTRUCTIONS} instructions")
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise RefusedPickleError("damaged pickle: it leaves out places of its memo")


class _Unpickler(pickle.Unpickler):
    names: Mapping[str, type]
    persistent: Callable[[Any], Any]

    def find_class(self, module: str, name: str) -> type:
        full = f"{module}.{name}"
        if full not in self.names:
            raise RefusedPickleError(f"it names {full:.160}, which it has no need of: refused")
        return self.names[full]

    def persistent_load(self, identifier: Any) -> Any:
        return self.persistent(identifier)
