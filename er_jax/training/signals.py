"""SIGINT and SIGTERM as a wish to stop soon, with everything saved."""

import dataclasses
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from er_jax.utils.distributed import AnyProcess


@dataclasses.dataclass
class Stop:
    """A request for the end of the run, made of any of its processes."""

    asked: bool = False  # this process
    requested: bool = False  # any process, as all of them agreed at the newest `poll`
    error: Exception | None = None  # to be raised when all is saved
    _any_process: AnyProcess = dataclasses.field(default_factory=AnyProcess, repr=False)

    def poll(self) -> bool:
        """Has all processes agree whether to stop; each of them must call it equally often."""
        self.requested = self.requested or self._any_process(self.asked)
        return self.requested


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within the block a first SIGINT or SIGTERM asks for a stop; a second acts as always."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        restore()
        logging.warning(
            "%s: saving a checkpoint and stopping; once more to stop at once without saving.",
            signal.Signals(number).name,
        )

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
