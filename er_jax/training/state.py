"""What a run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from er_jax import parallel
from er_jax.models import ERConfig, ERNet

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A run after `step` optimizer steps: all of it but the position of the data iterator."""

    step: Int[Array, ""]
    params: Tree  # the network's parameters, nested dicts by module
    batch_stats: Tree  # running means and variances of the batch norms
    optimizer: Tree  # the optimizer's own state


def create_state(
    config: ERConfig, optimizer: optax.GradientTransformation | None, seed: int
) -> TrainState:
    """A freshly initialised run, the same on every host for the same seed.

    Without an optimizer it is only the network's: for evaluation.
    """

    def initialise() -> TrainState:
        net = ERNet(config, rngs=nnx.Rngs(seed))
        params = nnx.to_pure_dict(nnx.state(net, nnx.Param))
        batch_stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
        memory = optimizer.init(params) if optimizer else ()
        return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, memory)

    return jax.jit(initialise)()


def network_structure(config: ERConfig, *, training: bool) -> nnx.GraphDef:
    """The network without its arrays: `nnx.merge(structure, params, batch_stats)` makes it whole.

    Args:
      config: the network's sizes.
      training: batch norms use, and update from, the statistics of the batch on all devices; else
        the running ones.
    """

    axis = parallel.AXIS if training else None

    def build() -> ERNet:
        net = ERNet(dataclasses.replace(config, batch_norm_axis=axis), rngs=nnx.Rngs(0))
        if training:
            net.train()
        else:
            net.eval()
        return net

    return nnx.split(nnx.eval_shape(build))[0]
