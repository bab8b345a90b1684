"""A JAX function of a batch of images as an ONNX program, for runtimes without JAX.

The function is traced and each of JAX's primitives is written as ONNX operators. A size that is a
multiple of the batch while tracing is as many times the batch that the program is run with.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
from jax import Array
from jax.extend.core import Literal, Primitive
from jax.typing import ArrayLike
from jaxtyping import Float
from onnx import helper, numpy_helper

BATCHES = (8191, 8209)  # primes: no size divides by them that is not a multiple of the batch
OPSET = 18
IR_VERSION = 8  # of that opset's time
IMAGES = "images"
# Primitives that call a traced function, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
}


def onnx_program(
    function: Callable[[Float[Array, "batch S S 3"]], Mapping[str, Array]], side: int
) -> onnx.ModelProto:
    """The program of a function from images (batch, side, side, 3), float32, to named arrays.

    Args:
      function: may use the batch's size only in sizes of arrays that are multiples of it.
      side: of the images.

    Raises:
      NotImplementedError: the function uses a primitive, or a form of one, that is not written
          here as ONNX operators.
      ValueError: the function computes with the batch's size.
    """
    model, other = (_program_at(batch, function, side) for batch in BATCHES)
    if model != other:
        raise ValueError("the function computes with the batch's size: ONNX needs it for any batch")
    onnx.checker.check_model(model)
    return model


def _program_at(batch: int, function: Callable, side: int) -> onnx.ModelProto:
    """Returns the graph traced at one size of the batch."""
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.float32)
    traced, outputs = jax.make_jaxpr(function, return_shape=True)(images)
    graph = _Graph(batch)
    given = _Value(IMAGES, None, images.shape, images.shape)
    results = graph.run(traced, [given])
    for name, result in zip(sorted(outputs), results, strict=True):  # as JAX orders them
        graph.nodes.append(helper.make_node("Identity", [graph.whole(result)], [name]))
    infos = [
        helper.make_tensor_value_info(name, _type(output.dtype), graph.named(output.shape))
        for name, output in [(IMAGES, images), *outputs.items()]
    ]
    return helper.make_model(
        helper.make_graph(graph.nodes, "er", infos[:1], infos[1:], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="er_jax",
    )


class _Value(NamedTuple):
    """An array of the traced function in the program."""

    name: str
    constant: np.ndarray | None
    shape: tuple[int, ...]
    held: tuple[int, ...]
    """The shape that it has in the program: 1 where it is still to be repeated, which ONNX's
    elementwise operators do by themselves."""


class _Graph:
    """Nodes and constants of a program while it is written."""

    def __init__(self, batch: int):
        self.batch = batch
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._sizes: dict[tuple[int, ...], str] = {}

    def run(self, traced: Any, inputs: Sequence[_Value]) -> list[_Value]:
        """Writes a traced function, with or without constants of its own; returns its outputs."""
        jaxpr = getattr(traced, "jaxpr", traced)
        values: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, getattr(traced, "consts", ()), strict=True):
            values[variable] = self.constant(constant)

        def read(atom: Any) -> _Value:
            return self.constant(atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            outputs = self._write(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _write(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        shapes = [variable.aval.shape for variable in equation.outvars]
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.run(params[CALLS[name]], inputs)
        if name == "platform_index":  # the form for all platforms that are not named
            return [self.constant(params["platforms"].index(None))]
        if name == "cond" and inputs[0].constant is not None:
            return self.run(params["branches"][int(inputs[0].constant)], inputs[1:])
        constants = [
            np.broadcast_to(value.constant, value.shape)
            for value in inputs
            if value.constant is not None and not any(map(self._of_batch, value.shape))
        ]
        if len(constants) == len(inputs) and not any(
            self._of_batch(size) for shape in shapes for size in shape
        ):
            return self._folded(equation.primitive, constants, params)
        if name not in WRITERS:
            raise NotImplementedError(
                f"{name}: this primitive of JAX is not written as ONNX operators yet; add it to "
                f"{__name__}.WRITERS"
            )
        outputs = WRITERS[name](self, inputs, shapes[0], params)
        return outputs if isinstance(outputs, list) else [outputs]

    def _folded(
        self, primitive: Primitive, inputs: Sequence[np.ndarray], params: dict[str, Any]
    ) -> list[_Value]:
        """Computed now, since nothing of it depends on the images."""
        outputs = primitive.bind(*map(jax.numpy.asarray, inputs), **params)
        several = outputs if primitive.multiple_results else [outputs]
        return [self.constant(output) for output in several]

    def constant(self, array: ArrayLike, shape: tuple[int, ...] | None = None) -> _Value:
        """A constant, as yet without a name in the program."""
        array = np.asarray(array)
        return _Value("", array, array.shape if shape is None else shape, array.shape)

    def name(self, value: _Value) -> str:
        """The value's name in the program, in the shape that it is held in."""
        return value.name if value.constant is None else self.initializer(value.constant)

    def initializer(self, array: np.ndarray) -> str:
        name = f"constant{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def whole(self, value: _Value) -> str:
        """The name of the value, repeated to its whole shape."""
        if value.held == value.shape:
            return self.name(value)
        return self.node("Expand", [self.name(value), self.sizes(value.shape)])

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Writes an operator of one output and returns its name."""
        return self.outputs(1, operator, inputs, **attributes)[0]

    def outputs(
        self, count: int, operator: str, inputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Writes an operator and returns the names of its outputs."""
        names = [f"{operator.lower()}{len(self.nodes)}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def elementwise(self, operator: str, *operands: _Value) -> _Value:
        """Writes an elementwise operator, which repeats what is still to be repeated."""
        name = self.node(operator, [self.name(operand) for operand in operands])
        shape, held = (
            np.broadcast_shapes(*shapes)
            for shapes in zip(*((x.shape, x.held) for x in operands), strict=True)
        )
        return _Value(name, None, shape, held)

    def integers(self, numbers: Sequence[int] | np.ndarray) -> str:
        """The name of a vector of integers, as operators take sizes and axes."""
        return self.initializer(np.array(numbers, np.int64))

    def value(self, name: str, shape: tuple[int, ...]) -> _Value:
        return _Value(name, None, tuple(shape), tuple(shape))

    def _of_batch(self, size: int) -> bool:
        return size > 0 and size % self.batch == 0

    def named(self, shape: Sequence[int]) -> list[int | str]:
        """A shape as a program declares it."""
        return [
            f"{size // self.batch}*batch".removeprefix("1*") if self._of_batch(size) else size
            for size in shape
        ]

    def sizes(self, shape: tuple[int, ...]) -> str:
        """The name of a shape as a vector of integers."""
        if shape not in self._sizes:
            if not any(map(self._of_batch, shape)):
                self._sizes[shape] = self.integers(shape)
            else:
                batch = self.node("Shape", [IMAGES], start=0, end=1)
                parts = [
                    self.node("Mul", [batch, self.integers([size // self.batch])])
                    if self._of_batch(size)
                    else self.integers([size])
                    for size in shape
                ]
                self._sizes[shape] = self.node("Concat", parts, axis=0)
        return self._sizes[shape]

    def reshaped(self, name: str, shape: tuple[int, ...]) -> str:
        if sum(map(self._of_batch, shape)) > 1:
            return self.node("Reshape", [name, self.sizes(shape)])
        target = self.integers([-1 if self._of_batch(size) else size for size in shape])
        return self.node("Reshape", [name, target])


def _type(dtype: np.dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


Params = dict[str, Any]
Shape = tuple[int, ...]


def _elementwise(operator: str) -> Callable[..., _Value]:
    def write(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
        return graph.elementwise(operator, *inputs)

    return write


def _unchanged(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> list[_Value]:
    return inputs


def _square(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    return graph.elementwise("Mul", inputs[0], inputs[0])


def _integer_power(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    if params["y"] == 2:
        return _square(graph, inputs, shape, params)
    exponent = graph.constant(np.float32(params["y"]))
    return graph.elementwise("Pow", inputs[0], exponent)


def _inverse_root(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    return graph.elementwise("Reciprocal", graph.elementwise("Sqrt", *inputs))


def _not_equal(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    return graph.elementwise("Not", graph.elementwise("Equal", *inputs))


def _arctangent(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    """The angle of (x, y) by the tangent of its half: y / (r + x), or (r − x) / y where x < 0.

    0 at the origin.
    """
    y, x = inputs
    op = graph.elementwise
    least = graph.constant(np.finfo(np.float32).tiny)
    radius = op("Sqrt", op("Add", op("Mul", x, x), op("Mul", y, y)))
    left = op("Less", x, graph.constant(np.float32(0)))
    right_half = op("Atan", op("Div", y, op("Max", op("Add", radius, x), least)))
    left_half = op("Atan", op("Div", op("Sub", radius, x), y))
    half = op("Where", left, left_half, right_half)
    return op("Mul", half, graph.constant(np.float32(2)))


def _cast(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    name = graph.node("Cast", [graph.name(inputs[0])], to=_type(params["new_dtype"]))
    return _Value(name, None, shape, inputs[0].held)


def _select(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    which, if_false, if_true = inputs
    return graph.elementwise("Where", which, if_true, if_false)


def _broadcast(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    (value, *_) = inputs
    held = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], value.held, strict=True):
        held[axis] = size
    return _with_sizes(graph, value, shape, tuple(held))


def _with_sizes(graph: _Graph, value: _Value, shape: Shape, held: Shape) -> _Value:
    """Returns the same elements in another shape."""
    if value.constant is not None:
        return graph.constant(value.constant.reshape(held), shape)
    name = value.name if held == value.held else graph.reshaped(value.name, held)
    return _Value(name, None, shape, held)


def _reshape(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    (value, *_) = inputs
    if math.prod(value.held) == 1:
        return _with_sizes(graph, value, shape, (1,) * len(shape))
    return _with_sizes(graph, graph.value(graph.whole(value), value.shape), shape, shape)


def _transpose(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    value, order = inputs[0], tuple(params["permutation"])
    held = tuple(value.held[axis] for axis in order)
    if value.constant is not None:
        return graph.constant(value.constant.transpose(order), shape)
    return _Value(graph.node("Transpose", [value.name], perm=order), None, shape, held)


def _concatenate(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    names = [graph.whole(value) for value in inputs]
    return graph.value(graph.node("Concat", names, axis=params["dimension"]), shape)


def _stack(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    axis = params["axis"]
    part = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [graph.value(graph.reshaped(graph.whole(value), part), part) for value in inputs]
    return _concatenate(graph, parts, shape, {"dimension": axis})


def _split(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> list[_Value]:
    (value,), axis, sizes = inputs, params["axis"], params["sizes"]
    names = graph.outputs(
        len(sizes), "Split", [graph.whole(value), graph.integers(sizes)], axis=axis
    )
    shapes = [(*value.shape[:axis], size, *value.shape[axis + 1 :]) for size in sizes]
    return [graph.value(name, part) for name, part in zip(names, shapes, strict=True)]


def _unstack(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> list[_Value]:
    sizes = [1] * inputs[0].shape[params["axis"]]
    parts = _split(graph, inputs, shape, {"axis": params["axis"], "sizes": sizes})
    return [_reshape(graph, [part], shape, {}) for part in parts]


def _sliced(
    graph: _Graph, value: _Value, shape: Shape, starts: Shape, ends: Shape, steps: Shape
) -> _Value:
    """Along the axes that are cut; what is still to be repeated needs no cutting."""
    axes = [
        axis
        for axis, size in enumerate(value.held)
        if (starts[axis], ends[axis], steps[axis]) != (0, size, 1) and size == value.shape[axis]
    ]
    if not axes:
        return value._replace(shape=shape)
    held = tuple(shape[axis] if axis in axes else size for axis, size in enumerate(value.held))
    first, last, step = ([bounds[axis] for axis in axes] for bounds in (starts, ends, steps))
    cuts = [graph.integers(x) for x in (first, last, axes, step)]
    return _Value(graph.node("Slice", [graph.name(value), *cuts]), None, shape, held)


def _slice(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    steps = params["strides"] or (1,) * len(shape)
    return _sliced(
        graph, inputs[0], shape, params["start_indices"], params["limit_indices"], tuple(steps)
    )


def _reverse(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    turned = params["dimensions"]
    axes = range(len(shape))
    starts = tuple(-1 if axis in turned else 0 for axis in axes)
    ends = tuple(np.iinfo(np.int64).min if axis in turned else shape[axis] for axis in axes)
    steps = tuple(-1 if axis in turned else 1 for axis in axes)
    return _sliced(graph, inputs[0], shape, starts, ends, steps)


def _pad(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    value, fill = inputs
    before, after, between = zip(*params["padding_config"], strict=True)
    if any(between) or min(before + after) < 0:
        raise NotImplementedError(f"padding {params['padding_config']}: between or below zero")
    amounts = graph.integers(before + after)
    return graph.value(graph.node("Pad", [graph.whole(value), amounts, graph.name(fill)]), shape)


def _reduction(operator: str) -> Callable[..., _Value]:
    def write(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
        axes = graph.integers(params["axes"])
        # In opset 18 all reductions take their axes as an input.
        name = graph.node(operator, [graph.whole(inputs[0]), axes], keepdims=0)
        return graph.value(name, shape)

    return write


def _take(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    """A gather of whole slices along one axis, by constant indices."""
    value, indices = inputs
    numbers = params["dimension_numbers"]
    axis = numbers.start_index_map[0]
    where = indices.constant
    kept = [i for i in range(len(value.shape)) if i != axis]
    if (
        where is None
        or where.min() < 0
        or where.max() >= value.shape[axis]
        or len(numbers.start_index_map) > 1
        or tuple(numbers.collapsed_slice_dims) != (axis,)
        or any(params["slice_sizes"][i] != value.shape[i] for i in kept)
        or tuple(numbers.offset_dims) != tuple(i if i < axis else i + where.ndim - 2 for i in kept)
    ):
        raise NotImplementedError(f"gather {params}: only whole slices along an axis are written")
    name = graph.node("Gather", [graph.whole(value), graph.integers(where[..., 0])], axis=axis)
    return graph.value(name, shape)


def _product(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    """A product over any axes as a product of matrices, with batches of them before."""
    (left_summed, right_summed), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = inputs
    left_free = _others(left, left_summed, left_batch)
    right_free = _others(right, right_summed, right_batch)
    many = [left.shape[axis] for axis in left_batch]
    summed = math.prod(left.shape[axis] for axis in left_summed)
    columns = math.prod(right.shape[axis] for axis in right_free)
    right = _arranged(
        graph, right, (*right_batch, *right_summed, *right_free), (*many, summed, columns)
    )
    rows: Shape = tuple(left.shape[axis] for axis in left_free)
    if many or not rows:  # without batches, MatMul takes any number of axes of rows
        rows = (math.prod(rows),)
    left = _arranged(graph, left, (*left_batch, *left_free, *left_summed), (*many, *rows, summed))
    name = graph.node("MatMul", [graph.whole(left), graph.whole(right)])
    return _reshape(graph, [graph.value(name, (*many, *rows, columns))], shape, {})


def _others(value: _Value, *groups: Sequence[int]) -> list[int]:
    return [axis for axis in range(len(value.shape)) if all(axis not in group for group in groups)]


def _arranged(graph: _Graph, value: _Value, order: Shape, shape: Shape) -> _Value:
    """Axes in another order, then joined to another shape."""
    if order != tuple(range(len(order))):
        moved = tuple(value.shape[axis] for axis in order)
        value = _transpose(graph, [value], moved, {"permutation": order})
    return value if value.shape == shape else _reshape(graph, [value], shape, {})


def _convolution(graph: _Graph, inputs: list[_Value], shape: Shape, params: Params) -> _Value:
    image, kernel = inputs
    layout = tuple(map(tuple, params["dimension_numbers"]))
    if layout != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) or set(params["lhs_dilation"]) != {1}:
        raise NotImplementedError(f"convolution {params}: only NHWC, HWIO, without gaps between")
    first = tuple(image.shape[axis] for axis in layout[0])
    weights = tuple(kernel.shape[axis] for axis in layout[1])
    before, after = zip(*params["padding"], strict=True)
    name = graph.node(
        "Conv",
        [
            graph.whole(_transpose(graph, [image], first, {"permutation": layout[0]})),
            graph.whole(_transpose(graph, [kernel], weights, {"permutation": layout[1]})),
        ],
        strides=list(params["window_strides"]),
        pads=[*before, *after],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    output = graph.value(name, tuple(shape[axis] for axis in layout[0]))
    return _transpose(graph, [output], shape, {"permutation": (0, 2, 3, 1)})


WRITERS: dict[str, Callable[..., _Value | list[_Value]]] = {
    **{
        name: _elementwise(operator)
        for name, operator in {
            "abs": "Abs",
            "add": "Add",
            "and": "And",
            "ceil": "Ceil",
            "cos": "Cos",
            "div": "Div",
            "eq": "Equal",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "ge": "GreaterOrEqual",
            "gt": "Greater",
            "le": "LessOrEqual",
            "log": "Log",
            "logistic": "Sigmoid",
            "lt": "Less",
            "max": "Max",
            "min": "Min",
            "mul": "Mul",
            "neg": "Neg",
            "not": "Not",
            "or": "Or",
            "pow": "Pow",
            "sign": "Sign",
            "sin": "Sin",
            "sqrt": "Sqrt",
            "sub": "Sub",
            "tanh": "Tanh",
        }.items()
    },
    "atan2": _arctangent,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "copy": _unchanged,
    "dot_general": _product,
    "expand_dims": _reshape,
    "gather": _take,
    "integer_pow": _integer_power,
    "ne": _not_equal,
    "optimization_barrier": _unchanged,
    "pad": _pad,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_sum": _reduction("ReduceSum"),
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": _inverse_root,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "stop_gradient": _unchanged,
    "transpose": _transpose,
    "unstack": _unstack,
}
