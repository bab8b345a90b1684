"""Where numbers come from: what two tables must agree in to be compared."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

import data_pipeline
from er_jax.mano import HandModel


def hand_model_facts(hands: HandModel) -> dict[str, str]:
    """Which hand model was computed with."""
    return {"hand_model": hands.source, "hand_model_sha256": hands.sha256}


def code_facts() -> dict[str, str | None]:
    """Which version of the code runs: a hash of its files, and the commit for people."""
    packages = Path(__file__).parents[1], Path(data_pipeline.__file__).parent
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            digest.update(file.relative_to(package.parent).as_posix().encode())
            digest.update(file.read_bytes())
    return {"sha256": digest.hexdigest(), "commit": _commit()}


def software_facts() -> dict[str, Any]:
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
    """The code's git commit, marked where files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
