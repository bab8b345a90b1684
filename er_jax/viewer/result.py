"""A result of this project, whichever file it is in, as a clip; a picture's has one frame."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from er_jax.mano import HandModel, load_hands
from er_jax.utils.errors import ConfigError, DataError, NotFoundError
from er_jax.video.rigs import labelled
from er_jax.video.track import Clip, HandTrack
from er_jax.viewer.reconstructions import read_reconstruction
from er_jax.viewer.stored import Stored
from er_jax.viewer.tables import read_table

ENDINGS = ("_hands.parquet", "_hands.json")
"""Of the files that are taken for results in a folder; a file that is named is always tried."""
LARGEST_DIFFERENCE_M = 0.001
"""Between the joints of the file and those of the hand model that is at hand."""


@dataclasses.dataclass(frozen=True, eq=False)
class ShownHand:
    """A hand of a result with its meshes.

    Attributes:
      label: "right" or "left", after the person's number where there are several.
      track: of the clip.
      vertices_m: of the track's frames, metres, camera axes.
      joints_m: the same, `HAND21`.
    """

    label: str
    track: HandTrack
    vertices_m: Float[np.ndarray, "T 778 3"]
    joints_m: Float[np.ndarray, "T 21 3"]

    def at(self, frame: int) -> int | None:
        """The place of a frame in the track; None: the hand is not known in it."""
        place = int(np.searchsorted(self.track.frames, frame))
        known = place < len(self.track) and self.track.frames[place] == frame
        return place if known else None


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What a file says, and its hands as meshes.

    Attributes:
      path: of the file.
      clip: its hands; of a picture one frame.
      hands: the same as meshes.
      faces: of right and left meshes.
      picture_name: file name of the picture or clip that it was made of; None: not told.
    """

    path: Path
    clip: Clip
    hands: tuple[ShownHand, ...]
    faces: Int[np.ndarray, "2 1538 3"]
    picture_name: str | None


def read_result(
    path: Path, *, source: str | None = None, mano_dir: Path | str | None = None
) -> Result:
    """Reads a result.

    Args:
      path: of `NAME_hands.parquet`, of `NAME_hands.json`, or of a folder with one of them.
      source: which of several clips or pictures of a table; None: the only one.
      mano_dir: of MANO's files, where the result was made with them.

    Raises:
      NotFoundError: there is no such file, or no result in the folder.
      ConfigError: several results, several sources, or not this hand model; the message says
        which there are.
      DataError: the file is damaged, or of another format.
    """
    file = result_file(path)
    stored = _read(file, source)
    models = _hands_of(stored, mano_dir)
    hands = []
    for (label, track), told in zip(labelled(stored.clip), stored.joints_m, strict=True):
        vertices, joints = track.meshes(models)
        _check_joints(file, label, joints, told)
        hands.append(ShownHand(label, track, vertices, joints))
    faces = np.asarray(models.faces)
    return Result(file, stored.clip, tuple(hands), faces, stored.picture_name)


def result_file(path: Path) -> Path:
    """The file of a result, or the only one in a folder.

    Raises:
      NotFoundError: there is none.
      ConfigError: there are several.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file: give a result, NAME{' or NAME'.join(ENDINGS)}")
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS))
    if not found:
        raise NotFoundError(
            f"{path}: no result in this folder: NAME{' or NAME'.join(ENDINGS)} is needed, as "
            "er_jax writes them"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ConfigError(f"{path}: {len(found)} results in this folder, name one: {names}")
    return found[0]


def _read(file: Path, source: str | None) -> Stored:
    if file.suffix == ".parquet":
        return read_table(file, source)
    if file.suffix == ".json":
        return read_reconstruction(file, source)
    raise DataError(
        f"{file}: not a result that can be viewed: give NAME{' or NAME'.join(ENDINGS)} of the same "
        "clip or picture"
    )


def _hands_of(stored: Stored, mano_dir: Path | str | None) -> HandModel:
    """The hand model of a file.

    Raises:
      ConfigError: it is not the one that the options give.
      HandFileError: see `load_hands`.
    """
    if stored.hand_model == "stand-in" and mano_dir is not None:
        raise ConfigError(
            f"{stored.path}: its hands are the stand-in hand's, not MANO's: leave --mano_dir out"
        )
    if stored.hand_model == "MANO files" and mano_dir is None:
        raise ConfigError(f"{stored.path}: its hands are MANO's: give --mano_dir, MANO's folder")
    if stored.hand_model not in ("stand-in", "MANO files"):
        raise DataError(
            f"{stored.path}: hand_model is {stored.hand_model!r}, which this release does not "
            "know: view it with the release that wrote it"
        )
    hands = load_hands(mano_dir)
    if stored.hand_model_sha256 not in (None, hands.sha256):
        raise ConfigError(
            f"{stored.path}: made with another hand model (hand_model_sha256 "
            f"{str(stored.hand_model_sha256)[:12]}…) than this one ({hands.sha256[:12]}…, "
            f"{hands.source}): give the files that it was made with, or make it again"
        )
    return hands


def _check_joints(
    file: Path,
    label: str,
    joints_m: Float[np.ndarray, "T 21 3"],
    told_m: Float[np.ndarray, "T 21 3"],
) -> None:
    """Compares the joints that a file tells with those that its parameters give.

    Raises:
      DataError: they are not the same, so that what would be shown is not what was found.
    """
    off_m = np.linalg.norm(joints_m - told_m, axis=-1).max()
    if not off_m <= LARGEST_DIFFERENCE_M:
        raise DataError(
            f"{file}: {label}: joints_m are {1000 * off_m:.1f} mm from those that pose, shape and "
            "place give: the file is damaged, or of another hand model; make it again"
        )
