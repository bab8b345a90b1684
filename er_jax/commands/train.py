"""The command that trains a network."""

from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from er_jax.training.loop import Outcome, train
from er_jax.utils import distributed


def run_training(
    config: ConfigDict,
    workdir: Path,
    profile: tuple[int, int] = (0, 0),
    *,
    allow_changes: bool = False,
) -> Outcome:
    """Trains in `workdir` (see `train`); says on the terminal how it ended."""
    workdir.mkdir(parents=True, exist_ok=True)
    outcome = train(config, workdir, profile, allow_changes=allow_changes)
    if distributed.is_first_process():
        Console().print(_training_summary(config, workdir, outcome), soft_wrap=True)
    return outcome


def _training_summary(config: ConfigDict, workdir: Path, outcome: Outcome) -> str:
    end = "Finished" if outcome.finished else "Stopped, the same command goes on"
    lines = [f"{end} at step {outcome.step}, {outcome.skipped} updates skipped"]
    if outcome.scores:
        step, score = min(outcome.scores, key=lambda entry: entry[1])
        lines.append(f"best {outcome.metric}: {score:.2f} mm at step {step}")
    if (speed := outcome.speed).steps:
        lines.append(
            f"{config.batch_size * speed.steps_per_second:.1f} images/s, "
            f"{speed.waiting_for_data:.1%} of the time waiting for data"
        )
    lines.append(f"checkpoints, metrics.jsonl, log.txt and tensorboard are in {workdir}")
    return "\n".join(lines)
