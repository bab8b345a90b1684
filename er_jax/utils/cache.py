"""The user's cache holds what is kept between processes outside any run's folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/er_jax`, or `~/.cache/er_jax`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "er_jax"


def keep_compiled_programs(folder: Path) -> None:
    """Sets the folder of JAX's persistent compilation cache, unless one is set already."""
    import jax  # late: workers, which use this folder's other modules, do without it

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
