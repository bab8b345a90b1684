"""A watch on a run of several processes: one that is alive but stuck ends it, and is named.

A process that dies ends the others, which JAX tells. One that is stuck (a file system that does not
answer, a debugger, SIGSTOP) has all the others wait in the middle of a step for ever.
"""

import logging
import os
import threading
import time
from typing import Any, Self

import jax
from jax._src import distributed as jax_distributed  # has no public name

from er_jax.utils.errors import EXIT_STOPPED

_FOLDER = "er_jax/watchdog/"


class Watchdog:
    """Ends this process where no `beat` came for too long; does nothing in a run of one process.

    It watches from the first beat on: before it, programs are compiled.

    Every process tells the others, by the service through which JAX's processes find each other,
    when it last beat, and at which step; who ends it says so of each.
    """

    def __init__(self, limit_s: float):
        """Ends the process after `limit_s` seconds without a beat; 0: never."""
        self._limit_s = limit_s
        self._step, self._beat_at = 0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._limit_s and jax.process_count() > 1:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def beat(self, step: int | None = None) -> None:
        """Says that this process goes on; at a step, or within the one told before."""
        self._step = self._step if step is None else step
        self._beat_at = time.time()

    def _watch(self) -> None:
        rank, client = jax.process_index(), jax_distributed.global_state.client
        while not self._ended.wait(min(self._limit_s / 10, 10)):
            beat_at, now = self._beat_at, time.time()
            if not beat_at:
                continue
            _tell(client, rank, f"{beat_at} {self._step} {now}")
            if now - beat_at > self._limit_s:
                logging.error(
                    "No step for %.0f s (config.stuck_after_s=%g). %s. Ending: the same command "
                    "goes on from the newest checkpoint.",
                    *(now - beat_at, self._limit_s, _states(client, now)),
                )
                logging.shutdown()
                os._exit(EXIT_STOPPED)


def _tell(client: Any, rank: int, state: str) -> None:
    try:
        client.key_value_set(f"{_FOLDER}{rank}", state, allow_overwrite=True)
    except Exception as error:  # whatever the service raises when its process does not answer
        logging.debug("The first process does not take this one's state: %s", error)


def _states(client: Any, now: float) -> str:
    """What each process told last."""
    try:
        told = {key.rpartition("/")[2]: s for key, s in client.key_value_dir_get(_FOLDER)}
    except Exception:  # see `_tell`
        return "Process 0, which knows of the others, does not answer"
    states = []
    for rank in range(jax.process_count()):
        if (state := told.get(str(rank))) is None:
            states.append(f"process {rank} never told a step")
            continue
        beat_at, step, told_at = state.split()
        silent = now - float(told_at)
        if silent > 30 or silent > (now - float(beat_at)) / 2:
            states.append(f"process {rank} does not answer since {silent:.0f} s, at step {step}")
        else:
            states.append(f"process {rank} is at step {step} since {now - float(beat_at):.0f} s")
    return "; ".join(states)
