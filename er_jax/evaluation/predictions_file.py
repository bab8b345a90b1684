"""The predictions file: what any method can export to be evaluated by the same code.

The format is described in docs/predictions_file.md. Whether the content is plausible beside the
truth is checked in `er_jax.evaluation.prediction_checks`.
"""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HandModel, joints_from_vertices, mano_forward, matrix_to_axis_angle
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import DataError

FORMAT = "er_jax predictions 1"
SHAPES: dict[str, tuple[int, ...]] = {
    "vertices": (2, 778, 3),
    "joints": (2, 21, 3),
    "betas": (2, 10),
    "pose": (2, 48),
    "rotations": (2, 16, 3, 3),
    "translation": (2, 3),
    "rel_trans": (3,),
    "wrists": (2, 3),
    "presence": (2,),
}
"""Shapes of the arrays after their first axis, which is that of `sample_id`."""
FORMS = (("vertices",), ("joints",), ("betas", "pose"), ("betas", "rotations"))
"""What the hands are given by: the arrays of one of these."""
DOCUMENTATION = "docs/predictions_file.md describes the format"


class PredictionsError(DataError, ValueError):
    """A predictions file that cannot be read, or whose content cannot be meant."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Two reconstructed hands for each of some samples; hands (right, left), metres, camera axes.

    Attributes:
      path: of the file.
      sample_id: annotation ids, each once.
      arrays: some of `SHAPES`: one of `FORMS`; for MRRPE and RRVE also `rel_trans`, or `wrists`,
          or `translation` with `betas`; for the errors in camera space `wrists`; for those of
          handedness `presence`.
      pose_includes_mean: whether MANO's mean pose is already part of `pose` or `rotations`.
      metadata: what the file says of itself: `method`, and whatever else.
    """

    path: Path
    sample_id: Int[np.ndarray, "N"]
    arrays: Mapping[str, np.ndarray]
    pose_includes_mean: bool
    metadata: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.metadata.get("method") or self.path.stem)

    @property
    def has_rel_trans(self) -> bool:
        return bool({"rel_trans", "wrists", "translation"} & set(self.arrays))

    @property
    def has_meshes(self) -> bool:
        return "joints" not in self.arrays

    @functools.cached_property
    def _order(self) -> Int[np.ndarray, "N"]:
        """The rows in the order of their ids."""
        return np.argsort(self.sample_id)

    def rows_of(self, sample_ids: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
        """Returns the rows at which the predictions of these samples are.

        Raises:
          PredictionsError: some are not there.
        """
        order = self._order
        place = np.searchsorted(self.sample_id, sample_ids, sorter=order)
        rows = order[np.minimum(place, len(order) - 1)]
        missing = np.unique(sample_ids[self.sample_id[rows] != sample_ids])
        if missing.size:
            raise PredictionsError(
                f"{self.path}: no prediction for {missing.size} samples of the split, such as "
                f"sample_id {', '.join(map(str, missing[:5]))}. A table needs all of them: export "
                "every annotation of the split, or evaluate on a dataset config that holds only "
                "those that the method is meant for."
            )
        return rows

    def reconstruct(self, hands: HandModel, rows: Int[np.ndarray, "B"]) -> ReconstructedMeshes:
        """What some rows say of the hands; `rel_trans` zero where the file has none."""
        part = {name: np.asarray(array[rows], np.float32) for name, array in self.arrays.items()}
        return _reconstruct(hands, part, self.pose_includes_mean)


@functools.partial(jax.jit, static_argnums=2)
def _reconstruct(
    hands: HandModel, part: Mapping[str, Float[Array, "B ..."]], pose_includes_mean: bool
) -> ReconstructedMeshes:
    vertices, joints = _hands_of(hands, part, pose_includes_mean)
    wrist = joints[:, :, :1]
    if "rel_trans" in part:
        rel_trans = part["rel_trans"]
    elif "wrists" in part:
        rel_trans = part["wrists"][:, 1] - part["wrists"][:, 0]
    elif "translation" in part:
        rel_trans = wrist[:, 1, 0] - wrist[:, 0, 0]
    else:
        rel_trans = jnp.zeros((len(joints), 3))
    return ReconstructedMeshes(
        None if vertices is None else vertices - wrist,
        joints - wrist,
        rel_trans,
        wrists=part.get("wrists"),
        presence=part.get("presence"),
    )


def _hands_of(
    hands: HandModel, part: Mapping[str, Float[Array, "B ..."]], pose_includes_mean: bool
) -> tuple[Float[Array, "B 2 778 3"] | None, Float[Array, "B 2 21 3"]]:
    """Vertices, where there are any, and joints, wherever the hands stand."""
    if "joints" in part:
        return None, part["joints"]
    if "vertices" in part:
        return part["vertices"], joints_from_vertices(hands, part["vertices"])
    if "pose" in part:
        pose = part["pose"]
        if pose_includes_mean:
            pose = pose.at[..., 3:].add(-hands.mean_pose)
    else:
        pose = part["rotations"]
        if not pose_includes_mean:
            pose = matrix_to_axis_angle(pose).reshape(*pose.shape[:2], 48)
    mesh = mano_forward(hands, part["betas"], pose, part.get("translation"))
    return mesh.vertices, mesh.joints


def read_predictions(path: str | Path) -> Predictions:
    """Opens a predictions file.

    Args:
      path: an `.npz` file, or a folder of `.npy` files of the same names, which are then read
          piece by piece: for more predictions than fit into memory.

    Raises:
      PredictionsError: it is none, an array is missing, of a wrong shape, or ids occur twice.
      FileNotFoundError: there is no such file.
    """
    path = Path(path)
    content = _read_arrays(path)
    found = str(content.pop("format", "")) or "none"
    if found != FORMAT:
        raise PredictionsError(
            f"{path}: its `format` is {found!r}, not {FORMAT!r}; {DOCUMENTATION}."
        )
    try:
        # NaN and Infinity are no JSON and could not be written into a report's.
        metadata = json.loads(str(content.pop("metadata", "{}")), parse_constant=str)
    except json.JSONDecodeError as error:
        raise PredictionsError(f"{path}: `metadata` is no JSON object: {error}") from None
    if not isinstance(metadata, dict):
        raise PredictionsError(
            f"{path}: `metadata` is no JSON object but a {type(metadata).__name__}"
        )
    if "rotations" in content and "pose_includes_mean" not in content:
        raise PredictionsError(
            f"{path}: `rotations` need `pose_includes_mean`, which nothing else tells as surely: "
            "True where they hold MANO's mean pose, as matrices that go into smplx's MANO layer "
            "do; False where it is still to be added."
        )
    includes_mean = bool(content.pop("pose_includes_mean", False))
    sample_id = _checked_ids(path, content.pop("sample_id", None))
    _check_arrays(path, content, sample_id)
    return Predictions(path, sample_id, content, includes_mean, metadata)


def write_predictions(
    path: str | Path,
    sample_id: Int[np.ndarray, "N"],
    arrays: Mapping[str, Float[np.ndarray, "N ..."]],
    *,
    metadata: Mapping[str, Any],
    pose_includes_mean: bool = False,
) -> None:
    """Writes a predictions file, whole or not at all; arguments as of `Predictions`.

    Raises:
      PredictionsError: the content is none that `read_predictions` would take.
    """
    path = Path(path)
    sample_id = _checked_ids(path, sample_id)
    _check_arrays(path, arrays, sample_id)
    content = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    content["sample_id"] = sample_id
    content["pose_includes_mean"] = np.array(pose_includes_mean)
    content["format"], content["metadata"] = np.array(FORMAT), np.array(json.dumps(dict(metadata)))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        return {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise PredictionsError(
            f"{path}: no readable .npz of plain arrays ({error}); {DOCUMENTATION}."
        ) from None


def _checked_ids(path: Path, sample_id: Any) -> Int[np.ndarray, "N"]:
    if sample_id is None:
        raise PredictionsError(f"{path}: `sample_id` is missing; {DOCUMENTATION}.")
    sample_id = np.asarray(sample_id)
    if sample_id.ndim != 1 or sample_id.dtype.kind not in "iu" or not sample_id.size:
        raise PredictionsError(
            f"{path}: `sample_id` is {sample_id.dtype} {sample_id.shape}; one integer, the "
            "annotation's id, a sample is needed."
        )
    ids, counts = np.unique(sample_id, return_counts=True)
    twice = ids[counts > 1]
    if twice.size:
        raise PredictionsError(
            f"{path}: {twice.size} sample ids occur more than once, such as "
            f"{', '.join(map(str, twice[:5]))}. Keep one prediction of each sample."
        )
    return sample_id.astype(np.int64)


def _check_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], sample_id: Int[np.ndarray, "N"]
) -> None:
    unknown = sorted(set(arrays) - set(SHAPES))
    if unknown:
        raise PredictionsError(
            f"{path}: unknown arrays {', '.join(unknown)}; known are {', '.join(SHAPES)}. "
            f"{DOCUMENTATION}."
        )
    of_hands = {name for form in FORMS for name in form} & set(arrays)
    if of_hands not in map(set, FORMS):
        raise PredictionsError(
            f"{path}: one of `vertices`, `joints`, `betas` with `pose`, `betas` with `rotations` "
            f"is needed; there are {', '.join(sorted(arrays)) or 'none'}."
        )
    if "translation" in arrays and "betas" not in arrays:
        raise PredictionsError(f"{path}: `translation` goes with `betas` only; give `wrists`.")
    for name, array in arrays.items():
        if array.shape != (len(sample_id), *SHAPES[name]) or array.dtype.kind != "f":
            raise PredictionsError(
                f"{path}: `{name}` is {array.dtype} {array.shape}; float "
                f"{(len(sample_id), *SHAPES[name])} is needed."
            )
    if "presence" in arrays:
        _check_presence(path, arrays["presence"], sample_id)


def _check_presence(
    path: Path, presence: Float[np.ndarray, "N 2"], sample_id: Int[np.ndarray, "N"]
) -> None:
    bad = np.argwhere(~((presence >= 0) & (presence <= 1)))
    if bad.size:
        row, hand = bad[0].tolist()
        raise PredictionsError(
            f"{path}: `presence` is {presence[row, hand]:g} at index [{row}, {hand}], sample_id "
            f"{sample_id[row]}, and out of [0, 1] for {len(bad)} hands in all. Give a score from 0 "
            "to 1, decided at 0.5, such as a logit's sigmoid, for hands that are not there too."
        )
