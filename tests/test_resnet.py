"""ResNet against torchvision, stage by stage, and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from er_jax.models.backbones import make_backbone
from er_jax.models.config import ERConfig
from er_jax.models.weights.import_export import load_backbone


def resnet(name, **options):
    return make_backbone(ERConfig(backbone=name, **options), nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "millions", "channels"),
    [
        ("resnet18", 11.177, 512),
        ("resnet50", 23.508, 2048),
        pytest.param("resnet152", 58.144, 2048, marks=pytest.mark.slow),
    ],
)
def test_sizes(name, millions, channels):
    net = nnx.eval_shape(lambda: resnet(name))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
    assert round(parameters / 1e6, 3) == millions
    assert net.channels == channels
    output = jax.eval_shape(lambda: resnet(name)(jnp.zeros((2, 64, 96, 3))))
    assert output.shape == (2, 2, 3, channels)


def test_width_narrows_every_stage():
    outputs = jax.eval_shape(
        lambda: resnet("resnet18", backbone_width=24).stage_outputs(jnp.zeros((1, 64, 64, 3)))
    )
    assert [output.shape[-1] for output in outputs] == [24, 24, 48, 96, 192]


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match=r"resnet51.*resnet50"):
        resnet("resnet51")


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_stages_equal_torchvision(name, train, tmp_path):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = randomise_torch(torch, getattr(torchvision.models, name)(weights=None)).train(train)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = resnet(name)
    load_backbone(ours, tmp_path / "weights.pth")
    ours.train() if train else ours.eval()

    image = np.random.default_rng(0).uniform(size=(4, 128, 128, 3)).astype(np.float32)
    theirs = theirs.double()  # float32 on both sides would add up two rounding errors
    x = torch.from_numpy(image).double().permute(0, 3, 1, 2)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = [x]
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            expected.append(layer(expected[-1]))
    outputs = nnx.jit(lambda net, image: net.stage_outputs(image))(ours, image)
    for output, reference in zip(outputs, expected, strict=True):
        reference = reference.permute(0, 2, 3, 1).numpy()
        assert np.abs(output - reference).max() <= 1e-4 * np.abs(reference).max()
    if train:
        np.testing.assert_allclose(ours.bn1.mean[...], theirs.bn1.running_mean, atol=1e-5)


def randomise_torch(torch, net):
    """Weights and statistics that are neither symmetric nor trivial, and keep the signal's size."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return net
