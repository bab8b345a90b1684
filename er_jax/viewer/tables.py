"""Tables of hands (`er_jax.video.parquet`) read back as clips."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from er_jax.mano import HANDS
from er_jax.photographs.photograph import PhotographCamera
from er_jax.utils.errors import DataError
from er_jax.video.parquet import COLUMNS, FORMAT, arrays_of, pyarrow_module
from er_jax.video.track import Clip, HandTrack
from er_jax.viewer.stored import Stored, chosen_source, name_of

if TYPE_CHECKING:
    import pyarrow

_CAMERA = ("focal_px", "principal_point_px", "width_px", "height_px", "focal_source")
USUAL_RATE = 30.0
"""Frames a second where a table has one frame only."""


def read_table(path: Path, source: str | None = None) -> Stored:
    """The hands of one clip of a table.

    Frames without hands have no row: their times are between those of the others, and frames after
    the last hand are not known.

    Args:
      path: of the Parquet file.
      source: which clip; None: the only one.

    Raises:
      ConfigError: PyArrow is not installed; several sources, or not this one.
      DataError: the file is damaged, of another format, or has no hands.
    """
    table, told = _opened(path)
    if not len(table):
        raise DataError(f"{path}: no hand was found in this clip, so there is nothing to show")
    rows = arrays_of(table)
    if "key" in rows:  # of bulk work: which picture, or part, of the source
        both = zip(rows["source"], rows["key"], strict=True)
        rows["source"] = np.array([f"{one}/{key}" if key else one for one, key in both], object)
    name = chosen_source(path, sorted(set(rows["source"].tolist())), source)
    rows = {key: array[rows["source"] == name] for key, array in rows.items()}
    tracks, joints = _tracks(path, rows)
    clip = Clip(
        name=name_of(path),
        size_px=(int(rows["width_px"][0]), int(rows["height_px"][0])),
        times_s=_times(path, rows["frame"], rows["time_s"]),
        camera=_camera(path, rows),
        tracks=tuple(tracks),
        hand_model=told.get("er_jax.hand_model", ""),
        messages=tuple(json.loads(told.get("er_jax.messages", "[]"))),
    )
    sha256 = told.get("er_jax.hand_model_sha256")
    return Stored(path, clip, tuple(joints), clip.hand_model, sha256, name)


def _opened(path: Path) -> tuple["pyarrow.Table", dict[str, str]]:
    """The table of a file, with its metadata."""
    pa = pyarrow_module()
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet ({_first_line(error)}): it is damaged or something "
            "else; make the result again"
        ) from None
    metadata = table.schema.metadata or {}
    told = {key.decode(): value.decode() for key, value in metadata.items()}
    if told.get("er_jax.format") != FORMAT:
        raise DataError(
            f"{path}: er_jax.format is {told.get('er_jax.format')!r}, not {FORMAT!r}: no table of "
            "hands, or another release's: give NAME_hands.parquet as er_jax writes it"
        )
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise DataError(
            f"{path}: the columns {', '.join(missing)} are missing: give the whole file"
        )
    return table, told


def _tracks(
    path: Path, rows: dict[str, np.ndarray]
) -> tuple[list[HandTrack], list[Float[np.ndarray, "T 21 3"]]]:
    """The hands of each person and side, and their joints as the file has them."""
    tracks, joints = [], []
    order = np.argsort(rows["frame"], kind="stable")
    rows = {key: array[order] for key, array in rows.items()}
    for person in np.unique(rows["person"]).tolist():
        for side in HANDS:
            own = (rows["person"] == person) & (rows["handedness"] == side)
            if not own.any():
                continue
            hand = {key: array[own] for key, array in rows.items()}
            if (np.diff(hand["frame"]) == 0).any():
                raise DataError(
                    f"{path}: person {person}, {side}: two rows of one frame: the file is damaged "
                    "or two were joined; make the result again"
                )
            tracks.append(_track(person, side, hand))
            joints.append(hand["joints_m"])
    if sum(map(len, tracks)) != len(rows["frame"]):
        raise DataError(f"{path}: handedness is neither of {HANDS} in some rows: make it again")
    return tracks, joints


def _track(person: int, side: str, hand: dict[str, np.ndarray]) -> HandTrack:
    count = len(hand["frame"])
    turns = Rotation.from_rotvec(hand["pose_axis_angle_with_mean"].reshape(-1, 3))
    return HandTrack(
        person=person,
        side=side,
        frames=hand["frame"],
        filled=hand["filled"],
        score=hand["score"],
        betas=hand["betas"],
        rotations=turns.as_matrix().reshape(count, 16, 3, 3),
        transl=hand["transl_m"],
        keypoints_px=hand["detected_keypoints_px"],
        confidence=hand["keypoint_confidence"],
        joint_sigma_m=hand["joint_sigma_m"],
        depth_sigma_m=hand["depth_sigma_m"],
    )


def _times(
    path: Path, frames: np.ndarray, times_s: Float[np.ndarray, "rows"]
) -> Float[np.ndarray, "F"]:
    """Of every frame up to the last with a hand."""
    known, first = np.unique(frames, return_index=True)
    at = times_s[first]
    if known[0] < 0 or not np.isfinite(at).all() or (np.diff(at) <= 0).any():
        raise DataError(f"{path}: frame and time_s do not ascend together: make the result again")
    if len(known) == 1:
        step = at[0] / known[0] if known[0] and at[0] > 0 else 1 / USUAL_RATE
        return np.arange(known[0] + 1) * step
    before = np.concatenate([[0.0], at]) if known[0] else at
    numbers = np.concatenate([[0], known]) if known[0] else known
    return np.interp(np.arange(known[-1] + 1), numbers, before)


def _camera(path: Path, rows: dict[str, np.ndarray]) -> PhotographCamera:
    for name in _CAMERA:
        if len(np.unique(rows[name], axis=0)) != 1:
            raise DataError(
                f"{path}: {name} changes within a source: give every clip a source of its own"
            )
    focal, middle = rows["focal_px"][0].tolist(), rows["principal_point_px"][0].tolist()
    if not (np.isfinite([*focal, *middle]).all() and min(focal) > 0):
        raise DataError(f"{path}: focal_px {focal}, principal_point_px {middle}: no camera")
    return PhotographCamera(
        (focal[0], focal[1]), (middle[0], middle[1]), str(rows["focal_source"][0])
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
