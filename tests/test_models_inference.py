"""The form for use: folded norms, padded batches, the exported program."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import nnx

from er_jax.inference.export import export_onnx, export_stablehlo
from er_jax.inference.onnx_program import onnx_program
from er_jax.inference.reconstructor import Reconstructor, fold_batch_norms
from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet
from er_jax.models.layers import BatchNorm
from er_jax.models.weights.import_export import named_variables

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


@pytest.mark.slow
def test_a_rematerialised_backbone_serves_as_any_other(expected, tmp_path):
    net = trained_like(dataclasses.replace(RESNET, remat_backbone=True))
    assert_same(Reconstructor(net, load_hands(None), batch_sizes=(3,))(images(3)), expected)
    export_stablehlo(net, load_hands(None), tmp_path / "er.stablehlo")


def test_intermediate_outputs_on_request(net):
    names = ("heatmaps", "deocc_attention")
    reconstruct = Reconstructor(net, load_hands(None), collect=names, batch_sizes=(2,))
    found = reconstruct(images(1)).intermediates
    assert {name: array.shape for name, array in found.items()} == {
        "heatmaps": (1, 2, 21, 4, 2, 2),
        "deocc_attention": (1, 2, 1, 2, 4, 4),
    }


@pytest.mark.parametrize(
    "backbone", ["resnet50", pytest.param("tinyvit5m", marks=pytest.mark.slow)]
)
def test_every_batch_norm_is_folded(backbone):
    net = trained_like(ERConfig(backbone=backbone, backbone_width=8, **SMALL)).backbone
    folded = fold_batch_norms(net)
    assert not any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(folded))
    image = images(1).astype(np.float32) / 255
    run = nnx.jit(lambda net, image: net(image))
    expected = run(net, image)
    assert abs(run(folded, image) - expected).max() < 1e-4 * abs(expected).max()


@pytest.mark.slow
def test_exported_program_runs_without_this_project(net, expected, tmp_path):
    export_stablehlo(net, load_hands(None), tmp_path / "er.stablehlo")
    np.save(tmp_path / "images.npy", images(3).astype(np.float32) / 255)
    names = ("er.stablehlo", "images.npy", "outputs.npz")
    command = [sys.executable, "-c", LOADER, *(str(tmp_path / name) for name in names)]
    subprocess.run(command, check=True, cwd=tmp_path)
    outputs = np.load(tmp_path / "outputs.npz")
    assert set(outputs) == set(vars(expected)) - {"intermediates", "presence_logit"}
    for name in outputs:
        np.testing.assert_allclose(outputs[name], getattr(expected, name), atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_presence": True},
        pytest.param({"backbone": "resnet50", "precision": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"backbone": "tinyvit5m"}, marks=pytest.mark.slow),
        {"use_desim": False, "use_deocc": False, "use_fusejoint": False, "remat_backbone": True},
    ],
    ids=["resnet18", "resnet50, bfloat16", "tinyvit5m", "without modules, remat"],
)
def test_onnx_runtime_computes_what_jax_does(changes, tmp_path):
    net = trained_like(dataclasses.replace(RESNET, **changes))
    export_onnx(net, load_hands(None), tmp_path / "er.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "er.onnx")
    names = [output.name for output in session.get_outputs()]
    exact = trained_like(dataclasses.replace(net.config, precision="float32"))
    batch = images(3).astype(np.float32) / 255
    expected = nnx.jit(lambda net, images, hands: net(images, hands))(
        exact, batch, load_hands(None)
    )
    without = set() if net.config.use_presence else {"presence_logit"}
    assert set(names) == set(vars(expected)) - {"intermediates"} - without
    for count in (1, 3):  # one program for any batch
        outputs = session.run(names, {"images": batch[:count]})
        for name, array in zip(names, outputs, strict=True):
            whole = np.asarray(getattr(expected, name))
            scale = abs(whole).max()
            assert array.shape == whole[:count].shape
            np.testing.assert_allclose(array / scale, whole[:count] / scale, atol=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.arctan2(x[..., 0] - 0.5, x[..., 1] - 0.5),
        lambda x: jnp.arctan2(0 * x[..., 0], 0 * x[..., 1]),
        lambda x: x[:, ::-1, 1:7:2].sum((1, 3)) - x.max((2, 3))[:, :3],
        lambda x: jnp.where(x.sum(-1) > 1.5, jnp.sign(x[..., 0] - 0.5), x[..., 2] ** 3),
        lambda x: jnp.stack([*jnp.unstack(x, axis=-1), jnp.ones(x.shape[:-1])], axis=1)[:, [3, 0]],
        lambda x: jnp.einsum("nyxc,nzxc->zny", x, x) + jnp.arange(8.0),
        lambda x: jnp.concatenate(jnp.split(x.reshape(-1, 8, 3), [2, 5], axis=1), axis=1),
        lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)))[:, :, 0].swapaxes(1, 2),
        lambda x: jnp.broadcast_to(x.mean((1, 2), keepdims=True), (2, *x.shape))[1],
    ],
)
def test_primitives_as_onnx_operators(function):
    model = onnx_program(lambda x: {"output": function(x)}, 8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    (output,) = session.run(None, {"images": images})
    expected = function(jnp.asarray(images))
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: jax.lax.cond(x.sum() > 1, jnp.sin, jnp.cos, x), "cond"),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y * x, x), "scan"),
        (lambda x: jnp.take(x, x[0, 0, 0, :1].astype(int), axis=1), "gather"),
        (lambda x: jax.lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "padding"),
        (lambda x: jax.lax.pad(x, 0.0, [(0, 0, 0), (-1, 0, 0), (0, 0, 0), (0, 0, 0)]), "padding"),
        (lambda x: jax.lax.conv(x, jnp.ones((3, 8, 1, 1)), (1, 1), "SAME"), "convolution"),
    ],
)
def test_what_has_no_onnx_operators_is_named(function, primitive):
    with pytest.raises(NotImplementedError, match=primitive):
        onnx_program(lambda x: {"output": function(x)}, 8)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / len(x),
        lambda x: jnp.concatenate([x, x[:1]]),
        lambda x: x[: len(x) - 1],
    ],
)
def test_a_program_that_holds_for_one_size_of_the_batch_is_refused(function):
    with pytest.raises(ValueError, match="the batch's size"):
        onnx_program(lambda x: {"output": function(x)}, 8)
