"""One optimizer step, compiled once for all devices."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from er_jax.mano import HandModel
from er_jax.models import ERConfig
from er_jax.models.functional import frozen_weights, network_structure
from er_jax.supervision.losses import losses
from er_jax.supervision.targets import Batch, TargetSizes, make_targets
from er_jax.training.state import TrainState, moved_ema
from er_jax.utils import distributed

Tree = Any
Metrics = dict[str, jax.Array]
# (params, batch_stats, hands, batch, key of the dropout) → (gradients, batch_stats, metrics)
GradientFunction = Callable[[Tree, Tree, HandModel, Batch, jax.Array], tuple[Tree, Tree, Metrics]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """Settings of what a step computes, besides its optimizer.

    Attributes:
      net: the network's sizes and switches.
      depth_box_m: the depth that its heatmaps span.
      loss_weights: of each term of the loss.
      seed: that dropout follows from.
      sync_batch_norm: batch statistics are those of all devices together.
      accumulation: parts into which a device's batch is cut, one computed after the other.
      ema_decay: of the moving average of the weights; 0: there is none.
    """

    net: ERConfig
    depth_box_m: float
    loss_weights: Mapping[str, float]
    seed: int = 0
    sync_batch_norm: bool = True
    accumulation: int = 1
    ema_decay: float = 0.0

    @classmethod
    def of(cls, config: ConfigDict) -> Self:
        """The settings of a run's config."""
        return cls(
            ERConfig.from_dict(config.model),
            config.depth_box_m,
            dict(config.loss),
            config.seed,
            config.sync_batch_norm,
            config.optimizer.accumulation,
            config.optimizer.ema_decay,
        )


def make_train_step(
    settings: StepSettings, optimizer: optax.GradientTransformation, learning_rate: optax.Schedule
) -> Callable[[TrainState, HandModel, Batch], tuple[TrainState, Metrics]]:
    """The step (state, hands, batch) → (state, metrics), over all devices.

    Its arguments carry a leading device axis (see `er_jax.utils.distributed`). The memory of the
    state that goes in is taken over by the state that comes out. The metrics are the loss, its
    weighted terms, the norm of the gradient and the learning rate, over all devices of all hosts,
    and `skipped`: 1 where the loss or the gradient was not finite, so that nothing but the step's
    number changed.
    What dropout leaves out follows from the seed, the step and the device.
    """
    gradients_of = accumulated(make_gradient_function(settings), settings.accumulation)
    decay = settings.ema_decay
    frozen = frozen_weights(settings.net)

    def keep_frozen(batch_stats: Tree, old: Tree) -> Tree:
        """Weights that are not trained, to the last bit: a mean of equal numbers may round."""
        return jax.tree.map(lambda kept, new, x: x if kept else new, frozen, batch_stats, old)

    def train_step(state: TrainState, hands: HandModel, batch: Batch):
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        key = distributed.key_of_device(key)
        gradients, batch_stats, metrics = gradients_of(
            state.params, state.batch_stats, hands, batch, key
        )
        gradients, metrics = distributed.mean_over_devices((gradients, metrics))
        if not settings.sync_batch_norm:
            batch_stats = distributed.mean_over_devices(batch_stats)
        batch_stats = keep_frozen(batch_stats, state.batch_stats)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        rate = learning_rate(state.step)
        params = jax.tree.map(lambda old, update: old - rate * update, state.params, updates)
        ema: Tree = ()
        if decay:
            moved, statistics = moved_ema(state, params, batch_stats, decay)
            ema = moved, keep_frozen(statistics, batch_stats)

        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        params, batch_stats, opt_state, ema = jax.tree.map(
            partial(jnp.where, finite),
            (params, batch_stats, opt_state, ema),
            (state.params, state.batch_stats, state.opt_state, state.ema),
        )
        metrics |= {"gradient_norm": norm, "learning_rate": rate, "skipped": 1 - finite}
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    return distributed.data_parallel(train_step, donate=(0,))


def make_gradient_function(settings: StepSettings) -> GradientFunction:
    """Gradients of the loss on a device's part of a batch, and the moved batch statistics."""
    structure = network_structure(
        settings.net,
        training=True,
        batch_norm_axis=distributed.AXIS if settings.sync_batch_norm else None,
    )
    sizes = TargetSizes.of(settings.net, settings.depth_box_m)

    def gradients_of(
        params: Tree, batch_stats: Tree, hands: HandModel, batch: Batch, key: jax.Array
    ):
        image = batch["image"].astype(jnp.float32) / 255
        targets = make_targets(hands, batch, sizes)

        def loss(params):
            net = nnx.merge(structure, params, batch_stats)
            terms = losses(
                net(image, hands, rngs=nnx.Rngs(dropout=key)), targets, settings.loss_weights
            )
            moved = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
            return sum(terms.values()), (terms, moved)

        (total, (terms, moved)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return gradients, moved, {"loss": total} | terms

    return gradients_of


def accumulated(gradients_of: GradientFunction, parts: int) -> GradientFunction:
    """Returns the function that cuts a batch into equal parts: less memory, more time."""
    if parts == 1:
        return gradients_of

    def mean_gradients(
        params: Tree, batch_stats: Tree, hands: HandModel, batch: Batch, key: jax.Array
    ):
        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

        def add(carry, part_and_key):
            total, batch_stats = carry
            gradients, batch_stats, metrics = gradients_of(
                params, batch_stats, hands, *part_and_key
            )
            return (jax.tree.map(jnp.add, total, gradients), batch_stats), metrics

        start = jax.tree.map(jnp.zeros_like, params), batch_stats
        parts_and_keys = split, jax.random.split(key, parts)
        (total, batch_stats), metrics = jax.lax.scan(add, start, parts_and_keys)
        gradients = jax.tree.map(lambda x: x / parts, total)
        return gradients, batch_stats, jax.tree.map(jnp.mean, metrics)

    return mean_gradients
