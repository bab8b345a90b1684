"""Files that are no hand models: refused with a clear error, nothing run, little memory taken."""

import contextlib
import dataclasses
import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_files import official_pickle
from scipy import sparse

from er_jax.mano import HandFileError
from er_jax.mano.files import read_hand
from er_jax.mano.stand_in import stand_in_arrays


def write(folder: Path, content: bytes) -> Path:
    path = folder / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    return path


def assert_refused(path: Path, words: str, limit_bytes: int = 2**27) -> None:
    """Reading fails with a short message of the file and these words, and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(HandFileError) as error:
            read_hand(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"{path}: ") and words in message
    assert len(message) < len(str(path)) + 300
    assert peak < limit_bytes


@dataclasses.dataclass(frozen=True)
class Call:
    """Pickles as an instruction to call `function`."""

    function: Any
    arguments: tuple

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def running(sentinel: Path) -> dict[str, bytes]:
    """Pickles whose mere reading by `pickle` creates the file."""
    command = f"touch {sentinel}"
    call = Call(os.system, (command,))
    objects = np.empty(1, object)
    objects[0] = call
    arrays = stand_in_arrays("right")
    values = {
        "os.system": call,
        "builtins.eval": Call(eval, (f"open({str(sentinel)!r}, 'w')",)),
        "builtins.exec": Call(exec, (f"open({str(sentinel)!r}, 'w')",)),
        "an array of objects": {**arrays, "v_template": objects},
        "an unread key": {**arrays, "bs_type": [(call,)]},
        "nested calls": Call(list, (Call(map, (os.system, [command])),)),
        "arguments of an admitted name": Call(set, ([call],)),
    }
    by_hand = {
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(command) + b"o.",
        "NEWOBJ": b"cos\n_wrap_close\ncos\nsystem\n" + text(command) + b"\x85R0)\x81.",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + text(command) + b"\x85R.",
        "a chain of getattr": (
            b"cbuiltins\ngetattr\ncos\nsystem\n"
            + text("__call__")
            + b"\x86R"
            + text(command)
            + b"\x85R."
        ),
        "an attribute of an admitted name": (
            b"\x80\x04"
            + text("numpy")
            + text("ndarray.__new__")
            + b"\x93cos\nsystem\n"
            + text(command)
            + b"\x85R\x86."
        ),
    }
    return by_hand | {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in values.items()
        for protocol in (0, 2, 4)
    }


@pytest.mark.parametrize("name", running(Path("nowhere")))
def test_nothing_that_a_pickle_names_is_run(tmp_path, name):
    sentinel = tmp_path / "sentinel"
    content = running(sentinel)[name]
    assert_refused(write(tmp_path, content), "refused")
    assert not sentinel.exists()
    with contextlib.suppress(Exception):
        pickle.loads(content)
    assert sentinel.exists(), "this pickle is harmless: it shows nothing"


def array(shape: bytes, buffer: bytes = b"C\x08" + bytes(8)) -> bytes:
    """Instructions for an array of float64 of a shape given in instructions."""
    dtype = b"cnumpy\ndtype\n" + text("f8") + b"\x85R(K\x03" + text("<") + b"NNNtb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b")
    return start + b"\x87R(K\x01" + shape + dtype + b"\x89" + buffer + b"tb"


def array_of(shape: bytes) -> bytes:
    """A pickle of a dict whose v_template is such an array, of 8 bytes."""
    return b"\x80\x04}" + text("v_template") + array(shape) + b"s."


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8b" + struct.pack("<I", len(raw)) + raw


DOUBLED = b"K\x01q\x00" + b"h\x00\x86q\x00" * 60  # a tuple of two tuples of two …
EXHAUSTING = {
    "an array of 10 GB in 8 bytes": (array_of(integer(10**10 // 8) + b"\x85"), "cannot reshape"),
    "a product of sizes without end": (
        array_of(integer(2 ** (8 * 2**20)) + b"q\x01" + b"h\x01" * 2000 + b"t"),
        "damaged",
    ),
    "a shape of many huge sizes": (
        array_of(b"(" + integer(2 ** (8 * 2**20)) + b"q\x01" + b"h\x01" * 2000 + b"t"),
        "inconsistent array",
    ),
    "a shape doubled 60 times": (array_of(DOUBLED), "inconsistent array"),
    "a sparse matrix of such a shape": (
        b"\x80\x04}"
        + text("J_regressor")
        + b"cscipy.sparse.csc\ncsc_matrix\n)\x81}("
        + text("_shape")
        + DOUBLED
        + text("indptr")
        + array(b"K\x01\x85")
        + text("indices")
        + array(b"K\x01\x85")
        + text("data")
        + array(b"K\x01\x85")
        + b"ubs.",
        "sparse matrix",
    ),
    "a name doubled 60 times": (DOUBLED + text("system") + b"\x93.", "STACK_GLOBAL requires str"),
    "a string of 10 GB in 4 bytes": (b"\x8d" + struct.pack("<Q", 10**10) + b"abcd", "damaged"),
    "bytes of 10 GB in 4 bytes": (b"\x8e" + struct.pack("<Q", 10**10) + b"abcd", "damaged"),
    "an integer of 15 MB": (
        array_of(integer(2 ** (8 * 15 * 2**20)) + b"\x85"),
        "dimension exceeded",
    ),
    "an integer of 15 million digits": (b"L" + b"9" * 15_000_000 + b"L\n.", "damaged"),
    "15 million lists": (b"]" * 15_000_000 + b".", "instructions"),
    "15 million marks": (b"(" * 15_000_000 + b".", "instructions"),
    "15 million memos": (b"N" + b"\x94" * 15_000_000 + b".", "instructions"),
    "a memo of 30 GB in 7 bytes": (b"Nr\xff\xff\xff\x7f.", "places of its memo"),
    "a list within itself": (b"}" + text("f") + b"]q\x00h\x00as.", "f: it is not an array"),
    "chumpy within itself": (
        b"}" + text("f") + b"cchumpy.ch\nCh\n)\x81q\x00}" + text("x") + b"h\x00sbs.",
        "f: inconsistent array",
    ),
    "deeply nested tuples": (b")" + b"\x85" * 10_000 + b".", "holds a tuple"),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_memory_is_not_exhausted(tmp_path, name):
    content, words = EXHAUSTING[name]
    assert_refused(write(tmp_path, content), words)


def compressed_zeros(count: int) -> bytes:
    """An .npz whose v_template has this many numbers, all zero."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("v_template.npy", "w") as member,
    ):
        header = {"descr": "<f8", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(count // 2**17):
            member.write(bytes(2**20))
    return stream.getvalue()


def npz_of(header: str, stored: bytes = b"") -> bytes:
    """An .npz whose v_template says this of itself, and holds these bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        archive.writestr("v_template.npy", start + stored)
    return stream.getvalue()


def with_objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, v_template=np.full((778, 3), None))
    return stream.getvalue()


def lying(content: bytes) -> bytes:
    """The archive, saying in its directory that its member holds 4 GB."""
    at = content.index(b"PK\x01\x02") + 24
    return content[:at] + struct.pack("<I", 2**32 - 2) + content[at + 4 :]


SHAPE = "{'descr': '<f8', 'fortran_order': False, 'shape': (778, 3)}"
ARCHIVES = {
    "a header of 10 GB": (npz_of(SHAPE.replace("778, 3", "1250000000,")), "not numbers of shape"),
    "a header of half the right size": (npz_of(SHAPE.replace("778", "389")), "not numbers of"),
    "256 MB of zeros in few bytes": (compressed_zeros(2**25), "not numbers of shape"),
    "less than the header says": (npz_of(SHAPE, bytes(100)), "damaged"),
    "less than the directory says": (lying(npz_of(SHAPE, bytes(100))), "damaged"),
    "a header that is code": (npz_of("__import__('os').system('false')"), "damaged"),
    "a header of brackets": (npz_of("[" * 9000), "damaged"),
    "objects": (with_objects(), "not numbers of shape"),
    "another member of that name": (npz_of(SHAPE).replace(b".npy", b".txt"), "damaged"),
    "half an archive": (npz_of(SHAPE, bytes(8 * 778 * 3))[:5000], "damaged"),
    "no archive": (b"\x00" * 1000, "damaged"),
    "a web page": (b"<!DOCTYPE html><html>", "web page"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_are_refused(tmp_path, name):
    content, words = ARCHIVES[name]
    path = tmp_path / "MANO_LEFT.npz"
    path.write_bytes(content)
    assert_refused(path, words)


NO_PICKLES = {
    "gzip": (gzip.compress(pickle.dumps({})), "gzip-compressed: unpack"),
    "zip": (npz_of(SHAPE), "a zip archive: unpack"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>", "web page: log"),
    "a git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3821356\n",
        "run `git lfs pull`",
    ),
    "nothing": (b"", "damaged or truncated pickle"),
    "text": (b"Access denied", "damaged or truncated pickle"),
    "another object": (pickle.dumps([1, 2]), "holds a list"),
    "a call": (pickle.dumps(np.zeros(3)), "holds a Record"),
    "too large": (bytes(2**24 + 1), "has 16777217 bytes"),
}


@pytest.mark.parametrize("name", NO_PICKLES)
def test_other_files_are_refused_with_a_remedy(tmp_path, name):
    content, words = NO_PICKLES[name]
    assert_refused(write(tmp_path, content), words)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    content = official_pickle(stand_in_arrays("right"))
    for share in (0.0001, 0.01, 0.5, 0.9, 0.9999):
        path = write(tmp_path, content[: int(share * len(content))])
        assert_refused(path, "damaged or truncated pickle, at or before byte")


def test_a_damaged_file_is_read_right_or_refused(tmp_path):
    """One byte changed anywhere among the instructions: nothing but `HandFileError` is raised."""
    content = official_pickle(stand_in_arrays("right"))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 400, 100):
        damaged = bytearray(content)
        damaged[position] = rng.integers(256)
        with contextlib.suppress(HandFileError):
            read_hand(write(tmp_path, bytes(damaged)))


@pytest.mark.parametrize(
    ("key", "state"),
    [
        ("indptr", np.arange(779)[::-1]),
        ("indptr", np.zeros(3, int)),
        ("indices", np.full(5, 16)),
        ("indices", np.full(5, -1)),
        ("data", np.ones(2)),
    ],
)
def test_inconsistent_sparse_matrices_are_refused(tmp_path, key, state):
    matrix = sparse.csc_matrix((np.ones(5), (range(5), range(5))), shape=(16, 778))
    setattr(matrix, key, state)
    path = write(tmp_path, pickle.dumps(stand_in_arrays("right") | {"J_regressor": matrix}))
    assert_refused(path, "J_regressor: ")
