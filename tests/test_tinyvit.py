"""TinyViT against timm, stage by stage, and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from er_jax.models.backbones import make_backbone
from er_jax.models.config import ERConfig
from er_jax.models.weights.import_export import load_backbone


def tinyvit(name):
    return make_backbone(ERConfig(backbone=name), nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "millions", "channels"),
    [("tinyvit5m", 5.07, 320), ("tinyvit11m", 10.55, 448), ("tinyvit21m", 20.62, 576)],
)
@pytest.mark.parametrize("side", [224, 256])
def test_sizes(name, millions, channels, side):
    net = nnx.eval_shape(lambda: tinyvit(name))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
    assert round(parameters / 1e6, 2) == millions
    assert net.channels == channels
    output = jax.eval_shape(lambda: tinyvit(name)(jnp.zeros((1, side, side, 3))))
    assert output.shape == (1, side // 32, side // 32, channels)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("side", [224, 256])
def test_stages_equal_timm(side, train, tmp_path):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tiny_vit_5m_224")
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.0)
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
            if hasattr(module, "attention_biases"):
                module.attention_biases.normal_(0, 1)
    theirs.train(train)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = tinyvit("tinyvit5m")
    load_backbone(ours, tmp_path / "weights.pth")
    ours.train() if train else ours.eval()

    image = np.random.default_rng(0).uniform(size=(1, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = [theirs.patch_embed(torch.from_numpy(image).permute(0, 3, 1, 2))]
        for stage in theirs.stages:
            expected.append(stage(expected[-1]))
    outputs = nnx.jit(lambda net, image: net.stage_outputs(image))(ours, image)
    for output, reference in zip(outputs, expected, strict=True):
        reference = reference.permute(0, 2, 3, 1).numpy()
        assert np.abs(output - reference).max() <= 1e-4 * np.abs(reference).max()
