"""Convolution and pooling, in the forms that both CPUs and GPUs compute fast.

One form serves all platforms, except of depthwise convolution (`convolve_depthwise`); what CPUs get
besides is listed in `er_jax.utils.xla_cpu`. All of them can be differentiated forward and backward.
"""

from functools import partial, reduce

import jax.numpy as jnp
from jax import Array, lax
from jax.lax import Precision
from jaxtyping import Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int = 1,
    precision: Precision | None = None,
) -> Float[Array, "batch height_out width_out filters"]:
    """Cross-correlates a batch of images with a kernel of odd size, size // 2 zeros on every side.

    A 1×1 convolution is computed as a product of two matrices, and not of an image and a matrix:
    XLA's CPU kernel for the gradient of the latter is five times slower.
    """
    if kernel.shape[0] == 1:
        return multiply(image[:, ::stride, ::stride], kernel[0, 0], precision)
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
        precision=precision,
    )


def multiply(
    inputs: Float[Array, "*batch features"],
    kernel: Float[Array, "features outputs"],
    precision: Precision | None = None,
) -> Float[Array, "*batch outputs"]:
    """Returns inputs @ kernel, as a product of two matrices (see `convolve`)."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    product = jnp.matmul(rows, kernel, precision=precision)
    return product.reshape(*inputs.shape[:-1], kernel.shape[-1])


def convolve_depthwise(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 1 channels"],
    stride: int = 1,
) -> Float[Array, "batch height_out width_out channels"]:
    """A 3×3 convolution of each channel with its own kernel, one zero of padding on every side.

    On a CPU it is a sum of nine shifted images, ten to thirty times as fast as XLA's convolution;
    elsewhere it is left to XLA. The form is chosen when the program is lowered for its platform.
    """
    cpu, other = partial(_depthwise_cpu, stride=stride), partial(_depthwise_xla, stride=stride)
    return lax.platform_dependent(image, kernel, cpu=cpu, default=other)


def _depthwise_xla(image: Array, kernel: Array, *, stride: int) -> Array:
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(1, 1), (1, 1)],
        dimension_numbers=LAYOUT,
        feature_group_count=image.shape[-1],
    )


def _depthwise_cpu(image: Array, kernel: Array, *, stride: int) -> Array:
    height, width = image.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    terms = [
        padded[:, row : row + height : stride, column : column + width : stride]
        * kernel[row, column, 0]
        for row in range(3)
        for column in range(3)
    ]
    return reduce(jnp.add, terms)


def max_pool(
    image: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2 width//2 channels"]:
    """3×3 maxima with stride 2 and one pixel of padding, for even sides.

    One axis after the other, by elementwise maxima: the gradient of XLA's window reduction takes
    ten times as long on a CPU.
    """
    return _max_of_three(_max_of_three(image, 1), 2)


def _max_of_three(image: Array, axis: int) -> Array:
    """The maxima of positions 2i − 1, 2i and 2i + 1 along an axis."""
    half = image.shape[axis] // 2
    pairs = image.reshape(*image.shape[:axis], half, 2, *image.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    before = [(0, 0)] * image.ndim
    before[axis] = (1, 0)
    previous = jnp.pad(
        lax.slice_in_dim(odd, 0, half - 1, axis=axis), before, constant_values=-jnp.inf
    )
    return jnp.maximum(jnp.maximum(even, odd), previous)
