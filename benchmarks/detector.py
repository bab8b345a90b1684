"""The detector's two networks as JAX functions beside LiteRT: outputs, times, compilation.

    python -m benchmarks.detector [--threads 2]

The functions are made from the same files, operation by operation, in float32.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from jax import lax

from er_jax.detection.mediapipe_hands import LiteRTNetwork
from er_jax.detection.weights import LANDMARKS_FILE, PALMS_FILE, weights_dir
from er_jax.utils.xla_cpu import prepare_cpu

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
DTYPES: dict[int, type] = {
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
}


def as_jax(path: Path) -> Callable[[jax.Array], list[jax.Array]]:
    """The file's network as a function of its input, like `LiteRTNetwork`, without a batch axis."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs

    def constant(index: int) -> np.ndarray | None:
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        return np.frombuffer(bytes(data), DTYPES[tensor.type]).reshape(tensor.shape)

    def name_of(operator: Any) -> str:
        code = model.operatorCodes[operator.opcodeIndex]
        return NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def run(image: jax.Array) -> list[jax.Array]:
        values: dict[int, Any] = {index: constant(index) for index in range(len(graph.tensors))}
        values[graph.inputs[0]] = image[None]
        for operator in graph.operators:
            given = [values[index] for index in operator.inputs if index >= 0]
            shape = tuple(graph.tensors[operator.outputs[0]].shape)
            operation = OPERATIONS[name_of(operator)]
            values[operator.outputs[0]] = operation(operator.builtinOptions, shape, *given)
        return [values[index][0] for index in graph.outputs]

    return run


def convolution(options: Any, x: Any, kernel: Any, bias: Any) -> jax.Array:
    """Kernels are (out, height, width, in)."""
    result = lax.conv_general_dilated(
        x,
        kernel,
        (options.strideH, options.strideW),
        padding(options),
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
    )
    return activated(options, result + bias)


def depthwise(options: Any, x: Any, kernel: Any, bias: Any) -> jax.Array:
    """Kernels are (1, height, width, channels).

    As a sum of shifted images, which XLA computes several times as fast on CPUs as its grouped
    convolution.
    """
    size, strides = kernel.shape[1:3], (options.strideH, options.strideW)
    widths = lax.padtype_to_pads(x.shape[1:3], size, strides, padding(options))
    x = jnp.pad(x, ((0, 0), *widths, (0, 0)))
    height, width = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], size, strides, strict=True))
    result = bias
    for row, column in np.ndindex(*size):
        rows = slice(row, row + strides[0] * (height - 1) + 1, strides[0])
        columns = slice(column, column + strides[1] * (width - 1) + 1, strides[1])
        result = result + x[:, rows, columns] * kernel[0, row, column]
    return activated(options, result)


def padding(options: Any) -> str:
    return "SAME" if options.padding == schema.Padding.SAME else "VALID"


def activated(options: Any, x: jax.Array) -> jax.Array:
    function = schema.ActivationFunctionType
    return {
        function.NONE: lambda x: x,
        function.RELU: jax.nn.relu,
        function.RELU6: jax.nn.relu6,
    }[options.fusedActivationFunction](x)


def largest(options: Any, x: jax.Array) -> jax.Array:
    window = (1, options.filterHeight, options.filterWidth, 1)
    strides = (1, options.strideH, options.strideW, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "SAME")


def resized(options: Any, shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    assert options.halfPixelCenters and not options.alignCorners
    return jax.image.resize(x, shape, "bilinear")


OPERATIONS: dict[str, Callable[..., Any]] = {
    "DEQUANTIZE": lambda options, shape, x: x.astype(np.float32),
    "CONV_2D": lambda options, shape, *x: convolution(options, *x),
    "DEPTHWISE_CONV_2D": lambda options, shape, *x: depthwise(options, *x),
    "ADD": lambda options, shape, x, y: activated(options, x + y),
    "PRELU": lambda options, shape, x, slope: jnp.where(x < 0, slope * x, x),
    "MAX_POOL_2D": lambda options, shape, x: largest(options, x),
    "PAD": lambda options, shape, x, widths: jnp.pad(x, widths),
    "RESIZE_BILINEAR": lambda options, shape, x, _: resized(options, shape, x),
    "RESHAPE": lambda options, shape, x, *_: x.reshape(shape),
    "CONCATENATION": lambda options, shape, *x: jnp.concatenate(x, options.axis),
    "FULLY_CONNECTED": lambda options, shape, x, kernel, bias: activated(
        options, x.reshape(-1, kernel.shape[1]) @ kernel.T + bias
    ),
    "LOGISTIC": lambda options, shape, x: jax.nn.sigmoid(x),
    "MEAN": lambda options, shape, x, axes: x.mean(tuple(axes), keepdims=options.keepDims),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    prepare_cpu(None)
    for file, size in ((PALMS_FILE, 192), (LANDMARKS_FILE, 224)):
        path = weights_dir() / file
        image = np.random.default_rng(0).uniform(size=(size, size, 3)).astype(np.float32)
        began = time.perf_counter()
        program = jax.jit(as_jax(path)).lower(image).compile()
        compiled_s = time.perf_counter() - began
        began = time.perf_counter()
        litert = LiteRTNetwork(path, threads)
        opened_s = time.perf_counter() - began
        worst = max(
            float(np.abs(ours - theirs).max() / np.ptp(theirs))
            if theirs.size > 1
            else float(np.abs(ours - theirs).max())
            for ours, theirs in zip(program(image), litert(image), strict=True)
        )
        times: dict[str, list[float]] = {"JAX": [], "LiteRT": []}
        for _ in range(40):  # in turns
            for name, call in (("JAX", program), ("LiteRT", litert)):
                began = time.perf_counter()
                jax.block_until_ready(call(image))
                times[name].append(1000 * (time.perf_counter() - began))
        ours, theirs = (float(np.median(times[name])) for name in ("JAX", "LiteRT"))
        print(
            f"{file}: JAX {ours:.1f} ms, LiteRT {theirs:.1f} ms ({ours / theirs:.1f} times); "
            f"ready after {compiled_s:.1f} s and {opened_s:.2f} s; outputs differ by {worst:.1e} "
            "of their range"
        )


if __name__ == "__main__":
    main()
