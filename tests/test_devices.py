"""Training on one, two and four devices is the same computation."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

TRAIN = """
import json, sys
import jax
import jax.numpy as jnp
data_dir, precision = sys.argv[1:]
if precision == "float64":
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # the project computes in jnp.float32
from configs.tiny import get_config
from er_jax import parallel
from er_jax.inputs import train_loader
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.training.optimization import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import make_train_step

def precise(tree):
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_float(x) else x, tree)

config = get_config()
config.data_dir, config.batch_size = data_dir, 8
optimizer, learning_rate = make_optimizer(config, steps_per_epoch=10)
loader = train_loader(config)
batches = [precise(next(loader)) for _ in range(20)]
start = precise(create_state(ERConfig.from_dict(config.model), optimizer, config.seed))
hands = precise(load_hands(None))
ends = {}
for count in (1, 2, 4):
    parallel.local_devices = lambda count=count: jax.local_devices()[:count]
    step = make_train_step(config, optimizer, learning_rate)
    state, replicas = parallel.replicate((start, hands))
    losses = []
    for batch in batches:
        state, metrics = step(state, replicas, parallel.shard(batch))
        assert len(metrics["loss"].devices()) == count
        losses.append(float(metrics["loss"][0]))
    ends[count] = jax.device_get(parallel.first_replica(state))
    distance = max(jax.tree.leaves(jax.tree.map(
        lambda a, b: float(abs(a - b).max() / (abs(b).max() + 1e-30)),
        (ends[count].params, ends[count].batch_stats),
        (ends[1].params, ends[1].batch_stats),
    )))
    print(json.dumps({"count": count, "losses": losses, "distance": distance}), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "of_losses"), [("float64", 1e-7), ("float32", 1e-3)])
def test_one_two_and_four_devices_agree(data_dir, precision, of_losses):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", TRAIN, str(data_dir), precision],
        env=os.environ | flags,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    one, *others = map(json.loads, child.stdout.splitlines())
    assert [entry["count"] for entry in others] == [2, 4]
    assert one["losses"][-1] != one["losses"][0]
    for entry in others:
        print(entry["count"], "devices:", entry["distance"])
        np.testing.assert_allclose(entry["losses"], one["losses"], rtol=of_losses)
        if precision == "float64":
            assert entry["distance"] < 1e-7
