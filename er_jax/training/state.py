"""What a run carries from step to step."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from er_jax.models import ERConfig, ERNet
from er_jax.models.params import load_backbone

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A run after `step` optimizer steps: all of it but the position of the data iterator."""

    step: Int[Array, ""]
    params: Tree  # the network's parameters, nested dicts by module
    batch_stats: Tree  # running means and variances of the batch norms
    optimizer: Tree  # the optimizer's own state
    average: Tree = ()  # moving average of (params, batch_stats), where the run keeps one

    def evaluated(self) -> Self:
        """The state whose weights are evaluated: the averages where there are any."""
        if not self.average:
            return self
        params, batch_stats = self.average
        return dataclasses.replace(self, params=params, batch_stats=batch_stats)


def moved_average(state: TrainState, params: Tree, batch_stats: Tree, decay: float) -> Tree:
    """The state's average, moved towards new weights by 1 − decay, and faster at the start."""
    kept = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return optax.incremental_update((params, batch_stats), state.average, 1 - kept)


def create_state(
    config: ERConfig,
    optimizer: optax.GradientTransformation | None,
    seed: int,
    *,
    averaged: bool = False,
) -> TrainState:
    """A freshly initialised run, the same on every host for the same seed.

    Without an optimizer it is only the network's: for evaluation. An `averaged` run also keeps a
    moving average of its weights.
    """

    def initialise() -> TrainState:
        net = ERNet(config, rngs=nnx.Rngs(seed))
        params = nnx.to_pure_dict(nnx.state(net, nnx.Param))
        batch_stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
        memory = optimizer.init(params) if optimizer else ()
        average = (params, batch_stats) if averaged else ()
        return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, memory, average)

    return jax.jit(initialise)()


def with_pretrained_backbone(config: ERConfig, state: TrainState) -> TrainState:
    """A fresh state whose backbone starts from `config.backbone_weights`, where that is set.

    Raises:
      FileNotFoundError, WeightError, CheckpointError: see `load_backbone`.
    """
    if config.backbone_weights is None:
        return state
    net = network_of(config, state)
    load_backbone(net.backbone, config.backbone_weights)
    params = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    batch_stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
    average = (params, batch_stats) if state.average else ()
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, average=average)


def network_of(config: ERConfig, state: TrainState) -> ERNet:
    """The network with a state's weights, in evaluation mode."""
    structure = network_structure(config, training=False)
    return nnx.merge(structure, state.params, state.batch_stats)


def network_structure(
    config: ERConfig, *, training: bool, batch_norm_axis: str | None = None
) -> nnx.GraphDef:
    """The network without its arrays: `nnx.merge(structure, params, batch_stats)` makes it whole.

    Args:
      config: the network's sizes.
      training: batch norms use, and update from, the statistics of the batch; else the running
        ones.
      batch_norm_axis: the statistics are those of the batch on all devices of this axis.
    """

    def build() -> ERNet:
        whole = dataclasses.replace(config, batch_norm_axis=batch_norm_axis)
        net = ERNet(whole, rngs=nnx.Rngs(0))
        if training:
            net.train()
        else:
            net.eval()
        return net

    return nnx.split(nnx.eval_shape(build))[0]
