"""SIGINT and SIGTERM as a wish to stop soon, with everything saved."""

import dataclasses
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@dataclasses.dataclass
class Stop:
    """Whether somebody asked for the end."""

    requested: bool = False
    error: Exception | None = None  # to be raised when all is saved


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within the block a first SIGINT or SIGTERM sets `requested`; a second acts as always."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
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
