"""The numbers of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from er_jax.utils.distributed import is_first_process


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard event files in a run's folder.

    A line of `metrics.jsonl` is {"step": int, name: number, ...}; numbers that are not finite are
    left out. A run that goes on from an earlier step writes the steps after it again: the last line
    of a step counts.
    """

    def __init__(self, workdir: Path):
        """Opens the log of a run; of several processes the first one writes."""
        writes = is_first_process()
        lines = workdir / "metrics.jsonl" if writes else Path(os.devnull)
        self._lines = lines.open("a", encoding="utf-8")
        if writes:
            _drop_torn_line(lines)
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), write_to_disk=writes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._tensorboard.close()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes some scalars of one step."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in finite.items():
            self._tensorboard.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Writes an RGB image for TensorBoard."""
        self._tensorboard.add_image(name, image, step, dataformats="HWC")


def _drop_torn_line(path: Path) -> None:
    """Cuts off a last line without an end, of which a kill or a full disk kept the rest away."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)


def read_metric_log(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, by step; of steps written twice the last."""
    by_step: dict[tuple, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        by_step[entry["step"], *sorted(entry)] = entry
    return sorted(by_step.values(), key=lambda entry: entry["step"])
