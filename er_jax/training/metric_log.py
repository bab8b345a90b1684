"""The numbers of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import jax
from tensorboardX import SummaryWriter

from er_jax.parallel import first_replica


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard event files in a run's folder.

    A line of `metrics.jsonl` is {"step": int, name: number, ...}; numbers that are not finite are
    left out. A run that goes on from an earlier step writes the steps after it again: the last line
    of a step counts.
    """

    def __init__(self, workdir: Path, *, every: int):
        """Opens the log of a run; `every` is how many steps' metrics are fetched at a time."""
        self._lines = (workdir / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"))
        self._every = every
        self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
        self.note = ""  # the newest loss that was fetched, for the progress bar

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()
        self._lines.close()
        self._tensorboard.close()

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes a training step's metrics, still on the devices and perhaps not computed yet."""
        self._pending.append((step, metrics))
        if step % self._every == 0:
            self.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one step, after those of the steps before it."""
        self.flush()
        self._write(step, scalars)

    def flush(self) -> None:
        """Fetches and writes what was added: before a checkpoint, so that it is never ahead."""
        for step, metrics in self._pending:
            scalars = {name: float(value) for name, value in first_replica(metrics).items()}
            self._write(step, {f"train/{name}": value for name, value in scalars.items()})
            self.note = f"loss {scalars['loss']:.3f}"
        self._pending.clear()

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in finite.items():
            self._tensorboard.add_scalar(name, value, step)


def read_metric_log(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, by step; of steps written twice the last."""
    by_step: dict[tuple, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        by_step[entry["step"], *sorted(entry)] = entry
    return sorted(by_step.values(), key=lambda entry: entry["step"])
