"""Trains the demo's network in float32 and in bfloat16, and compares where the losses end.

    python -m benchmarks.precision --data_dir=outputs/demo/datasets

Both start from the same weights and see the same batches: the first steps of `make demo`.
"""

import argparse
from itertools import islice

import numpy as np
from ml_collections import ConfigDict

from er_jax.configs.demo import get_config
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import shard_for_training, train_loader
from er_jax.training.loop import steps_in_epoch
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.utils import distributed
from er_jax.utils.progress import progress_bar
from er_jax.utils.xla_cpu import prepare_cpu

PRECISIONS = ("float32", "bfloat16")
LAST = 20  # steps whose mean loss is the loss at the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="of the demo's datasets")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    prepare_cpu()
    losses = {}
    for precision in PRECISIONS:
        config = get_config()
        config.data_dir = arguments.data_dir
        config.model.precision = precision
        losses[precision] = training_losses(config, arguments.steps)
        shown = [
            f"{losses[precision][step - 1]:.4f}" for step in range(LAST, arguments.steps + 1, LAST)
        ]
        print(f"{precision}: loss at every {LAST}th step {' '.join(shown)}", flush=True)
    ends = {precision: float(np.mean(values[-LAST:])) for precision, values in losses.items()}
    for precision, end in ends.items():
        print(f"{precision}: mean loss of the last {LAST} steps {end:.4f}")
    print(f"bfloat16 / float32: {ends['bfloat16'] / ends['float32']:.4f}")


def training_losses(config: ConfigDict, steps: int) -> list[float]:
    """The loss of each of the first steps of a run."""
    hands, data = load_hands(config.mano_dir), train_loader(config)
    optimizer, learning_rate = make_optimizer(
        config.optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        steps_per_epoch=steps_in_epoch(data),
    )
    step = make_train_step(StepSettings.of(config), optimizer, learning_rate)
    state = create_state(ERConfig.from_dict(config.model), optimizer, config.seed)
    state, hands = distributed.replicate((state, hands))
    losses = []
    with progress_bar(f"Training in {config.model.precision}", steps, "steps") as bar:
        for batch in islice(data, steps):
            state, metrics = step(state, hands, shard_for_training(batch))
            losses.append(metrics["loss"])
            bar.advance()
    return [float(distributed.first_replica(loss)) for loss in losses]


if __name__ == "__main__":
    main()
