"""Values of command-line options."""

import argparse
from collections.abc import Callable


def at_least(minimum: int) -> Callable[[str], int]:
    """Reads an option's whole number; argparse says what is wrong with any other value."""

    def read(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    read.__name__ = "whole number"  # as argparse names it where `int` refuses the text
    return read
