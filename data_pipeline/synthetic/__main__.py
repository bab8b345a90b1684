"""Writes a raw dataset of drawn hands in InterHand2.6M's layout on disk.

    python -m data_pipeline.synthetic --raw_dir=… [--train=3000 --val=200 --test=400]
        [--seed=0 --workers=2]

The same seed and counts give the same bytes, however many worker processes draw. Running the same
command again after an interruption draws what is missing; after its end it does nothing.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from data_pipeline.synthetic import SPLITS, Settings, write_dataset
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.synthetic",
        description="Writes a raw dataset of drawn hands in InterHand2.6M's layout on disk.",
    )
    parser.add_argument("--raw_dir", type=Path, required=True, help="folder to write")
    for split in SPLITS:
        number = getattr(Settings, split)
        parser.add_argument(
            f"--{split}", type=at_least(1), default=number, help=f"images ({number})"
        )
    parser.add_argument("--seed", type=at_least(0), default=Settings.seed)
    parser.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, help="processes"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("jax").setLevel(logging.WARNING)  # says which accelerators it did not find
    settings = Settings(options.train, options.val, options.test, options.seed)
    try:
        if write_dataset(options.raw_dir, settings, options.workers):
            print(f"{options.raw_dir}: {_counts(settings)}")
        else:
            print(f"{options.raw_dir} is complete already: {_counts(settings)}")
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command draws what is missing", file=sys.stderr)
        return 130
    return 0


def _counts(settings: Settings) -> str:
    return ", ".join(f"{getattr(settings, split)} {split} images" for split in SPLITS)


if __name__ == "__main__":
    sys.exit(main())
