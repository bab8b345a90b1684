"""Convolution with the form that each platform computes fastest.

On a GPU every form is left to XLA and cuDNN. On a CPU a 1×1 convolution is a matrix product, and
the gradient of a larger kernel is the product of the unfolded image with the output's gradient:
XLA's own CPU kernels take three to five times as long. `_by_platform` is the only place that
chooses.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Padding = tuple[tuple[int, int], tuple[int, int]]
LAYOUT = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
    image: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels_in_group filters"],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[Array, "batch height_out width_out filters"]:
    """Cross-correlates a batch of images with a kernel, `padding` zeros on every side."""
    return _by_platform(
        partial(_forward_cpu, stride=stride, padding=padding, groups=groups),
        partial(_xla, stride=stride, padding=padding, groups=groups),
        image,
        kernel,
    )


def _convolve_forward(image, kernel, stride, padding, groups):
    return convolve(image, kernel, stride, padding, groups), (image, kernel)


def _convolve_backward(stride, padding, groups, residuals, gradient):
    sizes = {"stride": stride, "padding": padding, "groups": groups}
    return _by_platform(
        partial(_backward_cpu, **sizes), partial(_backward_xla, **sizes), *residuals, gradient
    )


convolve.defvjp(_convolve_forward, _convolve_backward)


def _by_platform(cpu: Callable, other: Callable, *arrays: Array):
    """Calls one of the two forms, chosen when the program is lowered for its platform."""
    return lax.platform_dependent(*arrays, cpu=cpu, default=other)


def _xla(image: Array, kernel: Array, *, stride: int, padding: int, groups: int) -> Array:
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def _backward_xla(image, kernel, gradient, *, stride, padding, groups):
    form = partial(_xla, stride=stride, padding=padding, groups=groups)
    return jax.vjp(form, image, kernel)[1](gradient)


def _is_pointwise(kernel: Array, padding: int, groups: int) -> bool:
    return kernel.shape[:2] == (1, 1) and padding == 0 and groups == 1


def _forward_cpu(image, kernel, *, stride, padding, groups):
    if _is_pointwise(kernel, padding, groups):
        return image[:, ::stride, ::stride] @ kernel[0, 0]
    return _xla(image, kernel, stride=stride, padding=padding, groups=groups)


def _backward_cpu(image, kernel, gradient, *, stride, padding, groups):
    form = partial(_forward_cpu, stride=stride, padding=padding, groups=groups)
    if groups != 1 or _is_pointwise(kernel, padding, groups):
        return jax.vjp(form, image, kernel)[1](gradient)
    (image_gradient,) = jax.vjp(lambda image: form(image, kernel), image)[1](gradient)
    columns = _unfold(image, kernel.shape[:2], gradient.shape[1:3], stride, padding)
    columns = columns.reshape(-1, columns.shape[-1])
    kernel_gradient = columns.T @ gradient.reshape(-1, gradient.shape[-1])
    return image_gradient, kernel_gradient.reshape(kernel.shape)


def _unfold(image, kernel_size, output_size, stride, padding):
    """The pixels under the kernel at each output: (batch, height_out, width_out, k·k·channels)."""
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (stride * (size - 1) + 1 for size in output_size)
    shifted = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(kernel_size[0])
        for column in range(kernel_size[1])
    ]
    return jnp.concatenate(shifted, axis=-1)
