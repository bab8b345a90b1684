"""What the server counts, as Prometheus reads it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self._registry.register(collector)
        self._answers = Counter(
            "er_jax_answers",
            "Requests by their answer's status.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "er_jax_answer_seconds",
            "Time from a request's first byte to its answer.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "er_jax_batch_pictures",
            "Pictures done together.",
            buckets=(1, 2, 4, 8, 16),
            registry=self._registry,
        )
        self._waiting = Gauge("er_jax_waiting", "Jobs in the queue.", registry=self._registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Has the queue's length told."""
        self._waiting.set_function(waiting)

    def batch(self, pictures: int) -> None:
        """Counts pictures that were done together."""
        self._batches.observe(pictures)

    @contextmanager
    def timed(self, status: Callable[[], int]) -> Iterator[None]:
        """Counts and times a request.

        Args:
          status: of its answer, asked when the block has ended.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            self._answers.labels(str(status())).inc()
            self._seconds.observe(time.monotonic() - began)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
