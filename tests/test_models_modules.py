"""The network's modules against float64 NumPy written from the specification's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, softmax

from er_jax.models.config import ERConfig
from er_jax.models.deocc import DeOcc
from er_jax.models.desim import DeSim
from er_jax.models.fusejoint import FuseJoint, sample_grid
from er_jax.models.heads import Pose, RelativeTranslation, project_weakly
from er_jax.models.heatmaps import HandStream, JointHeatmaps, expected_cell, spatial_softmax
from er_jax.models.per_hand import PerHand
from er_jax.models.weights.import_export import named_variables

CONFIG = ERConfig(input_size=128, feature_dim=16, heads=4, depth_bins=5)
BATCH, TOKENS, C = 3, 16, 16


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def randomised(module, seed=0):
    """Gives every weight a value that makes errors visible; returns the module and the weights."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, variable in named_variables(module).items():
        value = rng.normal(size=variable.shape) * 0.3
        if name.endswith(("scale", "var")):
            value = 1 + np.abs(value)
        variable[...] = jnp.asarray(value, jnp.float32)
        weights[name] = np.asarray(variable[...], np.float64)
    return module, weights


def part(weights, prefix):
    prefix += "."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def layer_norm(x, w):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * w["scale"] + w["bias"]


def mlp(x, w):
    hidden = x @ w["expand.kernel"] + w["expand.bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return hidden @ w["project.kernel"] + w["project.bias"]


def attend(queries, context, w, heads=4):
    """One batch item, one head at a time."""
    output = np.zeros_like(queries)
    for item in range(len(queries)):
        q = queries[item] @ w["query.kernel"]
        k, v = context[item] @ w["key.kernel"], context[item] @ w["value.kernel"]
        size = q.shape[1] // heads
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            weights = softmax(q[:, cut] @ k[:, cut].T / np.sqrt(size), axis=1)
            output[item, :, cut] = weights @ v[:, cut]
    return output @ w["output.kernel"] + w["output.bias"]


def sat(x, w):
    normed = layer_norm(x, part(w, "attention_norm"))
    x = x + attend(normed, normed, part(w, "attention"))
    return x + mlp(layer_norm(x, part(w, "mlp_norm")), part(w, "mlp"))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_desim():
    module, w = randomised(DeSim(CONFIG, nnx.Rngs(0)))
    x = normal(1, BATCH, TOKENS, C)
    output, attention = module(jnp.asarray(x, jnp.float32))
    x = x + w["position"]
    for block in range(2):
        x = sat(x, part(w, f"blocks.{block}"))
    x = x @ w["linear.kernel"] + w["linear.bias"]
    x = x + mlp(layer_norm(x, part(w, "norm")), part(w, "mlp"))
    assert_close(output, x)
    assert attention.shape == (BATCH, 2, 4, TOKENS, TOKENS)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_deocc(shared):
    config = ERConfig(
        input_size=128, feature_dim=16, heads=4, deocc_depth=2, deocc_shared_weights=shared
    )
    module, w = randomised(DeOcc(config, nnx.Rngs(0)))
    x = normal(1, BATCH, 2, TOKENS, C)
    output, attention = module(jnp.asarray(x, jnp.float32))

    r, l = (x[:, hand] + w["hand"][hand] for hand in range(2))  # noqa: E741

    def look(tokens, other, layer, hand):
        wl = part(w, f"layers.{layer}" if shared else f"layers.{layer}.{hand}")
        norm = part(wl, "attention_norm")
        tokens = tokens + attend(
            layer_norm(tokens, norm), layer_norm(other, norm), part(wl, "attention")
        )
        return tokens + mlp(layer_norm(tokens, part(wl, "mlp_norm")), part(wl, "mlp"))

    for layer in range(2):
        r, l = look(r, l, layer, "right"), look(l, r, layer, "left")  # noqa: E741
    for hand, tokens in enumerate((r, l)):
        prior = layer_norm(tokens, part(w, "norm")) @ w["linear.kernel"] + w["linear.bias"]
        assert_close(output[:, hand], prior)
    assert attention.shape == (BATCH, 2, 2, 4, TOKENS, TOKENS)


def test_fusejoint():
    module, w = randomised(FuseJoint(CONFIG, nnx.Rngs(0)))
    samples, joints = normal(1, BATCH, 21, C), normal(2, BATCH, 21, 3)
    output, _ = module(jnp.asarray(samples, jnp.float32), jnp.asarray(joints, jnp.float32))
    x = samples + joints @ w["coordinates.kernel"] + w["coordinates.bias"] + w["joint"]
    for block in range(2):
        x = sat(x, part(w, f"blocks.{block}"))
    assert_close(output, x)


def test_hand_stream():
    module, w = randomised(HandStream(CONFIG, 7, nnx.Rngs(0)))
    module.eval()
    x = normal(1, BATCH, 4, 4, 7)
    expected = x @ w["conv.kernel"][0, 0]
    expected = (expected - w["bn.mean"]) / np.sqrt(w["bn.var"] + 1e-5)
    expected = np.maximum(expected * w["bn.scale"] + w["bn.bias"], 0)
    assert_close(module(jnp.asarray(x, jnp.float32)), expected)


def test_soft_argmax():
    logits = 3 * normal(0, BATCH, 6, 4, 21, 5)  # rows, columns, joints, depths
    expected, squares = np.zeros((BATCH, 21, 3)), np.zeros((BATCH, 21))
    for b, y, x, j, z in np.ndindex(logits.shape):
        weight = np.exp(logits[b, y, x, j, z]) / np.exp(logits[b, :, :, j]).sum()
        expected[b, j] += weight * np.array([x, y, z])
        squares[b, j] += weight * (x * x + y * y + z * z)
    cells, spread = expected_cell(spatial_softmax(jnp.asarray(logits, jnp.float32)))
    np.testing.assert_allclose(cells, expected, atol=1e-4)
    np.testing.assert_allclose(spread**2, squares - (expected**2).sum(-1), atol=1e-3)


def test_heatmap_channels_are_joint_major():
    module, w = randomised(JointHeatmaps(CONFIG, nnx.Rngs(0)))
    x = normal(1, BATCH, 4, 4, C)
    channels = x @ w["conv.kernel"][0, 0] + w["conv.bias"]
    logits = module(jnp.asarray(x, jnp.float32))
    j, d = 13, 2
    assert_close(logits[..., j, d], channels[..., j * CONFIG.depth_bins + d])


def test_bilinear_sampling():
    grid, points = (
        normal(0, BATCH, 4, 6, C),
        np.random.default_rng(1).uniform(-2, 7, (BATCH, 40, 2)),
    )
    points[:, :4] = [(0, 0), (5, 3), (2, 1), (5.5, 3.5)]
    expected = np.zeros((BATCH, 40, C))
    for b, p in np.ndindex(BATCH, 40):
        x, y = points[b, p]
        for row in (np.floor(y), np.floor(y) + 1):
            for column in (np.floor(x), np.floor(x) + 1):
                if 0 <= row < 4 and 0 <= column < 6:
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    expected[b, p] += weight * grid[b, int(row), int(column)]
    sampled = sample_grid(jnp.asarray(grid, jnp.float32), jnp.asarray(points, jnp.float32))
    np.testing.assert_allclose(sampled, expected, atol=1e-5)
    np.testing.assert_allclose(sampled[:, 1], grid[:, 3, 5], atol=1e-6)


def test_relative_translation():
    module, w = randomised(RelativeTranslation(CONFIG, nnx.Rngs(0)))
    pooled = normal(1, BATCH, 2, C)
    hidden = np.concatenate([pooled[:, 0], pooled[:, 1]], -1) @ w["hidden.kernel"]
    hidden = np.maximum(hidden + w["hidden.bias"], 0)
    expected = hidden @ w["output.kernel"] + w["output.bias"]
    assert_close(module(jnp.asarray(pooled, jnp.float32)), expected)


def test_pose():
    module, w = randomised(Pose(CONFIG, nnx.Rngs(0)))
    features, joints = normal(1, BATCH, 21, C), normal(2, BATCH, 21, 3)
    flat = np.concatenate([features, joints], -1).reshape(BATCH, -1)
    root = flat @ w["root.kernel"] + w["root.bias"]
    others = flat @ w["joints.kernel"] + w["joints.bias"]
    identity = np.array([1, 0, 0, 0, 1, 0])
    rot6d = identity + np.concatenate([root, others], -1).reshape(BATCH, 16, 6)
    first = rot6d[..., :3] / np.linalg.norm(rot6d[..., :3], axis=-1, keepdims=True)
    second = rot6d[..., 3:] - (first * rot6d[..., 3:]).sum(-1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    expected = np.stack([first, second, np.cross(first, second)], -1)
    assert_close(
        module(jnp.asarray(features, jnp.float32), jnp.asarray(joints, jnp.float32)), expected
    )


def test_weak_projection():
    points, camera = normal(0, BATCH, 2, 21, 3), normal(1, BATCH, 2, 3)
    expected = camera[..., None, :1] * points[..., :2] + camera[..., None, 1:]
    np.testing.assert_allclose(project_weakly(points, camera), expected)


def test_both_hands_apply_their_own_weights():
    module = PerHand(lambda: FuseJoint(CONFIG, nnx.Rngs(0)))
    randomised(module.right, 0)
    randomised(module.left, 1)
    samples, joints = jnp.ones((BATCH, 2, 21, C)), jnp.ones((BATCH, 2, 21, 3))
    both, _ = module(samples, joints)
    right, _ = module.right(samples[:, 0], joints[:, 0])
    left, _ = module.left(samples[:, 1], joints[:, 1])
    np.testing.assert_array_equal(both, jnp.stack([right, left], 1))
    assert np.abs(right - left).max() > 0.1


def test_dropout_needs_a_source_and_only_in_training():
    config = ERConfig(input_size=128, feature_dim=16, heads=4, dropout=0.5)
    module = DeSim(config, nnx.Rngs(0))
    tokens = jnp.ones((1, TOKENS, C))
    with pytest.raises(ValueError):
        module(tokens)
    module(tokens, rngs=nnx.Rngs(dropout=jax.random.key(0)))
    module.eval()
    module(tokens)
