"""One optimizer step, compiled once for all devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from er_jax import parallel
from er_jax.losses import losses
from er_jax.mano import HandModel
from er_jax.models import ERConfig
from er_jax.targets import Batch, make_target_function
from er_jax.training.state import TrainState, network_structure

Metrics = dict[str, jax.Array]


def make_train_step(
    config: ConfigDict, optimizer: optax.GradientTransformation, schedule: optax.Schedule
) -> Callable[[TrainState, HandModel, Batch], tuple[TrainState, Metrics]]:
    """The step (state, hands, batch) → (state, metrics), over all devices.

    Its arguments carry a leading device axis (see `er_jax.parallel`). The memory of the state that
    goes in is taken over by the state that comes out. The metrics are the loss, its weighted terms
    and the learning rate, each the mean over all devices of all hosts.
    """
    structure = network_structure(ERConfig.from_dict(config.model), training=True)
    targets_of = make_target_function(config)
    weights = dict(config.loss)

    def train_step(state: TrainState, hands: HandModel, batch: Batch):
        image = batch["image"].astype(jnp.float32) / 255
        targets = targets_of(hands, batch)

        def loss(params):
            net = nnx.merge(structure, params, state.batch_stats)
            terms = losses(net(image, hands), targets, weights)
            batch_stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
            return sum(terms.values()), (terms, batch_stats)

        gradient_of = jax.value_and_grad(loss, has_aux=True)
        (total, (terms, batch_stats)), gradients = gradient_of(state.params)
        gradients, batch_stats, metrics = parallel.mean_over_devices(
            (gradients, batch_stats, {"loss": total} | terms)
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["learning_rate"] = schedule(state.step)
        return TrainState(state.step + 1, params, batch_stats, optimizer_state), metrics

    return parallel.data_parallel(train_step, donate=(0,))
