"""Processes that read and look at pictures, and go on when one of them dies."""

import dataclasses
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from er_jax.bulk.seeing import Failed, Followed, Seen, follow, see
from er_jax.bulk.sources import Entry, Given
from er_jax.detection import Detector
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.utils import progress
from er_jax.utils.processes import follow_parent
from er_jax.video.tracking import Tracker

Task = Sequence[Given] | Entry
"""Some pictures, or a piece of a video."""
Result = list[Seen | Failed | Followed]
TRIES = 3
"""Of a picture whose process dies, before it is said to be the picture."""


def mediapipe(detector_dir: Path | None) -> tuple[Detector, Detector]:
    """MediaPipe's networks, thorough and quick, on one core."""
    thorough = MediaPipeHands(detector_dir, threads=1)
    return thorough, MediaPipeHands(detector_dir, threads=1, thorough=False)


@dataclasses.dataclass(frozen=True)
class Looking:
    """How pictures are looked at.

    Attributes:
      detector_dir: see `er_jax.load`.
      keep_pixels: see `see`.
      detectors: makes, in each process, that of pictures and that of videos.
    """

    detector_dir: Path | None = None
    keep_pixels: bool = False
    detectors: Callable[[Path | None], tuple[Detector, Detector]] = mediapipe


class Looker:
    """What one process keeps to look at pictures.

    Args:
      looking: how.
    """

    def __init__(self, looking: Looking):
        cv2.setNumThreads(1)
        self._looking = looking
        self._thorough, self._quick = looking.detectors(looking.detector_dir)

    def __call__(self, task: Task) -> Result:
        """What is seen."""
        if isinstance(task, Entry):
            return [follow(task, lambda: Tracker(self._quick))]
        return list(see(task, self._thorough, keep_pixels=self._looking.keep_pixels))


class Pool:
    """Processes that look at pictures.

    Args:
      processes: how many.
      looking: how.

    Raises:
      UserError: the detector cannot be had.
    """

    def __init__(self, processes: int, looking: Looking):
        self._processes, self._looking = processes, looking
        looking.detectors(looking.detector_dir)  # what is wrong with it is no picture's fault
        self._pool = self._started()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """What is seen of each, in their order; some are taken ahead, and no more.

        A task whose process dies is done again, at last picture by picture: what kills its process
        each time has failed.
        """
        waiting: deque[tuple[Task, Future[Result]]] = deque()
        for task in tasks:
            waiting.append((task, self._submit(task)))
            if len(waiting) > 2 * self._processes:
                yield self._first(waiting)
        while waiting:
            yield self._first(waiting)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._processes,
            multiprocessing.get_context("spawn"),  # JAX, which runs here, must not be forked
            initializer=_begin,
            initargs=(self._looking,),
        )

    def _submit(self, task: Task) -> "Future[Result]":
        try:
            return self._pool.submit(_look, task)
        except BrokenProcessPool as error:
            broken: Future[Result] = Future()
            broken.set_exception(error)
            return broken

    def _first(self, waiting: "deque[tuple[Task, Future[Result]]]") -> Result:
        task, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            self._restart()
        result = self._alone(task)
        for place, (other, old) in enumerate(waiting):
            if old.cancelled() or not old.done() or old.exception() is not None:
                waiting[place] = (other, self._submit(other))
        return result

    def _alone(self, task: Task) -> Result:
        """A task with nothing beside it, so that if its process dies it is because of it."""
        for _ in range(TRIES):
            try:
                return self._submit(task).result()
            except BrokenProcessPool:
                self._restart()
        if isinstance(task, Entry):
            return [_died(task.source, "")]
        if len(task) == 1:
            return [_died(task[0].source, task[0].key)]
        return [seen for one in task for seen in self._alone([one])]

    def _restart(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._started()


_looker: Looker | None = None


def _died(source: str, key: str) -> Failed:
    reason = f"the process that read it died each of {TRIES} times, perhaps for want of memory"
    return Failed(source, key, reason)


def _begin(looking: Looking) -> None:
    """Begins a process of the pool."""
    global _looker
    follow_parent()
    progress.hide_bars()
    _looker = Looker(looking)


def _look(task: Task) -> Result:
    assert _looker is not None, "the process has begun"
    return _looker(task)
