"""Values of command-line options."""

import argparse
from collections.abc import Callable

from er_jax.utils.errors import ConfigError


def at_least(minimum: int) -> Callable[[str], int]:
    """Reads an option's whole number; argparse says what is wrong with any other value."""

    def read(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    read.__name__ = "whole number"  # as argparse names it where `int` refuses the text
    return read


def numbers(flag: str, text: str | None, count: int | None = None) -> list[float] | None:
    """Numbers with commas between them; None of None.

    Args:
      flag: to name in the error.
      text: as given.
      count: how many; None: one or two.

    Raises:
      ConfigError: they are not so many numbers.
    """
    if text is None:
        return None
    try:
        found = [float(number) for number in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count and not (count is None and len(found) in (1, 2)):
        wanted = "one number, or two" if count is None else f"{count} numbers"
        raise ConfigError(f"{flag}={text}: give {wanted} with commas between them")
    return found
