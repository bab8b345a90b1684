"""Pickles read without running what they name: what comes out, and what is refused."""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest

from er_jax.mano.files import read_hand
from er_jax.models.weights.torch_checkpoint import read_torch_checkpoint
from er_jax.utils.safe_pickle import Record, RefusedPickleError, read_pickle, records

TABLE = {**records(["fractions.Fraction"]), "collections.OrderedDict": OrderedDict}


def read(content: bytes) -> object:
    return read_pickle(io.BytesIO(content), TABLE)


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(full: str) -> bytes:
    """The instruction that pushes what a name stands for."""
    module, _, attribute = full.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_they_went_in(protocol):
    value = {"a": [1, 2.5, None, True, ("b", b"c")], 3: 2**100, "d": OrderedDict(e={4})}
    table = TABLE | records(["builtins.set", "__builtin__.set", "_codecs.encode"])
    result = read_pickle(io.BytesIO(pickle.dumps(value, protocol)), table)
    if protocol < 3:  # bytes are a call of _codecs.encode
        assert result["a"][4][1].arguments == ("c", "latin1")
        result["a"][4] = value["a"][4]
    if protocol < 4:  # sets are a call
        assert result["d"]["e"].arguments == ([4],)
        result["d"]["e"] = {4}
    assert result == value and type(result["d"]) is OrderedDict


def test_objects_become_records_of_name_arguments_and_state():
    fraction = name("fractions.Fraction")
    called = fraction + b"K\x01K\x02\x86R"
    made = fraction + b")\x81}" + text("a") + called + b"sb"
    record = read(made + b".")
    assert (record.name, record.arguments) == ("fractions.Fraction", ())
    assert isinstance(record.state["a"], Record)
    assert record.state["a"].arguments == (1, 2)


def test_streams_are_left_behind_the_pickle():
    stream = io.BytesIO(b"before" + pickle.dumps(1) + pickle.dumps(2) + b"after")
    stream.seek(6)
    assert [read_pickle(stream, {}), read_pickle(stream, {})] == [1, 2]
    assert stream.read() == b"after"


HOSTILE_NAMES = [
    "builtins.eval",
    "builtins.getattr",
    "builtins.__import__",
    "os.system",
    "posix.system",
    "subprocess.Popen",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "numpy.core.multiarray.scalar",
    "numpy.load",
    "numpy.ndarray.tofile",
    "torch.load",
    "torch.storage._load_from_bytes",
    "er_jax.utils.safe_pickle.read_pickle",
]


@pytest.mark.parametrize("reader", [read_hand, read_torch_checkpoint])
@pytest.mark.parametrize("full", HOSTILE_NAMES)
def test_every_other_name_is_refused_and_said(
    tmp_path: Path, reader: Callable[[Path], object], full: str
):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(b"}" + text("f") + name(full) + text("0") + b"\x85Rs.")
    with pytest.raises(ValueError, match=f"it names {full}, .* refused") as error:
        reader(path)
    assert str(error.value).startswith(f"{path}: ")


FRACTION = name("fractions.Fraction")
MISUSES = {
    "a call of a string": text("os.system") + b")R.",
    "a call of a record": FRACTION + b")R)R.",
    "an object of a record": FRACTION + b")R)\x81.",
    "keywords": FRACTION + b")}" + text("a") + b"Ns\x92.",
    "the state of a stand-in itself": FRACTION + b"N}" + text("__new__") + b"Ns\x86b.",
    "the state of a dictionary's class": name("collections.OrderedDict")
    + b"}"
    + text("a")
    + b"Nsb.",
    "items of a record": FRACTION + b")R" + text("a") + b"Ns.",
    "an entry of a record": FRACTION + b")RNa.",
    "an extension": b"\x82\x01.",
    "an identifier of something outside": b"Pstorage\n.",
    "a buffer outside": b"\x97.",
    "an unknown protocol": b"\x80\x63N.",
    "an empty stack": b".",
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuses_are_refused(misuse):
    with pytest.raises(RefusedPickleError):
        read(MISUSES[misuse])
    assert read(FRACTION + b"K\x01\x85R.").arguments == (1,), "the stand-in was changed"


def test_encoding_is_not_done_by_the_pickle(tmp_path):
    """`_codecs.encode` of other than Latin-1 text is no array's buffer."""
    dtype = name("numpy.dtype") + text("f8") + b"\x85R(K\x03" + text("<") + b"NNNtb"
    for arguments in (text("AAAA") + text("rot13"), b"N" + text("latin1")):
        buffer = name("_codecs.encode") + arguments + b"\x86R"
        array = name("numpy.core.multiarray._reconstruct") + b")R(K\x01K\x01\x85" + dtype + b"\x89"
        path = tmp_path / "MANO_RIGHT.pkl"
        path.write_bytes(b"}" + text("f") + array + buffer + b"tbs.")
        with pytest.raises(ValueError, match="f: an array of objects is refused"):
            read_hand(path)
