"""Throughput of a run: the host stays one step ahead, and sees what the devices wait for."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self, TypeVar

import jax

Batch = TypeVar("Batch")


class Speed(NamedTuple):
    """The speed of some steps, without validations and checkpoints between them."""

    steps: int = 0
    seconds: float = 0.0
    starved: float = 0.0  # seconds in which the devices had nothing to do but wait for a batch

    @property
    def waiting_for_data(self) -> float:
        """A share of the time."""
        return self.starved / self.seconds if self.seconds else 0.0

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def since(self, before: "Speed") -> "Speed":
        """Returns the speed of the steps after those of `before`."""
        return Speed(
            self.steps - before.steps,
            self.seconds - before.seconds,
            self.starved - before.starved,
        )


class Throughput:
    """Lets the host be one step ahead of the devices, and measures.

    While a step runs, the host reads the next batch, sends it and enqueues its step: the devices go
    from step to step and copies overlap with computing. The host then waits for the step before, so
    that no more than two batches lie on the devices. A thread notes when a step is done. The first
    step of a process, which is compiled, is not measured.
    """

    def __init__(self) -> None:
        self.total = Speed()
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="watch-steps")
        self._asked = self._arrived = 0.0  # when the newest batch was asked for, and was there
        self._running: _Step | None = None
        self._free: float | None = None  # when the devices ended the last step that was waited for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._watcher.shutdown()

    def read(self, batches: Iterator[Batch]) -> Batch:
        """The next batch."""
        self._asked = time.monotonic()
        batch = next(batches)
        self._arrived = time.monotonic()
        return batch

    def enqueued(self, result: object) -> None:
        """Takes what the step on the batch read last will give; waits for the step before it."""
        step = _Step(self._asked, self._arrived, self._watcher.submit(_when_ready, result))
        if self._running is not None:
            self._wait_for(self._running)
        self._running = step

    def _wait_for(self, step: "_Step") -> None:
        ready = step.ready.result()
        if self._free is not None:
            free = max(self._free, step.asked)
            starved = max(step.arrived - free, 0.0)
            total = self.total
            self.total = Speed(
                total.steps + 1, total.seconds + ready - free, total.starved + starved
            )
        self._free = ready


class _Step(NamedTuple):
    asked: float
    arrived: float
    ready: Future[float]


def _when_ready(result: object) -> float:
    jax.block_until_ready(result)
    return time.monotonic()
