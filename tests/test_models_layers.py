"""The forms of convolution and pooling against XLA's own, and the layers against formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from scipy.special import erf

from er_jax.models.convolution import (
    LAYOUT,
    convolve,
    convolve_depthwise,
    max_pool,
)
from er_jax.models.layers import BatchNorm, gelu


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def xla_convolution(image, kernel, stride, padding, groups=1):
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def output_and_gradients(function, *arguments):
    @jax.jit
    def both(*arguments):
        output, backward = jax.vjp(function, *arguments)
        return output, *backward(jnp.sin(jnp.arange(output.size).reshape(output.shape)))

    return both(*arguments)


@pytest.mark.parametrize(
    ("form", "reference", "image_shape", "kernel_shape"),
    [
        (
            lambda x, k: convolve(x, k, 2),
            lambda x, k: xla_convolution(x, k, 2, 0),
            (2, 8, 8, 5),
            (1, 1, 5, 3),
        ),
        (
            lambda x, k: convolve(x, k, 2),
            lambda x, k: xla_convolution(x, k, 2, 1),
            (2, 8, 9, 5),
            (3, 3, 5, 3),
        ),
        (convolve, lambda x, k: xla_convolution(x, k, 1, 1), (2, 6, 9, 5), (3, 3, 5, 3)),
        (convolve, lambda x, k: xla_convolution(x, k, 1, 2), (2, 6, 9, 5), (5, 5, 5, 3)),
        (
            lambda x, k: convolve(x, k, 2),
            lambda x, k: xla_convolution(x, k, 2, 3),
            (2, 12, 8, 3),
            (7, 7, 3, 5),
        ),
        (
            convolve_depthwise,
            lambda x, k: xla_convolution(x, k, 1, 1, 6),
            (2, 7, 5, 6),
            (3, 3, 1, 6),
        ),
        (
            lambda x, k: convolve_depthwise(x, k, 2),
            lambda x, k: xla_convolution(x, k, 2, 1, 6),
            (2, 8, 6, 6),
            (3, 3, 1, 6),
        ),
    ],
    ids=["pointwise", "strided 3×3", "3×3", "5×5", "strided 7×7", "depthwise", "strided depthwise"],
)
def test_convolution_and_gradients_equal_xla(form, reference, image_shape, kernel_shape):
    image, kernel = normal(0, *image_shape), normal(1, *kernel_shape)
    for ours, expected in zip(
        output_and_gradients(form, image, kernel),
        output_and_gradients(reference, image, kernel),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_depthwise_lowers_to_a_convolution_on_a_gpu():
    image, kernel = normal(0, 1, 4, 4, 6), normal(1, 3, 3, 1, 6)
    lowered = jax.jit(convolve_depthwise).trace(image, kernel).lower(lowering_platforms=("cuda",))
    assert "stablehlo.convolution" in lowered.as_text()
    assert "stablehlo.convolution" not in jax.jit(convolve_depthwise).lower(image, kernel).as_text()


@pytest.mark.parametrize(("platform", "convolutions"), [("cuda", 3), ("cpu", 0)])
def test_gradients_of_depthwise_convolutions_are_left_to_xla_on_a_gpu(platform, convolutions):
    image, kernel = normal(0, 1, 4, 4, 6), normal(1, 3, 3, 1, 6)
    traced = jax.jit(partial(output_and_gradients, convolve_depthwise)).trace(image, kernel)
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count("stablehlo.convolution") == convolutions


def test_max_pool_equals_window_reduction():
    image = normal(0, 2, 8, 6, 3)
    output, gradient = output_and_gradients(max_pool, image)
    expected, expected_gradient = output_and_gradients(
        lambda image: nnx.max_pool(image, (3, 3), (2, 2), ((1, 1), (1, 1))), image
    )
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 1001)
    np.testing.assert_allclose(gelu(x.astype(np.float32)), x * (1 + erf(x / 2**0.5)) / 2, atol=1e-6)


def test_batch_norm_statistics():
    norm = BatchNorm(3, axis_name=None, dtype=jnp.dtype(jnp.float32))
    inputs = np.asarray(3 + 2 * normal(0, 4, 5, 5, 3), np.float64)
    mean, var = inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))
    output = norm(jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(output, (inputs - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, atol=1e-6)
    norm.eval()
    output = norm(jnp.asarray(inputs, jnp.float32))
    expected = (inputs - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_batch_norm_is_synchronised_over_its_axis():
    inputs = 3 + normal(0, 2, 4, 3)  # two shards of four samples
    whole = BatchNorm(3, axis_name=None, dtype=jnp.dtype(jnp.float32))
    expected = whole(inputs.reshape(8, 3))
    shards = BatchNorm(3, axis_name="device", dtype=jnp.dtype(jnp.float32))
    graphdef, state = nnx.split(shards)

    def shard(inputs):
        norm = nnx.merge(graphdef, state, copy=True)
        return norm(inputs), norm.var[...]

    output, var = jax.vmap(shard, axis_name="device")(inputs)
    np.testing.assert_allclose(output.reshape(8, 3), expected, atol=1e-5)
    np.testing.assert_allclose(var, np.stack([whole.var[...]] * 2), atol=1e-6)


def test_frozen_batch_norm_keeps_its_statistics():
    norm = BatchNorm(3, axis_name=None, dtype=jnp.dtype(jnp.float32))
    norm.frozen = True
    norm.train()
    inputs = normal(0, 8, 3)
    np.testing.assert_allclose(norm(inputs), inputs, atol=1e-4)
    np.testing.assert_array_equal(norm.mean[...], 0)
