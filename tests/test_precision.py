"""Lengths are computed at full precision on every device, whatever the network's precision.

GPUs and TPUs round the operands of float32 products to 10 or 7 bits unless asked not to, which no
test on a CPU can see in numbers. So these tests look at the programs.
"""

import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr
from scipy.spatial.transform import Rotation

from er_jax.evaluation.evaluate import batch_errors
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import load_hands, mano_forward
from er_jax.models import ERConfig, ERNet
from er_jax.models.heatmaps import expected_cell, spatial_softmax
from er_jax.supervision.loaders import Split
from er_jax.supervision.targets import make_targets

TINY = {"backbone": "resnet18", "backbone_width": 8, "input_size": 64, "feature_dim": 16}
TINY |= {"heads": 2, "depth_bins": 4, "desim_depth": 1, "deocc_depth": 1, "fusejoint_depth": 1}
FULL = (jax.lax.Precision.HIGHEST,) * 2


def equations(jaxpr: Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    """All equations of a program, those of its loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(inner, ClosedJaxpr):
                yield from equations(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from equations(inner)


def products(function, *arguments) -> list[jax.extend.core.JaxprEqn]:
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    names = ("dot_general", "conv_general_dilated")
    return [equation for equation in equations(program) if equation.primitive.name in names]


def assert_full_precision(found, at_least):
    assert len(found) >= at_least
    for product in found:
        assert product.params["precision"] == FULL, f"{product}\n{product.source_info.traceback}"
        assert {x.aval.dtype for x in product.invars} == {jnp.dtype("float32")}


@pytest.fixture
def batch(tiny_config):
    return next(iter(Split.of(tiny_config, "test")))


def test_lengths_of_targets_and_hands(batch):
    hands = load_hands(None)
    assert_full_precision(products(make_targets, hands, batch), at_least=8)
    pose, betas = jnp.zeros((3, 2, 48)), jnp.zeros((3, 2, 10))

    def squares(betas, pose):
        mesh = mano_forward(hands, betas, pose)
        return (mesh.vertices**2).sum() + (mesh.joints**2).sum()

    assert_full_precision(products(jax.grad(squares, argnums=(0, 1)), betas, pose), at_least=4)


def test_lengths_of_errors(batch):
    hands = load_hands(None)
    truth = make_targets(hands, batch)
    meshes = ReconstructedMeshes(truth.mano_mesh_cam, truth.mano_joint_cam, truth.rel_trans)
    assert_full_precision(products(batch_errors, meshes, truth, batch), at_least=2)


def test_an_expected_cell_has_no_product():
    logits = jnp.zeros((2, 8, 8, 21, 8))
    assert not products(lambda x: expected_cell(spatial_softmax(x)), logits)


def test_after_the_last_feature_map_all_is_float32():
    """With bfloat16, every product is either of features in bfloat16 or in float32."""
    net = ERNet(ERConfig(**TINY, precision="bfloat16"), rngs=nnx.Rngs(0))
    net.eval()
    of_places = {
        "rel_trans": net.relative_translation.output.kernel,
        "joints": net.pose.right.joints.kernel,
        "root": net.pose.right.root.kernel,
        "shape": net.shape_and_camera.right.shape.kernel,
        "camera": net.shape_and_camera.right.camera.kernel,
        "coordinates": net.fusejoint.right.coordinates.kernel,
        "heatmaps": net.joint_heatmaps.right.conv.kernel,
    }
    found = products(net, jnp.zeros((1, 64, 64, 3)), load_hands(None))
    assert {x.aval.dtype for product in found for x in product.invars} == {
        jnp.dtype("float32"),
        jnp.dtype("bfloat16"),
    }
    exact = [product for product in found if product.params["precision"] == FULL]
    outputs = [product.outvars[0].aval.shape[-1] for product in exact]
    for name, kernel in of_places.items():
        assert kernel.shape[-1] in outputs, name
    assert {x.aval.dtype for product in exact for x in product.invars} == {jnp.dtype("float32")}


def test_a_perfect_network_is_not_rounded():
    """Layers whose biases are the truth give it back to 0.01 mm when features are in bfloat16."""
    net, hands = ERNet(ERConfig(**TINY, precision="bfloat16"), rngs=nnx.Rngs(0)), load_hands(None)
    net.eval()
    random = np.random.default_rng(0)
    rel_trans = jnp.asarray([0.1234567, -0.0456789, 0.2345678])
    net.relative_translation.output.bias[...] = rel_trans
    net.relative_translation.output.kernel[...] *= 0
    poses, betas = [], []
    for hand in ("right", "left"):
        pose, shape = getattr(net.pose, hand), getattr(net.shape_and_camera, hand).shape
        for layer, spread in ((pose.root, 0.3), (pose.joints, 0.3), (shape, 1.0)):
            layer.kernel[...] *= 0
            layer.bias[...] = jnp.asarray(random.normal(0, spread, layer.bias.shape), jnp.float32)
        columns = np.concatenate([pose.root.bias[...], pose.joints.bias[...]]).reshape(16, 2, 3)
        x, y = np.moveaxis(columns.astype(np.float64) + np.eye(3)[:2], 1, 0)
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
        y -= (x * y).sum(-1, keepdims=True) * x
        y /= np.linalg.norm(y, axis=-1, keepdims=True)
        matrices = np.stack([x, y, np.cross(x, y)], axis=-1)
        poses.append(Rotation.from_matrix(matrices).as_rotvec().reshape(48))
        betas.append(np.asarray(shape.bias[...]))
    image = jnp.asarray(random.uniform(size=(1, 64, 64, 3)), jnp.float32)
    prediction = jax.jit(net)(image, hands)
    truth = mano_forward(hands, np.stack(betas), np.stack(poses).astype(np.float32))
    expected = truth.vertices - truth.joints[:, :1]
    assert 1000 * jnp.abs(prediction.vertices[0] - expected).max() < 0.01
    assert 1000 * jnp.abs(prediction.rel_trans[0] - rel_trans).max() < 0.01


def test_programs_for_cuda_keep_their_precision_and_call_no_host(batch):
    """Lowered for a GPU, which needs none."""
    hands = load_hands(None)

    def errors_of_truth(hands, batch):
        truth = make_targets(hands, batch)
        meshes = ReconstructedMeshes(truth.mano_mesh_cam, truth.mano_joint_cam, truth.rel_trans)
        return batch_errors(meshes, truth, batch)

    program = jax.jit(errors_of_truth).trace(hands, batch).lower(lowering_platforms=("cuda",))
    found = re.findall(r"stablehlo\.dot_general.*", program.as_text())
    assert len(found) >= 8
    for line in found:
        assert "precision = [HIGHEST, HIGHEST]" in line
    assert "callback" not in program.as_text()
    assert "f64" not in program.as_text()


def test_errors_are_no_loop_of_small_kernels_on_a_gpu(batch):
    """A loop over pieces is for a CPU's cache; F-scores, a few at a time, are left out here."""
    hands = load_hands(None)
    truth = make_targets(hands, batch)
    meshes = ReconstructedMeshes(truth.mano_mesh_cam, truth.mano_joint_cam, truth.rel_trans)

    def errors(meshes, truth, batch):
        return batch_errors(meshes, truth, batch, f_scores=False)

    loops = {
        platform: jax.jit(errors)
        .trace(meshes, truth, batch)
        .lower(lowering_platforms=(platform,))
        .as_text()
        .count("stablehlo.while")
        for platform in ("cuda", "cpu")
    }
    assert loops["cuda"] == 0
    assert loops["cpu"] > 0
