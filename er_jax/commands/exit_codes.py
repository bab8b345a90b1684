"""Exit codes end a command, with one clear message where something is wrong."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from er_jax.utils.errors import UserError


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the program with a message and an exit code where the block raises a `UserError`.

    The traceback then goes to the log file only; of any other error, which is a fault of this
    code, it is shown as well. One of several processes ends at once: the others, which wait for it
    in the middle of a step, are then told by JAX.
    """
    try:
        yield
    except UserError as error:
        logging.error("%s", error)
        logging.info("Where that happened:", exc_info=error, extra={"only_in_file": True})
        _end(error.exit_code)
    except Exception as error:
        if jax.process_count() == 1:
            logging.info("Ended by:", exc_info=error, extra={"only_in_file": True})
            raise
        logging.exception("Process %d ended by:", jax.process_index())
        _end(1)


def _end(code: int) -> None:
    logging.shutdown()
    if jax.process_count() > 1:
        os._exit(code)
    sys.exit(code)
