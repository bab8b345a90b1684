"""The numbers of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard event files in a run's folder.

    A line of `metrics.jsonl` is {"step": int, name: number, ...}. A run that is resumed from an
    earlier step writes those steps again: the last line of a step counts.
    """

    def __init__(self, workdir: Path):
        self._lines = (workdir / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one step."""
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._tensorboard.close()


def read_metric_log(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, by step; of steps written twice the last."""
    by_step: dict[tuple, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        by_step[entry["step"], *sorted(entry)] = entry
    return sorted(by_step.values(), key=lambda entry: entry["step"])
