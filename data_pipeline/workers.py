"""Batches prepared by worker processes, in order.

Grain has worker processes too; those take up to 25 s each to close, and stay behind when the run is
killed (grain 0.2.18).
"""

import collections
import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
import numpy as np

from data_pipeline.samples import PrepareSample, SampleRef, stack_samples
from er_jax.utils.errors import WorkerError
from er_jax.utils.processes import follow_parent


class WorkerBatches(Iterator[dict[str, np.ndarray]]):
    """The whole batches of a sequence of places, some of them prepared ahead."""

    def __init__(
        self,
        places: Sequence[SampleRef],
        prepare: PrepareSample,
        batch_size: int,
        worker_count: int,
        ahead: int,
    ):
        self._places = places
        self._batch_size = batch_size
        self._count = len(places) // batch_size
        self._ahead = max(ahead, worker_count)
        self._submitted = 0
        self._pending: collections.deque[Any] = collections.deque()
        self._pool = concurrent.futures.ProcessPoolExecutor(
            worker_count, multiprocessing.get_context("spawn"), _start_worker, (prepare,)
        )

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            self._submit_ahead()
            if not self._pending:
                self.close()
                raise StopIteration
            return self._pending.popleft().result()
        except BrokenProcessPool:
            raise WorkerError(
                "A process that prepares samples was killed, perhaps for want of memory. Run the "
                "same command again, with fewer of them (--config.data.workers)."
            ) from None

    def _submit_ahead(self) -> None:
        while self._submitted < self._count and len(self._pending) <= self._ahead:
            first = self._submitted * self._batch_size
            places = [self._places[first + i] for i in range(self._batch_size)]
            self._pending.append(self._pool.submit(_prepare_batch, places))
            self._submitted += 1

    def close(self) -> None:
        """Ends the workers, without waiting for what they have begun."""
        self._pending.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)


_prepare: PrepareSample | None = None  # of this worker process, set once when it starts


def _start_worker(prepare: PrepareSample) -> None:
    global _prepare
    _prepare = prepare
    follow_parent()
    cv2.setNumThreads(1)


def _prepare_batch(places: Sequence[SampleRef]) -> dict[str, np.ndarray]:
    assert _prepare is not None
    return stack_samples([_prepare(place) for place in places])
