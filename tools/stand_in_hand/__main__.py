"""Writes the stand-in's right hand anew: `python -m tools.stand_in_hand [--output=FILE.npz]`."""

import argparse
from pathlib import Path

import numpy as np

from er_jax.mano.stand_in import FILE
from er_jax.utils.atomic_write import atomic_write
from tools.stand_in_hand.arrays import right_hand


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.stand_in_hand",
        description="Writes the stand-in's right hand anew.",
        epilog="Where another hand comes out, runs trained with the one before cannot go on, and "
        "_VERSION in data_pipeline/synthetic/dataset.py has to go up.",
    )
    parser.add_argument("--output", type=Path, default=FILE, help="file to write (%(default)s)")
    output = parser.parse_args(arguments).output
    with atomic_write(output) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **right_hand())
    print(output)


if __name__ == "__main__":
    main()
