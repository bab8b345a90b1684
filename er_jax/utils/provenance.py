"""Provenance says where numbers come from: what two tables must agree in to be compared."""

import hashlib
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGES = ("er_jax", "data_pipeline")


def code_version() -> dict[str, str | None]:
    """Returns which version of the code runs: a hash of its files, and the commit for people."""
    digest = hashlib.sha256()
    for name in PACKAGES:
        package = Path(str(importlib.util.find_spec(name).origin)).parent  # type: ignore[union-attr]
        for file in sorted(package.rglob("*.py")):
            digest.update(file.relative_to(package.parent).as_posix().encode())
            digest.update(file.read_bytes())
    return {"sha256": digest.hexdigest(), "commit": _commit()}


def software_versions() -> dict[str, Any]:
    """Versions of what computed the numbers."""
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "code_commit": _commit(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
    }


def _commit() -> str | None:
    """The code's git commit, marked where files differ from it; None outside its repository.

    An environment that lies in another project's repository is none of it: files installed there
    are not tracked.
    """
    file = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        run = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None
