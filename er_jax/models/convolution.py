"""Convolution and pooling, in the forms that both CPUs and GPUs compute fast."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels_in_group filters"],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[Array, "batch height_out width_out filters"]:
    """Cross-correlates a batch of images with a kernel, `padding` zeros on every side.

    A 1×1 convolution is computed as a product of two matrices, and not of an image and a matrix:
    XLA's CPU kernel for the gradient of the latter is five times slower.
    """
    if kernel.shape[:2] == (1, 1) and padding == 0 and groups == 1:
        return multiply(image[:, ::stride, ::stride], kernel[0, 0])
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def multiply(
    inputs: Float[Array, "*batch features"], kernel: Float[Array, "features outputs"]
) -> Float[Array, "*batch outputs"]:
    """inputs @ kernel, as a product of two matrices (see `convolve`)."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    return (rows @ kernel).reshape(*inputs.shape[:-1], kernel.shape[-1])


def convolve_stem(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "7 7 channels filters"],
) -> Float[Array, "batch height//2 width//2 filters"]:
    """A 7×7 convolution of stride 2 and padding 3, for an image of few channels and even sides.

    Blocks of 2×2 pixels become channels, which turns it into a 4×4 convolution of stride 1 with
    four times the channels; filters are padded to a multiple of 32. Both spare XLA's CPU kernels
    sizes at which they are up to ten times slower.
    """
    batch, height, width, channels = image.shape
    filters = kernel.shape[-1]
    blocks = image.reshape(batch, height // 2, 2, width // 2, 2, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, -1)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, -filters % 32)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4, 4, 4 * channels, -1)
    output = lax.conv_general_dilated(
        blocks, kernel, (1, 1), [(2, 1), (2, 1)], dimension_numbers=LAYOUT
    )
    return output[..., :filters]


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
