"""The layers shared by every module: linear, convolution, batch and layer norm, embeddings.

Parameters are float32; products run in `dtype`. Initialisation: convolutions N(0, 0.001²), linear
layers N(0, 0.01²), biases 0, norms 1 and 0.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.lax import Precision
from jaxtyping import Float

from er_jax.models.convolution import convolve, convolve_depthwise, multiply

LAYER_NORM_EPSILON = 1e-6
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9

LayerNorm = partial(nnx.LayerNorm, epsilon=LAYER_NORM_EPSILON)


def normal(shape: tuple[int, ...], std: float, rngs: nnx.Rngs) -> nnx.Param:
    """A parameter drawn from N(0, std²).

    NumPy draws it, from a seed that JAX gives: compiling a generator for each of the network's
    shapes would take longer than all else before the first step. While tracing, which asks for
    shapes alone, it is zero.
    """
    key = rngs.params()
    if isinstance(key, jax.core.Tracer):
        return nnx.Param(jnp.zeros(shape))
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return nnx.Param(jnp.asarray(np.float32(std) * generator.standard_normal(shape, np.float32)))


def constant(value: float, size: int) -> nnx.Param:
    """A vector that starts at one value."""
    return nnx.Param(jnp.asarray(np.full(size, value, np.float32)))


class Linear(nnx.Module):
    """inputs · kernel + bias over the last axis; the product runs in `dtype` at `precision`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: jnp.dtype,
        precision: Precision | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = normal((in_features, out_features), 0.01, rngs)
        self.bias = constant(0, out_features) if use_bias else nnx.data(None)
        self.dtype = dtype
        self.precision = precision

    def __call__(self, inputs: Float[Array, "*batch in_features"]) -> Array:
        inputs, kernel = inputs.astype(self.dtype), self.kernel[...].astype(self.dtype)
        output = multiply(inputs, kernel, self.precision)
        return output if self.bias is None else output + self.bias[...].astype(self.dtype)


class Regressor(Linear):
    """A linear layer of lengths, angles or coordinates, which bfloat16 or TF32 would round."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        super().__init__(
            in_features,
            out_features,
            dtype=jnp.dtype(jnp.float32),
            precision=Precision.HIGHEST,
            rngs=rngs,
        )


class Convolution(nnx.Module):
    """A square convolution with equal strides, NHWC, padded so that stride 1 keeps the size.

    A `depthwise` one gives each channel a kernel of its own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        use_bias: bool = False,
        dtype: jnp.dtype,
        precision: Precision | None = None,
        rngs: nnx.Rngs,
        std: float = 0.001,
    ):
        shape = (size, size, 1 if depthwise else in_channels, out_channels)
        self.kernel = normal(shape, std, rngs)
        self.bias = constant(0, out_channels) if use_bias else nnx.data(None)
        self.stride = stride
        self.depthwise = depthwise
        self.dtype = dtype
        self.precision = precision

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Array:
        image, kernel = image.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if self.depthwise:
            output = convolve_depthwise(image, kernel, self.stride)
        else:
            output = convolve(image, kernel, self.stride, self.precision)
        return output if self.bias is None else output + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, its statistics in float32.

    In training (`module.train()`) the statistics are the batch's, averaged over the pmap axis
    `axis_name` where one is given, and the running ones move towards them by 1 − momentum.
    A `frozen` norm always uses the running ones and leaves them as they are.
    """

    def __init__(self, channels: int, *, axis_name: str | None, dtype: jnp.dtype):
        self.scale = constant(1, channels)
        self.bias = constant(0, channels)
        self.mean = nnx.BatchStat(jnp.asarray(np.zeros(channels, np.float32)))
        self.var = nnx.BatchStat(jnp.asarray(np.ones(channels, np.float32)))
        self.axis_name = axis_name
        self.dtype = dtype
        self.frozen = False
        self.use_running_average = False

    def __call__(self, inputs: Float[Array, "*batch channels"]) -> Array:
        if self.use_running_average or self.frozen:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(inputs)
        scale = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        shift = self.bias[...] - mean * scale
        return (inputs * scale + shift).astype(self.dtype)

    def _batch_statistics(self, inputs: Array) -> tuple[Array, Array]:
        inputs = inputs.astype(jnp.float32).reshape(-1, inputs.shape[-1])
        mean, mean_of_squares = inputs.mean(axis=0), jnp.square(inputs).mean(axis=0)
        if self.axis_name is not None:
            mean, mean_of_squares = jax.lax.pmean((mean, mean_of_squares), self.axis_name)
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
        for running, batch in ((self.mean, mean), (self.var, var)):
            running[...] = BATCH_NORM_MOMENTUM * running[...] + (
                1 - BATCH_NORM_MOMENTUM
            ) * jax.lax.stop_gradient(batch)
        return mean, var


class MLP(nnx.Module):
    """Linear, exact GELU, Linear, with `ratio` times the features between."""

    def __init__(
        self, features: int, ratio: int, *, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.expand = Linear(features, ratio * features, dtype=dtype, rngs=rngs)
        self.project = Linear(ratio * features, features, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, inputs: Array, rngs: nnx.Rngs | None = None) -> Array:
        return self.dropout(self.project(gelu(self.expand(inputs))), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes a backbone's layers, all of one type and with one batch-norm axis."""

    axis_name: str | None
    dtype: jnp.dtype
    rngs: nnx.Rngs
    he_normal: bool = False  # start from He et al. 2015, fan out, as torchvision; else as the rest

    def convolution(
        self, channels: int, filters: int, size: int, stride: int = 1, *, depthwise: bool = False
    ) -> Convolution:
        fan_out = size**2 * (1 if depthwise else filters)
        return Convolution(
            channels,
            filters,
            size,
            stride=stride,
            depthwise=depthwise,
            dtype=self.dtype,
            rngs=self.rngs,
            std=math.sqrt(2 / fan_out) if self.he_normal else 0.001,
        )

    def norm(self, channels: int) -> BatchNorm:
        return BatchNorm(channels, axis_name=self.axis_name, dtype=self.dtype)

    def linear(self, in_features: int, out_features: int) -> Linear:
        return Linear(in_features, out_features, dtype=self.dtype, rngs=self.rngs)


def gelu(inputs: Array) -> Array:
    """x·Φ(x) with the error function itself (Hendrycks and Gimpel, 2016).

    `jax.nn.gelu` computes it by erfc, which ONNX has not.
    """
    return 0.5 * inputs * (1 + jax.lax.erf(inputs * 0.5**0.5))


@nnx.remat
def rematerialised(block: nnx.Module, inputs: Array) -> Array:
    """block(inputs), computed again in the backward pass instead of being kept for it."""
    return block(inputs)
