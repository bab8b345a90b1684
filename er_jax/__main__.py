"""`python -m er_jax PHOTO …`, which is also installed as `er_jax`."""

import sys


def main() -> int:
    """Runs the command."""
    from er_jax.commands.photographs import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
