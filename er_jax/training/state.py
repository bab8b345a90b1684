"""The state that a run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from er_jax.models import ERConfig
from er_jax.models.functional import NetworkWeights, create_weights, network_of, weights_of
from er_jax.models.weights.import_export import load_backbone

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A run after `step` optimizer steps: all of it but the position of the data iterator."""

    step: Int[Array, ""]
    params: Tree  # the network's parameters, nested dicts by module
    batch_stats: Tree  # running means and variances of the batch norms
    opt_state: Tree  # the optimizer's own state
    ema: Tree = ()  # exponential moving average of (params, batch_stats), where the run keeps one

    @property
    def weights(self) -> NetworkWeights:
        """The weights that are trained."""
        return NetworkWeights(self.params, self.batch_stats)

    def evaluated(self) -> NetworkWeights:
        """The weights that are evaluated: the averages where there are any."""
        return NetworkWeights(*self.ema) if self.ema else self.weights


def moved_ema(state: TrainState, params: Tree, batch_stats: Tree, decay: float) -> Tree:
    """The state's average, moved towards new weights by 1 − decay, and faster at the start."""
    kept = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return optax.incremental_update((params, batch_stats), state.ema, 1 - kept)


def create_state(
    config: ERConfig, optimizer: optax.GradientTransformation, seed: int, *, with_ema: bool = False
) -> TrainState:
    """A freshly initialised run, the same on every host for the same seed.

    With `with_ema` it also keeps an exponential moving average of its weights.
    """

    weights = create_weights(config, seed)
    params, batch_stats = weights.params, weights.batch_stats
    ema = (params, batch_stats) if with_ema else ()
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, batch_stats, jax.jit(optimizer.init)(params), ema)


def with_weights(state: TrainState, weights: NetworkWeights) -> TrainState:
    """A run that has not begun, from other weights; its average starts from them too."""
    params, batch_stats = weights.params, weights.batch_stats
    ema = (params, batch_stats) if state.ema else ()
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, ema=ema)


def with_pretrained_backbone(config: ERConfig, state: TrainState) -> TrainState:
    """A fresh state whose backbone starts from `config.backbone_weights`, where that is set.

    Raises:
      FileNotFoundError, WeightError, CheckpointError: see `load_backbone`.
    """
    if config.backbone_weights is None:
        return state
    net = network_of(config, state.weights)
    load_backbone(net.backbone, config.backbone_weights)
    return with_weights(state, weights_of(net))
