"""The network's form for use: batch norms folded, compiled once a batch size."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, UInt8

from er_jax.mano import HandModel
from er_jax.models.er import ERNet, Prediction
from er_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm

BATCH_SIZES = (1, 4, 16)
Network = TypeVar("Network", bound=nnx.Module)
Output = TypeVar("Output")


class Folded(nnx.Module):
    """In the place of a batch norm whose convolution has taken it over."""

    def __call__(self, inputs: Array) -> Array:
        return inputs


def fold_batch_norms(net: Network) -> Network:
    """A copy of the network in evaluation mode, each batch norm in the convolution before it.

    A norm named `bn…` follows the convolution named `conv…` of the same module.
    """
    folded = nnx.clone(net)
    folded.eval()
    for _, module in nnx.iter_modules(folded):
        norms = {name: part for name, part in vars(module).items() if isinstance(part, BatchNorm)}
        for name, norm in norms.items():
            convolution = getattr(module, name.replace("bn", "conv"))
            mean, var, weight, bias = map(np.asarray, (norm.mean, norm.var, norm.scale, norm.bias))
            scale = weight / np.sqrt(var + BATCH_NORM_EPSILON)
            convolution.kernel[...] = jnp.asarray(convolution.kernel * scale)
            convolution.bias = nnx.Param(jnp.asarray(bias - mean * scale))
            setattr(module, name, Folded())
    return folded


def functional(
    function: Callable[[Network, Array], Output], net: Network
) -> tuple[Callable[[nnx.State, Array], Output], nnx.State]:
    """`function` of a network's state and images, and the state."""
    graphdef, state = nnx.split(net)

    def call(state: nnx.State, images: Array) -> Output:
        return function(nnx.merge(graphdef, state, copy=True), images)

    return call, state


class Reconstructor:
    """Images to meshes, for any number of images, by programs of a few batch sizes.

    A batch is padded to the next size and a larger one is cut. A program is compiled when a batch
    first needs it; with JAX's persistent compilation cache, once and for all.

    Args:
        net: any network; it is left as it is.
        hands: both hand models.
        collect: names of intermediate outputs that predictions shall hold (see `ERNet`).
        batch_sizes: to compile for.
    """

    def __init__(
        self,
        net: ERNet,
        hands: HandModel,
        *,
        collect: Sequence[str] = (),
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ):
        self._batch_sizes = sorted(batch_sizes)

        def predict(net: ERNet, images: Array) -> Prediction:
            return net(_scaled(images), hands, collect=collect)

        call, state = functional(predict, fold_batch_norms(net))
        self._predict = partial(jax.jit(call), state)

    def __call__(
        self, images: Float[np.ndarray, "N S S 3"] | UInt8[np.ndarray, "N S S 3"]
    ) -> Prediction:
        """The prediction of each image, on the host; RGB, in [0, 1] or as bytes."""
        largest = self._batch_sizes[-1]
        parts = [
            self._predict_some(images[start : start + largest])
            for start in range(0, max(len(images), 1), largest)
        ]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def _predict_some(self, images: np.ndarray) -> Prediction:
        count = len(images)
        size = next(size for size in self._batch_sizes if size >= count)
        padding = [(0, size - count), (0, 0), (0, 0), (0, 0)]
        batch = self._predict(np.pad(images, padding))
        return jax.tree.map(lambda array: array[:count], jax.device_get(batch))


def _scaled(images: Array) -> Array:
    """Bytes to [0, 1]."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
