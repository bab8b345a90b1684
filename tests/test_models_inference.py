"""The form for use: folded norms, padded batches, the exported program."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet
from er_jax.models.inference import Reconstructor, export_program, fold_batch_norms
from er_jax.models.layers import BatchNorm
from er_jax.models.params import named_variables

SMALL = {
    "input_size": 64,
    "feature_dim": 16,
    "depth_bins": 4,
    "heads": 2,
    "desim_depth": 1,
    "deocc_depth": 1,
    "fusejoint_depth": 1,
}
RESNET = ERConfig(backbone="resnet18", backbone_width=8, backbone_init="he", **SMALL)
LOADER = """
import sys
from pathlib import Path
import jax, numpy as np
program = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
images = np.load(sys.argv[2])
np.savez(sys.argv[3], **program.call(images))
assert program.platforms == ("cpu", "cuda")
assert not [name for name in sys.modules if name.startswith(("er_jax", "flax"))]
"""


def trained_like(config):
    """A network whose batch norms hold statistics that are not those of the start."""
    net = ERNet(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for name, variable in named_variables(net).items():
        if name.endswith(("mean", "bias")):
            variable[...] = rng.normal(size=variable.shape).astype(np.float32) * 0.1
        elif name.endswith(("var", "scale")):
            variable[...] = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
    net.eval()
    return net


def images(count):
    return np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3), np.uint8)


def assert_same(prediction, expected):
    for ours, theirs in zip(jax.tree.leaves(prediction), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.fixture(scope="module")
def net():
    return trained_like(RESNET)


@pytest.fixture(scope="module")
def expected(net):
    """Of three images, by the network as it is."""
    return nnx.jit(lambda net, image, hands: net(image, hands))(
        net, images(3).astype(np.float32) / 255, load_hands(None)
    )


@pytest.mark.parametrize("kept", [False, True], ids=["weights in the program", "kept programs"])
def test_padded_batches(net, expected, kept, monkeypatch, tmp_path):
    folder = str(tmp_path) if kept else None
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", folder)
    reconstruct = Reconstructor(net, load_hands(None), batch_sizes=(2,))
    assert_same(reconstruct(images(3)), expected)  # a full batch and a padded one
    assert reconstruct(images(0)).vertices.shape == (0, 2, 778, 3)
    assert any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(net))


def test_intermediate_outputs_on_request(net):
    names = ("heatmaps", "deocc_attention")
    reconstruct = Reconstructor(net, load_hands(None), collect=names, batch_sizes=(2,))
    found = reconstruct(images(1)).intermediates
    assert {name: array.shape for name, array in found.items()} == {
        "heatmaps": (1, 2, 21, 4, 2, 2),
        "deocc_attention": (1, 2, 1, 2, 4, 4),
    }


@pytest.mark.parametrize("backbone", ["resnet50", "tinyvit5m"])
def test_every_batch_norm_is_folded(backbone):
    net = trained_like(ERConfig(backbone=backbone, backbone_width=8, **SMALL)).backbone
    folded = fold_batch_norms(net)
    assert not any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(folded))
    image = images(1).astype(np.float32) / 255
    run = nnx.jit(lambda net, image: net(image))
    expected = run(net, image)
    assert abs(run(folded, image) - expected).max() < 1e-4 * abs(expected).max()


def test_exported_program_runs_without_this_project(net, expected, tmp_path):
    export_program(net, load_hands(None), tmp_path / "er.stablehlo")
    np.save(tmp_path / "images.npy", images(3).astype(np.float32) / 255)
    names = ("er.stablehlo", "images.npy", "outputs.npz")
    command = [sys.executable, "-c", LOADER, *(str(tmp_path / name) for name in names)]
    subprocess.run(command, check=True, cwd=tmp_path)
    outputs = np.load(tmp_path / "outputs.npz")
    assert set(outputs) == set(vars(expected)) - {"intermediates"}
    for name in outputs:
        np.testing.assert_allclose(outputs[name], getattr(expected, name), atol=2e-5)
