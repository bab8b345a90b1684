"""One thread that alone uses the engines, and the queue before it.

Neither the detector nor two fits at once can be used from several threads, and a device is used
best by one program at a time, in batches.
"""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import Photograph
from er_jax.photographs.result import Reconstruction
from er_jax.web.engines import Choice, Engines

T = TypeVar("T")


class BusyError(Exception):
    """As much is waiting as may wait: ask again later."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """A picture, or whatever else is to be done with an engine."""

    choice: Choice
    photograph: Photograph | None
    work: Callable[[Engine], Any] | None
    future: "Future[Any]"

    @property
    def pixels(self) -> int:
        return 0 if self.photograph is None else self.photograph.pixels.size // 3


class Worker:
    """Does one thing after the other; pictures of one choice that wait together, together.

    Args:
      engines: that nobody else uses from now on.
      waiting: most jobs in the queue.
      waiting_pixels: most pixels of pictures in the queue; one picture may have more.
      at_once: most pictures in a batch.
      did: told of each batch how many pictures it had; from the worker's thread.
    """

    def __init__(
        self,
        engines: Engines,
        *,
        waiting: int = 64,
        waiting_pixels: int = 300_000_000,
        at_once: int = 8,
        did: Callable[[int], None] = lambda pictures: None,
    ):
        self.engines = engines
        self.at_once = at_once
        self._most, self._most_pixels, self._did = waiting, waiting_pixels, did
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="er_jax worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue, without those being done."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether jobs are accepted and will be done."""
        return self._thread.is_alive() and not self._closed

    def reconstruct(self, photograph: Photograph, choice: Choice) -> "Future[Reconstruction]":
        """The hands of a picture; cancelling the future takes it out of the queue.

        Raises:
          BusyError: the queue is full, or has been closed.
        """
        return self._put(_Job(choice, photograph, None, Future()))

    def run(self, choice: Choice, work: Callable[[Engine], T]) -> "Future[T]":
        """Whatever else needs an engine, alone.

        Raises:
          BusyError: see `reconstruct`.
        """
        return self._put(_Job(choice, None, work, Future()))

    def close(self) -> None:
        """Does what is in the queue, and takes nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, job: _Job) -> "Future[Any]":
        with self._changed:
            pixels = sum(other.pixels for other in self._jobs)
            full = len(self._jobs) >= self._most or (
                len(self._jobs) > 0 and pixels + job.pixels > self._most_pixels
            )
            if self._closed or full:
                raise BusyError("closing" if self._closed else f"{len(self._jobs)} are waiting")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _run(self) -> None:
        while jobs := self._next():
            live = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if live:
                self._do(live)

    def _next(self) -> list[_Job]:
        """The oldest job, and the pictures of its choice; none after the end."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if not self._jobs:
                return []
            first = self._jobs.popleft()
            if first.photograph is None:
                return [first]
            like = [
                job
                for job in self._jobs
                if job.photograph is not None and job.choice == first.choice
            ]
            together = [first, *like[: self.at_once - 1]]
            self._jobs = deque(job for job in self._jobs if job not in together)
            return together

    def _do(self, jobs: list[_Job]) -> None:
        try:
            results = self._results(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one of them is at fault, and the others can be done without it
                self._do([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)

    def _results(self, jobs: list[_Job]) -> list[Any]:
        choice, work = jobs[0].choice, jobs[0].work
        engine = self.engines.of(choice)
        if work is not None:
            return [work(engine)]
        pictures = [job.photograph for job in jobs if job.photograph is not None]
        results = engine.many(
            pictures, focal_px=choice.focal_px, principal_point_px=choice.principal_point_px
        )
        self._did(len(jobs))
        return list(results)
