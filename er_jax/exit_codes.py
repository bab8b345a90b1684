"""How a command ends: its exit code, and one clear message where something is wrong."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from data_pipeline.errors import DataError, WorkerError
from er_jax.mano import HandFileError
from er_jax.training.checkpoints import CheckpointError

# The first that fits; the codes are those of sysexits.h. Any other error is a fault of this code.
EXIT_CODES: dict[type[Exception], int] = {
    WorkerError: 71,  # EX_OSERR
    DataError: 65,  # EX_DATAERR
    HandFileError: 65,
    CheckpointError: 74,  # EX_IOERR
    FileNotFoundError: 66,  # EX_NOINPUT
    OSError: 74,
    ValueError: 78,  # EX_CONFIG
    FloatingPointError: 76,  # EX_PROTOCOL, for want of a better one: losses are not finite
}


@contextmanager
def clear_ending() -> Iterator[None]:
    """Ends the program with a message and an exit code where the block raises a known error.

    The traceback goes to the log file only. One of several processes ends at once: the others,
    which wait for it in the middle of a step, are then told by JAX.
    """
    try:
        yield
    except tuple(EXIT_CODES) as error:
        code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
        logging.error("%s", error)
        logging.info("Where that happened:", exc_info=error, extra={"only_in_file": True})
        logging.shutdown()
        if jax.process_count() > 1:
            os._exit(code)
        sys.exit(code)
