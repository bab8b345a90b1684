"""A network for use without this project: StableHLO for JAX, ONNX for everything else.

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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import onnx
from flax import nnx
from jax import Array, export

from er_jax.inference.onnx_program import onnx_program
from er_jax.inference.reconstructor import fold_batch_norms, functional
from er_jax.mano import HandModel
from er_jax.models.config import ERConfig
from er_jax.models.er import ERNet
from er_jax.utils.atomic_write import atomic_write

PLATFORMS = ("cpu", "cuda")


def export_stablehlo(net: ERNet, hands: HandModel, path: Path | str) -> None:
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
    with atomic_write(Path(path)) as temporary:
        onnx.save(program, temporary)


def _graph_of(config: ERConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0))))


def _named_outputs(net: ERNet, hands: HandModel) -> Callable[[Array], dict[str, Array]]:
    """A function from images to the arrays of a prediction, without intermediate outputs."""

    def predict(net: ERNet, images: Array) -> dict[str, Array]:
        prediction = net(images, hands)
        names = [field.name for field in dataclasses.fields(prediction)]
        outputs = {name: getattr(prediction, name) for name in names if name != "intermediates"}
        return {name: output for name, output in outputs.items() if output is not None}

    call, state = functional(predict, fold_batch_norms(net))
    return partial(call, state)
