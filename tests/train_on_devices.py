"""Trains a network for some steps on some of this machine's virtual devices.

    python tests/train_on_devices.py DATA_DIR tiny|pooled float64|float32 COUNTS OUTPUT \
        [HOST:PORT PROCESSES ID]

`tiny` is `configs/tiny.py`, for twenty steps; `pooled` that of `pooled_network.py`, for four steps
of plain descent.

For each of COUNTS, as in 1,2,4, the losses and where the parameters and batch statistics ended are
written to OUTPUT/COUNT.npz; of several processes COUNT devices of each work, and the first writes.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

data_dir, network, precision, counts, output, *others = sys.argv[1:]
if precision == "float64":
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # type: ignore[misc]  # the project computes in jnp.float32

from pooled_network import Pooled  # noqa: E402

from er_jax.configs.tiny import get_config  # noqa: E402
from er_jax.mano import load_hands  # noqa: E402
from er_jax.models import ERConfig, functional  # noqa: E402
from er_jax.supervision.loaders import train_loader  # noqa: E402
from er_jax.training.optimizer import make_optimizer  # noqa: E402
from er_jax.training.state import create_state  # noqa: E402
from er_jax.training.step import StepSettings, make_train_step  # noqa: E402
from er_jax.utils import distributed  # noqa: E402


def precise(tree):
    def converted(x):
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(converted, tree)


if others:
    distributed.join_processes(others[0], int(others[1]), int(others[2]))
config = get_config()
config.data_dir, config.batch_size = data_dir, 8
config.optimizer.learning_rate = 1e-4  # the paper's: Adam makes whole steps of rounded gradients
optimizer, learning_rate = make_optimizer(
    config.optimizer,
    epochs=config.epochs,
    batch_size=config.batch_size,
    steps_per_epoch=10,
)
if network == "pooled":
    functional.ERNet = Pooled  # type: ignore[misc, assignment]
    optimizer, learning_rate = optax.identity(), optax.constant_schedule(0.1)
loader = train_loader(config)
batches = [precise(next(loader)) for _ in range(20 if network == "tiny" else 4)]
start = precise(create_state(ERConfig.from_dict(config.model), optimizer, config.seed))
hands = precise(load_hands(None))
for count in map(int, counts.split(",")):  # devices of each process
    distributed.local_devices = lambda count=count: jax.local_devices()[:count]
    step = make_train_step(StepSettings.of(config), optimizer, learning_rate)
    state, replicas = distributed.replicate((start, hands))
    losses = []
    for batch in batches:
        state, metrics = step(state, replicas, distributed.shard(batch))
        assert len(metrics["loss"].addressable_shards) == count
        losses.append(float(distributed.first_replica(metrics["loss"])))
    end = jax.device_get(distributed.first_replica(state))
    if distributed.is_first_process():
        leaves = jax.tree.leaves((end.params, end.batch_stats))
        np.savez(Path(output) / f"{count}.npz", np.array(losses), *leaves)
