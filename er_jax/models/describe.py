"""A table of the network's modules, by the figure: shapes, parameters, FLOPs and memory."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.table import Table

from er_jax.mano import HandModel, hand_forward
from er_jax.models.config import JOINTS, ERConfig
from er_jax.models.er import ERNet


@dataclasses.dataclass(frozen=True)
class Part:
    """A box of the figure: its module, if it has weights, and the shapes that enter it."""

    name: str
    module: nnx.Module | None
    inputs: tuple[tuple[int, ...], ...]
    function: Callable = lambda module, *inputs: module(*inputs)


@dataclasses.dataclass(frozen=True)
class Measures:
    """What the table says of a part, for one batch."""

    output: tuple[int, ...]
    parameters: int
    flops: float  # of the compiled forward pass
    kept_bytes: int  # activations that the backward pass reads


def describe(config: ERConfig, hands: HandModel, *, batch: int = 1) -> Table:
    """The network of a config, module by module.

    FLOPs are those that XLA counts in each module's compiled forward pass for one image. The
    activations are what training keeps of each module for its backward pass, at the given batch.
    """
    net = ERNet(config, rngs=nnx.Rngs(0))
    table = Table(title=f"ER with {config.backbone}, {config.precision}, batch {batch}")
    table.add_column("module")
    for column in ("output", "parameters, M", "GFLOP an image", "activations, MiB"):
        table.add_column(column, justify="right")
    rows = [(part.name, measure(part, batch)) for part in parts_of(net, hands, batch)]
    for name, measures in rows:
        table.add_row(name, *_cells(measures, batch))
    everything = Part("all", net, (_image(config, batch),), lambda net, image: net(image, hands))
    table.add_section()
    table.add_row("image to meshes", *_cells(measure(everything, batch), batch))
    return table


def parts_of(net: ERNet, hands: HandModel, batch: int) -> list[Part]:
    """The modules in the figure's order."""
    config = net.config
    side, width = config.grid, config.feature_dim
    grid, tokens = (batch, 2, side, side, width), (batch, 2, side**2, width)
    shared = (batch, 2, side, side, net.backbone.channels)
    joints = ((batch, 2, JOINTS, width), (batch, 2, JOINTS, 3))
    first = lambda module, *inputs: module(*inputs)[0]  # noqa: E731
    mano = lambda _, betas, pose: hand_forward(hands, betas, pose).vertices  # noqa: E731
    parts = [
        Part("Backbone → F", net.backbone, (_image(config, batch),)),
        Part("Hand streams → F_R, F_L", net.hand_stream, (shared,)),
        Part("Joint heatmaps → JointR, JointL", net.joint_heatmaps, (grid,)),
        Part("DeSim → F*_R, F*_L", net.desim, (tokens,), first),
        Part("DeOcc → priorR, priorL", net.deocc, (tokens,), first),
        Part("3D relative offset", net.relative_translation, ((batch, 2, width),)),
        Part("FuseJoint → F*_PR, F*_PL", net.fusejoint, joints, first),
        Part("Shape and camera", net.shape_and_camera, ((batch, 2, width),), first),
        Part("Pose", net.pose, joints),
    ]
    switched_on = [part for part in parts if part.module is not None]
    return [
        *switched_on,
        Part("MANO → V_right, V_left", None, ((batch, 2, 10), (batch, 2, 48)), mano),
    ]


def measure(part: Part, batch: int) -> Measures:
    """Compiles a part's forward pass, and traces its backward pass."""
    module = nnx.Module() if part.module is None else part.module
    module.train()
    graphdef, *states = nnx.split(module, nnx.Param, ...)
    params, rest = states
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in part.inputs]

    def forward(params: nnx.State, *inputs: jax.Array) -> jax.Array:
        output = part.function(nnx.merge(graphdef, params, rest, copy=True), *inputs)
        return output if isinstance(output, jax.Array) else output.vertices

    compiled = jax.jit(forward).lower(params, *inputs).compile()
    return Measures(
        output=jax.eval_shape(forward, params, *inputs).shape,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        flops=(compiled.cost_analysis() or {})["flops"],
        kept_bytes=kept_for_backward(forward, params, *inputs),
    )


def kept_for_backward(function: Callable, *arguments) -> int:
    """Bytes that differentiation keeps of a function, its arguments and constants not counted."""

    def residuals(*arguments):
        return jax.tree.leaves(jax.vjp(function, *arguments)[1])

    jaxpr = jax.make_jaxpr(residuals)(*arguments).jaxpr
    given = {id(variable) for variable in (*jaxpr.invars, *jaxpr.constvars)}
    kept: dict[int, Any] = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in kept.values())


def _image(config: ERConfig, batch: int) -> tuple[int, ...]:
    return (batch, config.input_size, config.input_size, 3)


def _cells(measures: Measures, batch: int) -> tuple[str, str, str, str]:
    return (
        " × ".join(map(str, measures.output)),
        f"{measures.parameters / 1e6:.2f}",
        f"{measures.flops / batch / 1e9:.3f}",
        f"{measures.kept_bytes / 2**20:.1f}",
    )
