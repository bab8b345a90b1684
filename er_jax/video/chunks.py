"""Pieces of a clip's work, kept as files so that a killed command goes on."""

from pathlib import Path

import numpy as np

from er_jax.utils.atomic_write import atomic_write

CHUNK = 120
"""Frames that are followed, or fitted, before they are written."""


def kept(folder: Path) -> list[dict[str, np.ndarray]]:
    """The chunks that were written, up to the first that is missing."""
    chunks: list[dict[str, np.ndarray]] = []
    while (path := folder / f"{len(chunks):06d}.npz").exists():
        with np.load(path, allow_pickle=False) as file:
            chunks.append(dict(file))
    return chunks


def keep(folder: Path, number: int, chunk: dict[str, np.ndarray]) -> None:
    """Writes a chunk, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(folder / f"{number:06d}.npz", durable=True) as temporary,
        temporary.open("wb") as file,
    ):
        np.savez(file, allow_pickle=False, **chunk)
