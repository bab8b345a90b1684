"""Convolution and pooling, in the forms that both CPUs and GPUs compute fast.

One form serves all platforms, except of depthwise convolution (`convolve_depthwise`) and of the
gradient for a kernel (`_kernel_gradient_cpu`).
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels filters"],
    stride: int = 1,
) -> Float[Array, "batch height_out width_out filters"]:
    """Cross-correlates a batch of images with a kernel of odd size, size // 2 zeros on every side.

    A 1×1 convolution is computed as a product of two matrices, and not of an image and a matrix:
    XLA's CPU kernel for the gradient of the latter is five times slower.
    """
    if kernel.shape[0] == 1:
        return multiply(image[:, ::stride, ::stride], kernel[0, 0])
    return _convolve_window(image, kernel, stride)


def _convolve_xla(image: Array, kernel: Array, stride: int) -> Array:
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        image, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=LAYOUT
    )


_convolve_window = jax.custom_vjp(_convolve_xla, nondiff_argnums=(2,))


def _window_forward(image, kernel, stride):
    return _convolve_xla(image, kernel, stride), (image, kernel)


def _window_backward(stride, residuals, gradient):
    image, kernel = residuals
    of_image = jax.linear_transpose(lambda image: _convolve_xla(image, kernel, stride), image)
    cpu, other = (
        partial(form, size=kernel.shape[0], stride=stride)
        for form in (_kernel_gradient_cpu, _kernel_gradient_xla)
    )
    return *of_image(gradient), lax.platform_dependent(image, gradient, cpu=cpu, default=other)


_convolve_window.defvjp(_window_forward, _window_backward)


def _kernel_gradient_xla(image: Array, gradient: Array, *, size: int, stride: int) -> Array:
    kernel = jax.ShapeDtypeStruct((size, size, image.shape[-1], gradient.shape[-1]), image.dtype)
    of_kernel = jax.linear_transpose(lambda kernel: _convolve_xla(image, kernel, stride), kernel)
    return of_kernel(gradient)[0]


def _kernel_gradient_cpu(image: Array, gradient: Array, *, size: int, stride: int) -> Array:
    """The kernel's gradient as one product of matrices, a row for each place of the output.

    Tap (r, c) of the kernel met pixel (stride · y + r, stride · x + c) of the padded image at the
    output (y, x). At stride 1 one matrix holds each pixel's neighbours along its row, and the
    other the outputs above and below: both are `size` times as large as what they come from,
    where the image's windows would be `size`² times as large.
    """
    channels, filters = image.shape[-1], gradient.shape[-1]
    height, width = gradient.shape[1:3]
    margin, taps = (size // 2, size // 2), np.arange(size)
    rows, columns = (stride * np.arange(n)[:, None] + taps for n in (height, width))
    take = partial(jnp.take, mode="clip")
    if stride > 1:
        windows = jnp.pad(image, ((0, 0), margin, margin, (0, 0)))
        windows = take(take(windows, rows, axis=1), columns, axis=3)  # batch, y, r, x, c, channels
        windows = windows.swapaxes(2, 3).reshape(-1, size**2 * channels)
        product = windows.T @ gradient.reshape(-1, filters)
        return product.reshape(size, size, channels, filters)
    image = take(jnp.pad(image, ((0, 0), (0, 0), margin, (0, 0))), columns, axis=2)
    gradient = take(jnp.pad(gradient, ((0, 0), margin, (0, 0), (0, 0))), rows[:, ::-1], axis=1)
    gradient = gradient.swapaxes(2, 3)  # batch, y, x, r, filters
    product = image.reshape(-1, size * channels).T @ gradient.reshape(-1, size * filters)
    return product.reshape(size, channels, size, filters).transpose(2, 0, 1, 3)


def multiply(
    inputs: Float[Array, "*batch features"], kernel: Float[Array, "features outputs"]
) -> Float[Array, "*batch outputs"]:
    """inputs @ kernel, as a product of two matrices (see `convolve`)."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    return (rows @ kernel).reshape(*inputs.shape[:-1], kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
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


def _depthwise_forward(image, kernel, stride):
    return convolve_depthwise(image, kernel, stride), (image, kernel)


def _depthwise_backward(stride, residuals, gradient):
    def backward(form, image, kernel, gradient):
        return jax.vjp(partial(form, stride=stride), image, kernel)[1](gradient)

    cpu, other = partial(backward, _depthwise_cpu), partial(backward, _depthwise_xla)
    return lax.platform_dependent(*residuals, gradient, cpu=cpu, default=other)


convolve_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


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


def convolve_stem(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "7 7 channels filters"],
) -> Float[Array, "batch height//2 width//2 filters"]:
    """A 7×7 convolution of stride 2 and padding 3, for an image of few channels and even sides.

    Where the filters are no multiple of 64, blocks of 2×2 pixels become channels, which turns it
    into a 4×4 convolution of stride 1 with four times the channels, and filters are padded to a
    multiple of 32: sizes at which the CPU kernels of some XLA releases are up to ten times faster.
    """
    batch, height, width, channels = image.shape
    filters = kernel.shape[-1]
    if filters % 64 == 0:
        return _convolve_xla(image, kernel, 2)
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
