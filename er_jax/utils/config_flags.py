"""Flags of commands that take a config: where configs lie, and typing errors in one line."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app

from er_jax.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parses the flags, for `app.run(main, flags_parser=parse_flags)`; returns what is left.

    A `--config` that is no file here is looked for among the project's own by its name: `ih26m`
    and `configs/ih26m.py` are the same file in an installed package. An unknown field of the config
    ends the command in one line with the nearest name.
    """
    arguments = _with_own_configs(list(arguments))
    wanted = _named(arguments)
    if wanted and not Path(wanted.partition(":")[0]).is_file():
        own = ", ".join(sorted(path.stem for path in CONFIGS.glob("[!_]*.py")))
        _exit(f"--config={wanted}: there is no such file; the project's own are {own}")
    try:
        return app.parse_flags_with_usage(arguments)
    except (KeyError, AttributeError) as error:  # of the config's locked fields
        meant = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', str(error))
        if meant:
            _exit(f"--config has no field {meant[2]!r}; the nearest is {meant[1]!r}")
        _exit(f"--config has no field {error}")


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(ConfigError.exit_code)


def _named(arguments: Sequence[str]) -> str:
    """The value of `--config`: of several the last."""
    found = ""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            found = value if equals else " ".join(arguments[place + 1 : place + 2])
    return found


def _with_own_configs(arguments: list[str]) -> list[str]:
    wanted = _named(arguments)
    own = (CONFIGS / Path(wanted).name).with_suffix(".py") if wanted else CONFIGS
    if Path(wanted).is_file() or not own.is_file():
        return arguments
    found = {wanted: str(own), f"--config={wanted}": f"--config={own}"}
    return [found.get(argument, argument) for argument in arguments]
