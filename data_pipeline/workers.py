"""Batches prepared by worker processes, in order, in memory that they share with this process.

Every worker fills some rows of a batch, so that a batch is there soon and nothing but places and
acknowledgements is sent. The memory has no name in the file system: nothing stays behind, whatever
is killed. Workers are forked from a server process that has imported this module once and runs no
thread of JAX; for that reason the module stays clear of Grain, which imports JAX.

Grain has worker processes with shared memory too; those take up to 25 s each to close, and stay
behind when the run is killed (grain 0.2.18).
"""

import collections
import contextlib
import ctypes
import dataclasses
import itertools
import multiprocessing
import pickle
import sys
import traceback
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from data_pipeline.samples import PrepareSample, SampleRef
from er_jax.utils.errors import WorkerError
from er_jax.utils.processes import follow_parent

_LENT = 3
"""Batches that may be in use in place: two on the devices (see `Throughput`), one in hand."""

_ALIGNMENT = 64  # bytes


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Where the fields of a batch lie in its memory, one after the other.

    Attributes:
      fields: name, shape and type of a sample's fields.
      batch_size: samples in a batch.
    """

    fields: tuple[tuple[str, tuple[int, ...], np.dtype], ...]
    batch_size: int

    @classmethod
    def of(cls, sample: Mapping[str, np.ndarray], batch_size: int) -> "BatchLayout":
        """Returns the layout of batches of samples like the given one."""
        fields = tuple((name, value.shape, value.dtype) for name, value in sample.items())
        return cls(fields, batch_size)

    @property
    def size(self) -> int:
        """The bytes of a batch."""
        return sum(self._field_size(shape, dtype) for _, shape, dtype in self.fields)

    def arrays(self, memory: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the fields, (batch, …), as views of a batch's bytes."""
        arrays, start = {}, 0
        for name, shape, dtype in self.fields:
            whole = (self.batch_size, *shape)
            arrays[name] = np.ndarray(whole, dtype, memory, start)
            start += self._field_size(shape, dtype)
        return arrays

    def _field_size(self, shape: tuple[int, ...], dtype: np.dtype) -> int:
        bytes_used = self.batch_size * int(np.prod(shape)) * dtype.itemsize
        return -(-bytes_used // _ALIGNMENT) * _ALIGNMENT


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of a batch that one worker fills."""

    slot: int
    first: int
    places: list[SampleRef]


@dataclasses.dataclass(frozen=True)
class _Worker:
    process: Any
    connection: Connection


class WorkerBatches(Iterator[dict[str, np.ndarray]]):
    """The whole batches of a sequence of places, some of them prepared ahead.

    The image of a batch lies in the shared memory itself and cannot be written to; the memory is
    used again once nothing refers to it any more: no array, no view of one, and no array of JAX
    that took it as it is. Of a batch that is handed out while `_LENT` others are still in use, the
    image is a copy. All other fields, which callers keep for long, are always copies.
    """

    def __init__(
        self,
        place_of: Callable[[int], SampleRef],
        batch_count: int,
        prepare: PrepareSample,
        *,
        batch_size: int,
        worker_count: int,
        ahead: int,
    ):
        """Starts the workers.

        Args:
          place_of: from the number of a sample to its place.
          batch_count: how many batches there are.
          prepare: makes a sample.
          batch_size: samples in a batch.
          worker_count: processes.
          ahead: batches that are prepared while one is in use, at least 1.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._place_of, self._left = place_of, iter(range(batch_count))
        self._ahead = max(ahead, 1)
        self._layout = BatchLayout.of(prepare(place_of(0)), batch_size)  # all samples are alike
        self._memory = [
            context.RawArray(ctypes.c_uint8, self._layout.size) for _ in range(self._ahead + _LENT)
        ]
        self._free = collections.deque(range(len(self._memory)))
        self._begun: collections.deque[tuple[int, list[_Worker]]] = collections.deque()
        bounds = np.linspace(0, batch_size, min(worker_count, batch_size) + 1).astype(int).tolist()
        self._parts = list(itertools.pairwise(bounds))
        self._workers = []
        for _ in range(worker_count):
            mine, its = context.Pipe()
            arguments = (its, prepare, self._layout, self._memory)
            process = context.Process(target=_work, args=arguments, daemon=True)
            with _no_main_module():
                process.start()
            its.close()  # so that a worker's end is seen
            self._workers.append(_Worker(process, mine))
        self._turns = itertools.cycle(self._workers)

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            self._begin_ahead()
            if not self._begun:
                self.close()
                raise StopIteration
            slot, workers = self._begun.popleft()
            errors = [worker.connection.recv() for worker in workers]
        except (EOFError, ConnectionError):
            self.close()
            raise WorkerError(
                "A process that prepares samples was killed, perhaps for want of memory. Run the "
                "same command again, with fewer of them (--config.data.workers)."
            ) from None
        for error in filter(None, errors):
            self._free.append(slot)
            raise error
        return self._hand_out(slot)

    def close(self) -> None:
        """Ends the workers, without waiting for what they have begun; batches stay as they are."""
        self._left = iter(())
        self._begun.clear()
        for worker in self._workers:
            worker.process.kill()
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def _begin_ahead(self) -> None:
        while self._free and len(self._begun) <= self._ahead:
            number = next(self._left, None)
            if number is None:
                return
            slot, start = self._free.popleft(), number * self._layout.batch_size
            workers = []
            for first, end in self._parts:
                places = [self._place_of(start + row) for row in range(first, end)]
                worker = next(self._turns)
                worker.connection.send(_Rows(slot, first, places))
                workers.append(worker)
            self._begun.append((slot, workers))

    def _hand_out(self, slot: int) -> dict[str, np.ndarray]:
        memory = np.frombuffer(memoryview(self._memory[slot]), np.uint8)
        memory.flags.writeable = False
        in_place = len(self._free) + len(self._begun) >= self._ahead
        batch = {
            name: array if in_place and name == "image" else array.copy()
            for name, array in self._layout.arrays(memory).items()
        }
        # Views of views refer to `memory` itself: it ends with the last of them.
        weakref.finalize(memory, self._free.append, slot).atexit = False
        return batch


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Has a process that starts meanwhile not execute the main module again.

    Python would have it do so, whatever that module imports, JAX perhaps; workers need none of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(
    connection: Connection, prepare: PrepareSample, layout: BatchLayout, memory: Sequence[Any]
) -> None:
    """Fills rows of batches until the parent closes the connection or ends."""
    follow_parent()
    cv2.setNumThreads(1)
    slots = [layout.arrays(np.frombuffer(memoryview(slot), np.uint8)) for slot in memory]
    while True:
        try:
            rows = connection.recv()
            connection.send(_error_of(_fill, prepare, slots[rows.slot], rows))
        except (EOFError, ConnectionError):
            return


def _fill(prepare: PrepareSample, batch: Mapping[str, np.ndarray], rows: _Rows) -> None:
    for row, place in enumerate(rows.places, rows.first):
        for name, value in prepare(place).items():
            batch[name][row] = value


def _error_of(function: Callable[..., None], *arguments: Any) -> Exception | None:
    """Calls a function; returns what it raised, in a form that reaches the parent."""
    try:
        function(*arguments)
    except Exception as error:
        error.add_note(f"In a process that prepares samples:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(traceback.format_exc())
        return error
    return None
