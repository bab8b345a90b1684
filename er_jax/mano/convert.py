"""Converts MANO's pickles to plain .npz beside them: `python -m er_jax.mano.convert MANO_DIR`.

Nothing else needs it: the pickles are read as safely. The .npz can be read without this project.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from er_jax.mano.files import SHAPES, HandFile, HandFileError, read_hands
from er_jax.utils.atomic_write import atomic_write


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m er_jax.mano.convert", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("mano_dir", type=Path, help="folder of MANO_RIGHT.pkl and MANO_LEFT.pkl")
    parser.add_argument("--output_dir", type=Path, help="folder to write to; beside without it")
    options = parser.parse_args(arguments)
    try:
        hands = read_hands(options.mano_dir, suffixes=(".pkl",))
    except HandFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for hand in hands.values():
        folder = options.output_dir or hand.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        print(write_npz(hand, folder / f"{hand.path.stem}.npz"))
    return 0


def write_npz(hand: HandFile, path: Path) -> Path:
    """Writes a hand's arrays under MANO's own keys, the left's shape directions as mirrored.

    The same arrays give the same bytes.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{key: hand.arrays[key] for key in SHAPES})
    return path


if __name__ == "__main__":
    sys.exit(main())
