"""A table of the network's modules, by the figure: shapes, parameters, FLOPs and memory."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.table import Table

from er_jax.mano import HandModel, mano_forward
from er_jax.models.config import JOINTS, ERConfig
from er_jax.models.er import ERNet
from er_jax.models.freezing import Frozen
from er_jax.utils.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class Part:
    """A box of the figure: its module, if it has weights, and what of an image enters it."""

    name: str
    module: nnx.Module | None
    inputs: tuple[tuple[int, ...], ...]  # shapes without the batch axis
    function: Callable = lambda module, *inputs: module(*inputs)


@dataclasses.dataclass(frozen=True)
class Measures:
    """The table's numbers of one part."""

    output: tuple[int, ...]  # shape, of a batch
    parameters: int
    flops: float  # of the forward pass of one image
    kept_bytes: int  # activations of a batch that the backward pass reads


def describe(config: ERConfig, hands: HandModel, *, batch: int = 1) -> Table:
    """The network of a config, module by module.

    FLOPs are those that XLA counts in each module's forward pass for one image, before it gives
    products to libraries, in which it counts none. The activations are what training keeps of each
    module for its backward pass, at the given batch.
    """
    net = nnx.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0)))
    table = Table(title=f"ER with {config.backbone}, {config.precision}, batch {batch}")
    table.add_column("module")
    for column in ("output", "parameters, M", "GFLOP an image", "activations, MiB"):
        table.add_column(column, justify="right")
    parts = parts_of(net, hands)
    with progress_bar("Measuring", len(parts), "modules") as bar:
        for part in parts:
            if part.module is net:
                table.add_section()
            table.add_row(part.name, *_cells(measure(part, batch)))
            bar.advance()
    return table


def parts_of(net: ERNet, hands: HandModel) -> list[Part]:
    """The modules in the figure's order, then the whole network."""
    config = net.config
    side, width = config.grid, config.feature_dim
    image = (config.input_size, config.input_size, 3)
    grid, tokens = (2, side, side, width), (2, side**2, width)
    shared = (2, side, side, net.backbone.channels)
    joints = ((2, JOINTS, width), (2, JOINTS, 3))
    first = lambda module, *inputs: module(*inputs)[0]  # noqa: E731
    mano = lambda _, betas, pose: mano_forward(hands, betas, pose).vertices  # noqa: E731
    parts = [
        Part("Backbone → F", net.backbone, (image,)),
        Part("Hand streams → F_R, F_L", net.hand_stream, (shared,)),
        Part("Joint heatmaps → JointR, JointL", net.joint_heatmaps, (grid,)),
        Part("DeSim → F*_R, F*_L", net.desim, (tokens,), first),
        Part("DeOcc → priorR, priorL", net.deocc, (tokens,), first),
        Part("3D relative offset", net.relative_translation, ((2, width),)),
        Part("FuseJoint → F*_PR, F*_PL", net.fusejoint, joints, first),
        Part("Shape and camera", net.shape_and_camera, ((2, width),), first),
        Part("Pose", net.pose, joints),
        Part("Presence (this project's own)", net.presence, ((2, width),)),
    ]
    switched_on = [part for part in parts if part.module is not None]
    return [
        *switched_on,
        Part("MANO → V_right, V_left", None, ((2, 10), (2, 48)), mano),
        Part("image to meshes", net, (image,), lambda net, image: net(image, hands).vertices),
    ]


def measure(part: Part, batch: int) -> Measures:
    """Lowers a part's forward pass, and traces its backward pass."""
    module = nnx.Module() if part.module is None else part.module
    module.train()
    graphdef, *states = nnx.split(module, nnx.Param, ...)

    def forward(params: nnx.State, rest: nnx.State, *inputs: jax.Array) -> jax.Array:
        return part.function(nnx.merge(graphdef, params, rest, copy=True), *inputs)

    def arguments(count: int) -> list:
        inputs = [jax.ShapeDtypeStruct((count, *shape), jnp.float32) for shape in part.inputs]
        return [*states, *inputs]

    lowered = jax.jit(forward).lower(*arguments(1))
    weights = nnx.state(module, nnx.Any(nnx.Param, Frozen))
    return Measures(
        output=jax.eval_shape(forward, *arguments(batch)).shape,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(weights)),
        flops=(lowered.cost_analysis() or {})["flops"],
        kept_bytes=kept_for_backward(forward, *arguments(batch)),
    )


def kept_for_backward(function: Callable, *arguments) -> int:
    """Bytes that differentiation keeps of a function, its arguments and constants not counted."""

    def residuals(*arguments):
        return jax.tree.leaves(jax.vjp(function, *arguments)[1])

    jaxpr = jax.make_jaxpr(residuals)(*arguments).jaxpr
    given = {id(variable) for variable in (*jaxpr.invars, *jaxpr.constvars)}
    kept: dict[int, Any] = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in kept.values())


def _cells(measures: Measures) -> tuple[str, str, str, str]:
    return (
        " × ".join(map(str, measures.output)),
        f"{measures.parameters / 1e6:.2f}",
        f"{measures.flops / 1e9:.3f}",
        f"{measures.kept_bytes / 2**20:.1f}",
    )
