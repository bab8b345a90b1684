"""The training loop against its bare compiled step, at the demo's size.

    python -m benchmarks.training --data_dir=outputs/demo/datasets [--workers=1] [--repetitions=3]

The bare step runs again and again on one batch that lies on the devices; the loop is a whole epoch
of `train` with its loader, log and checkpoints, measured by its own `Throughput` (which leaves out
validation, checkpoints and the first step). Both alternate.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from er_jax.configs.demo import get_config
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import shard_for_training, steps_in_epoch, train_loader
from er_jax.training.loop import train
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.utils import distributed
from er_jax.utils.xla_cpu import prepare_cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    config = get_config()
    config.data_dir, config.data.workers, config.epochs = options.data_dir, options.workers, 1
    config.validation.images = 0
    with tempfile.TemporaryDirectory() as folder:
        prepare_cpu(cache_dir=Path(folder) / "compiled")
        results = [
            {"bare_ms": bare_step_ms(config), **loop(config, Path(folder) / str(repetition))}
            for repetition in range(options.repetitions)
        ]
    for result in results:
        print(json.dumps(result))
    medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
    print(json.dumps({"median": medians, "loop / bare": medians["loop_ms"] / medians["bare_ms"]}))


def bare_step_ms(config: ConfigDict) -> float:
    """Milliseconds of the compiled step over as many steps as an epoch has."""
    loader = train_loader(config)
    epoch_steps = steps_in_epoch(loader)
    optimizer, learning_rate = make_optimizer(
        config.optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        steps_per_epoch=epoch_steps,
    )
    step = make_train_step(StepSettings.of(config), optimizer, learning_rate)
    state = create_state(ERConfig.from_dict(config.model), optimizer, config.seed)
    state, hands = distributed.replicate((state, load_hands(None)))
    batch = shard_for_training(next(loader))
    loader.close()
    state, _ = jax.block_until_ready(step(state, hands, batch))
    started = time.perf_counter()
    for _ in range(epoch_steps):
        state, _ = step(state, hands, batch)
    jax.block_until_ready(state)
    return 1000 * (time.perf_counter() - started) / epoch_steps


def loop(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """The same of the training loop, and its share of time waiting for data."""
    workdir.mkdir()
    speed = train(config, workdir).speed
    return {
        "loop_ms": 1000 / speed.steps_per_second,
        "waiting_for_data": speed.waiting_for_data,
    }


if __name__ == "__main__":
    main()
