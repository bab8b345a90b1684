"""The monitor tells of a run while it goes: its steps' numbers, fetched a few at a time."""

from collections.abc import Mapping
from typing import Any

from er_jax.training.metric_log import MetricLog
from er_jax.training.nonfinite_updates import BatchSamples, NonFiniteUpdates
from er_jax.training.step import Metrics
from er_jax.training.throughput import Speed, Throughput
from er_jax.utils.distributed import first_replica


class Monitor:
    """Tells the log, the progress bar and the list of skipped updates of every step.

    Attributes:
      note: the newest loss and the speed, in short.
      details: the newest of all other numbers.
    """

    def __init__(
        self,
        log: MetricLog,
        throughput: Throughput,
        skipped: NonFiniteUpdates,
        *,
        batch_size: int,
        every_steps: int,
    ):
        """Fetches the numbers of `every_steps` steps at a time, of `batch_size` samples each."""
        self.note = self.details = ""
        self._log, self._throughput, self._skipped = log, throughput, skipped
        self._batch_size, self._every = batch_size, every_steps
        self._pending: list[tuple[int, Metrics, BatchSamples]] = []
        self._told = Speed()

    def add(self, step: int, metrics: Metrics, batch: Mapping[str, Any]) -> None:
        """Takes a step's metrics, still on the devices, and its batch as it came from the loader.

        What is fetched are the steps before this one, so that the devices need not wait.
        """
        if len(self._pending) >= self._every:
            self.flush()
        self._pending.append((step, metrics, BatchSamples.of(batch)))

    def flush(self) -> None:
        """Fetches and tells all: before a checkpoint, so that it is never ahead of the log."""
        if not self._pending:
            return
        fetched = first_replica([metrics for _, metrics, _ in self._pending])
        for (step, _, samples), metrics in zip(self._pending, fetched, strict=True):
            numbers = {name: float(value) for name, value in metrics.items()}
            self._log.write(step, {f"train/{name}": value for name, value in numbers.items()})
            if numbers["skipped"]:
                self._skipped.add(step, samples, numbers["loss"], numbers["gradient_norm"])
        self._pending.clear()
        self._tell_speed(step)
        rate = numbers.pop("learning_rate")
        self.note = f"loss {numbers.pop('loss'):.3f}, rate {rate:.1e}{self.note}"
        numbers["skipped"] = self._skipped.count
        self.details = "  ".join(f"{name} {value:.3g}" for name, value in numbers.items())

    def _tell_speed(self, step: int) -> None:
        speed, self._told = self._throughput.total.since(self._told), self._throughput.total
        self.note = ""
        if speed.steps:
            images, waiting = self._batch_size * speed.steps_per_second, speed.waiting_for_data
            self._log.write(step, {"speed/images_per_s": images, "speed/waiting_for_data": waiting})
            self.note = f", {images:.0f} images/s, {waiting:.0%} waiting for data"
