"""Weights from checkpoints: safe reading, complete reports, round trips."""

import dataclasses
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

from er_jax.models import ERConfig, ERNet
from er_jax.models.backbones import make_backbone
from er_jax.models.functional import network_of
from er_jax.models.weights.import_export import (
    WeightError,
    export_network,
    import_network,
    load_backbone,
    named_variables,
)
from er_jax.models.weights.torch_checkpoint import CheckpointError, read_torch_checkpoint
from er_jax.training.state import create_state, with_pretrained_backbone

SMALL = ERConfig(
    backbone="resnet18", backbone_width=8, input_size=64, feature_dim=16, heads=2, depth_bins=4
)


def small_backbone():
    return make_backbone(SMALL, nnx.Rngs(0))


def foreign_state(backbone, seed=0):
    """Random numbers under torchvision's names and in its layouts."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, variable in named_variables(backbone).items():
        value = rng.normal(size=variable.shape).astype(np.float32)
        if name.endswith("kernel"):
            value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
        name = name.replace("downsample.conv", "downsample.0").replace(
            "downsample.bn", "downsample.1"
        )
        name = name.replace(".kernel", ".weight").replace(".scale", ".weight")
        name = name.replace(".mean", ".running_mean").replace(".var", ".running_var")
        state[name] = value
    state["fc.weight"] = np.zeros((10, 3), np.float32)
    state["bn1.num_batches_tracked"] = np.array(3)
    return state


def test_backbone_from_safetensors(tmp_path):
    backbone = small_backbone()
    state = foreign_state(backbone)
    safetensors.numpy.save_file(state, tmp_path / "weights.safetensors")
    load_backbone(backbone, tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(
        backbone.conv1.kernel[...], state["conv1.weight"].transpose(2, 3, 1, 0)
    )
    block = backbone.layer3[0]
    np.testing.assert_array_equal(block.bn2.scale[...], state["layer3.0.bn2.weight"])
    np.testing.assert_array_equal(
        block.downsample.bn.var[...], state["layer3.0.downsample.1.running_var"]
    )


@pytest.mark.parametrize("frozen", [pytest.param((), marks=pytest.mark.slow), ("backbone",)])
def test_a_run_starts_from_a_pretrained_backbone(tmp_path, frozen):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(foreign_state(small_backbone()), path)
    expected = small_backbone()
    load_backbone(expected, path)
    config = dataclasses.replace(SMALL, backbone_weights=str(path), frozen=frozen)
    fresh = create_state(config, optax.sgd(1.0), seed=0)
    started = with_pretrained_backbone(config, fresh)
    assert jax.tree.structure(started) == jax.tree.structure(fresh)
    before, after = (
        named_variables(network_of(config, state.weights)) for state in (fresh, started)
    )
    pretrained = {f"backbone.{name}": v for name, v in named_variables(expected).items()}
    for name, variable in after.items():
        np.testing.assert_array_equal(variable, pretrained.get(name, before[name]), err_msg=name)


def test_every_mismatch_is_reported_and_nothing_changed(tmp_path):
    backbone = small_backbone()
    before = jax.tree.map(np.asarray, nnx.state(backbone))
    state = foreign_state(backbone)
    del state["layer1.0.conv1.weight"], state["bn1.running_var"]
    state["layer4.1.bn2.bias"] = np.zeros(3, np.float32)
    state["layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    state["transformer.cls"] = np.zeros(2, np.float32)
    safetensors.numpy.save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(WeightError) as raised:
        load_backbone(backbone, tmp_path / "weights.safetensors")
    for expected in (
        "weights.safetensors",
        "missing: layer1.0.conv1.kernel (3, 3, 8, 8)",
        "missing: bn1.var (8,)",
        "shape: layer4.1.bn2.bias is (3,), not (64,)",
        "surplus: layer5.0.conv1.kernel",
        "surplus: transformer.cls",
    ):
        assert expected in str(raised.value)
    jax.tree.map(
        np.testing.assert_array_equal, before, jax.tree.map(np.asarray, nnx.state(backbone))
    )


def test_a_cut_off_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(foreign_state(small_backbone()), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightError, match="cut off"):
        load_backbone(small_backbone(), path)


class TorchLike:
    """Writes PyTorch's zip layout without PyTorch, from stand-ins of the names that it pickles."""

    def __init__(self, monkeypatch):
        self.torch, self.utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.setitem(sys.modules, "torch._utils", self.utils)

        def _rebuild_tensor_v2(*arguments):
            raise AssertionError("only its name is written")

        _rebuild_tensor_v2.__module__ = "torch._utils"
        _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
        self.utils._rebuild_tensor_v2 = _rebuild_tensor_v2
        for kind in ("FloatStorage", "BFloat16Storage", "LongStorage"):
            setattr(self.torch, kind, type(kind, (), {"__module__": "torch"}))

    def write(self, path, entries, storages, extra=None):
        """`entries`: name to (kind, key, offset, shape, strides); `storages`: key to bytes."""
        torch, rebuild = self.torch, self.utils._rebuild_tensor_v2

        class Storage:
            def __init__(self, kind, key):
                self.identifier = ("storage", getattr(torch, kind), key, "cpu", 0)

        class Tensor:
            def __init__(self, kind, key, offset, shape, strides):
                self.arguments = (Storage(kind, key), offset, shape, strides, False, OrderedDict())

            def __reduce__(self):
                return rebuild, self.arguments

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                return value.identifier if isinstance(value, Storage) else None

        content = OrderedDict((name, Tensor(*entry)) for name, entry in entries.items())
        content.update(extra or {})
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("weights/data.pkl", "w") as file:
                Pickler(file, protocol=2).dump(content)
            for key, data in storages.items():
                archive.writestr(f"weights/data/{key}", data)


