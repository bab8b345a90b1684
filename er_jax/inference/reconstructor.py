"""The network's form for use: batch norms folded, compiled once a batch size, exportable.

An exported program goes from images (batch, S, S, 3), float32 RGB in [0, 1], any batch, to the
arrays that `Prediction` describes, by the names of its fields. To load the StableHLO one, a process
needs JAX and flatbuffers, and nothing of this project:

    program = jax.export.deserialize(bytearray(Path("er.stablehlo").read_bytes()))
    outputs = program.call(images)

To run the ONNX one, it needs ONNX Runtime alone:

    session = onnxruntime.InferenceSession("er.onnx")
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"images": images})))
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax import nnx
from jax import Array, export
from jax.typing import ArrayLike
from jaxtyping import Float, UInt8

from er_jax.inference.onnx_program import onnx_program
from er_jax.mano import HandModel
from er_jax.models.config import ERConfig
from er_jax.models.er import ERNet, Prediction
from er_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.xla_cpu import programs_are_kept

BATCH_SIZES = (1, 4, 16)
PLATFORMS = ("cpu", "cuda")
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


def compiled_with_weights(
    function: Callable[[Network, Array], Output], net: Network
) -> Callable[[ArrayLike], Output]:
    """`function` of a network as a compiled function of images alone.

    On a CPU the weights are constants of the program: oneDNN then orders them once, while it is
    compiled, for the way in which it reads them. Elsewhere all programs share one copy, and so do
    programs that are kept in a folder, to which each would take its own.
    """
    call, state = _functional(function, net)
    if jax.default_backend() == "cpu" and not programs_are_kept():
        return jax.jit(partial(call, state))
    return partial(jax.jit(call), state)


def _functional(
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

        self._predict = compiled_with_weights(predict, fold_batch_norms(net))

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


def export_program(net: ERNet, hands: HandModel, path: Path | str) -> None:
    """Writes the network, its weights and the hand model as one portable program (StableHLO).

    It runs on CPUs and CUDA GPUs, for any batch size (see above for how to load it).
    """
    side = net.config.input_size
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    program = export.export(jax.jit(_named_outputs(net, hands)), platforms=PLATFORMS)(images)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(program.serialize())


def export_onnx(net: ERNet, hands: HandModel, path: Path | str) -> None:
    """Writes the network, its weights and the hand model as an ONNX program (opset 18).

    It computes in float32 also where the network was trained with products in bfloat16, which
    ONNX Runtime has not for CPUs.
    """
    config = dataclasses.replace(net.config, precision="float32")
    same = nnx.merge(_graph_of(config), nnx.state(net))
    program = onnx_program(_named_outputs(same, hands), config.input_size)
    with atomic_write(Path(path)) as beside:
        onnx.save(program, beside)


def _graph_of(config: ERConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0))))


def _named_outputs(net: ERNet, hands: HandModel) -> Callable[[Array], dict[str, Array]]:
    """A function from images to the arrays of a prediction, without intermediate outputs."""

    def predict(net: ERNet, images: Array) -> dict[str, Array]:
        prediction = net(images, hands)
        names = [field.name for field in dataclasses.fields(prediction)]
        return {name: getattr(prediction, name) for name in names if name != "intermediates"}

    call, state = _functional(predict, fold_batch_norms(net))
    return partial(call, state)


def _scaled(images: Array) -> Array:
    """Bytes to [0, 1]."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
