"""What the file of a result says, before its hands are computed."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float

from er_jax.utils.errors import ConfigError
from er_jax.video.track import Clip


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """What a file says.

    Attributes:
      path: of the file.
      clip: its hands; of a picture one frame.
      joints_m: of each of the clip's tracks, as the file has them, to compare.
      hand_model: that it was made with, "MANO files" or "stand-in".
      hand_model_sha256: of its arrays; None: not told.
      picture_name: file name of the picture or clip that it was made of; None: not told.
    """

    path: Path
    clip: Clip
    joints_m: tuple[Float[np.ndarray, "T 21 3"], ...]
    hand_model: str
    hand_model_sha256: str | None
    picture_name: str | None


def chosen_source(path: Path, sources: list[str], wanted: str | None) -> str:
    """The clip or picture of a file to show.

    Args:
      path: of the file.
      sources: that it has hands of; at least one.
      wanted: as the option `--source` says; None: the only one.

    Raises:
      ConfigError: there are several, or it is none of them; the message lists them.
    """
    listed = ", ".join(sources[:20]) + (", …" if len(sources) > 20 else "")
    if wanted is None and len(sources) > 1:
        raise ConfigError(f"{path}: {len(sources)} sources in it, give --source, one of: {listed}")
    if wanted is not None and wanted not in sources:
        raise ConfigError(f"{path}: no source {wanted!r} in it (--source); there is: {listed}")
    return wanted if wanted is not None else sources[0]


def name_of(path: Path) -> str:
    """The name of a result: its file's without the ending."""
    return path.stem.removesuffix("_hands")