def test_zip_checkpoint_with_offsets_and_strides(tmp_path, monkeypatch):
    numbers = np.arange(10, dtype=np.float32)
    counts = np.arange(3)
    halves = jnp.arange(4, dtype=jnp.bfloat16)
    TorchLike(monkeypatch).write(
        tmp_path / "w.pth",
        {
            "a": ("FloatStorage", "0", 2, (2, 3), (1, 2)),
            "b": ("LongStorage", "1", 0, (3,), (1,)),
            "c": ("BFloat16Storage", "2", 0, (2, 2), (2, 1)),
            "scalar": ("LongStorage", "1", 2, (), ()),
        },
        {"0": numbers.tobytes(), "1": counts.tobytes(), "2": np.asarray(halves).tobytes()},
    )
    tensors = read_torch_checkpoint(tmp_path / "w.pth")
    np.testing.assert_array_equal(tensors["a"], [[2, 4, 6], [3, 5, 7]])
    np.testing.assert_array_equal(tensors["b"], counts)
    np.testing.assert_array_equal(tensors["c"].astype(np.float32), [[0, 1], [2, 3]])
    assert tensors["scalar"] == 2


def test_tensor_beyond_its_storage_is_refused(tmp_path, monkeypatch):
    TorchLike(monkeypatch).write(
        tmp_path / "w.pth", {"a": ("FloatStorage", "0", 0, (4,), (2,))}, {"0": bytes(24)}
    )
    with pytest.raises(CheckpointError, match="a reaches beyond"):
        read_torch_checkpoint(tmp_path / "w.pth")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch should_not_exist",)


def test_code_in_a_checkpoint_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TorchLike(monkeypatch).write("w.pth", {}, {}, extra={"evil": Malicious()})
    with pytest.raises(CheckpointError, match=r"w\.pth.*posix\.system"):
        read_torch_checkpoint("w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointError, match=r"plain\.pth.*posix\.system"):
        read_torch_checkpoint("plain.pth")
    assert not (tmp_path / "should_not_exist").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"a": 1})])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        read_torch_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "model"])
def test_checkpoints_that_torch_wrote(tmp_path, zipped, wrapper):
    torch = pytest.importorskip("torch")
    shared = torch.arange(24.0)
    state = OrderedDict(
        plain=torch.randn(3, 4),
        transposed=shared[4:16].reshape(3, 4).T,
        parameter=torch.nn.Parameter(torch.randn(2)),
        half=torch.randn(5).to(torch.bfloat16),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
    )
    content = {wrapper: state, "epoch": 3} if wrapper else state
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    tensors = read_torch_checkpoint(path)
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(tensors[name].astype(np.float32), expected)
    whole = path.read_bytes()
    for end in [900] if zipped else [900, -20, -1]:
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            read_torch_checkpoint(path)


def test_network_round_trip(tmp_path):
    net, other = ERNet(SMALL, rngs=nnx.Rngs(0)), ERNet(SMALL, rngs=nnx.Rngs(1))
    path = tmp_path / "net.safetensors"
    export_network(net, path)
    import_network(other, path)
    for name, variable in named_variables(net).items():
        np.testing.assert_array_equal(variable[...], named_variables(other)[name][...])
    with safetensors.safe_open(path, "numpy") as file:
        assert '"backbone": "resnet18"' in file.metadata()["run"]
        assert "desim.right.blocks.0.attention.query.kernel" in set(file.keys())
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_network_of_another_size_is_reported(tmp_path):
    export_network(ERNet(SMALL, rngs=nnx.Rngs(0)), tmp_path / "net.safetensors")
    other = ERNet(ERConfig(**(vars(SMALL) | {"use_deocc": False})), rngs=nnx.Rngs(0))
    with pytest.raises(WeightError, match=r"surplus: deocc\.hand"):
        import_network(other, tmp_path / "net.safetensors")
