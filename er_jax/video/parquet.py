"""Hands as Parquet: a row for each hand in each frame or picture (columns: `docs/video.md`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from er_jax.mano import HAND21, HANDS, MANO16, HandModel, hand_model_identity
from er_jax.photographs.photograph import PhotographCamera
from er_jax.photographs.result import AXES, LEFT_SHAPE, Hand, Reconstruction
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import ConfigError
from er_jax.video.track import Clip, HandTrack

if TYPE_CHECKING:
    import pyarrow

FORMAT = "er_jax hands 1"
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "source": ("string", ()),
    "frame": ("int64", ()),
    "time_s": ("float64", ()),
    "person": ("int32", ()),
    "handedness": ("string", ()),
    "score": ("float32", ()),
    "filled": ("bool", ()),
    "box_xywh_px": ("float32", (4,)),
    "keypoints_px": ("float32", (21, 2)),
    "detected_keypoints_px": ("float32", (21, 2)),
    "keypoint_confidence": ("float32", (21,)),
    "joints_m": ("float32", (21, 3)),
    "joint_sigma_m": ("float32", (21,)),
    "depth_sigma_m": ("float32", ()),
    "betas": ("float32", (10,)),
    "pose_axis_angle_with_mean": ("float32", (48,)),
    "transl_m": ("float32", (3,)),
    "focal_px": ("float32", (2,)),
    "principal_point_px": ("float32", (2,)),
    "width_px": ("int32", ()),
    "height_px": ("int32", ()),
    "focal_source": ("string", ()),
}
"""Name, type and shape of what a row has, in this order."""
TRACK_FRAMES_AT_ONCE = 4096  # of whose meshes 38 MB are held


def schema(hands: HandModel) -> "pyarrow.Schema":
    """The columns, and as metadata what is the same in all rows; arrays are fixed-size lists.

    Args:
      hands: both hand models.
    """
    pa = pyarrow_module()
    told = {
        "er_jax.format": FORMAT,
        "er_jax.axes": f"{AXES}; radians; a pixel's integer position is its centre",
        "er_jax.joint_names": json.dumps(HAND21),
        "er_jax.pose_joint_names": json.dumps(MANO16),
        "er_jax.left_shape": LEFT_SHAPE,
        "er_jax.mean_pose": json.dumps(_mean_pose(hands)),
        **{f"er_jax.{name}": value for name, value in hand_model_identity(hands).items()},
    }
    fields = [
        pa.field(name, _arrow_type(kind, shape), nullable=False)
        for name, (kind, shape) in COLUMNS.items()
    ]
    return pa.schema(fields, metadata=told)


def rows_of(clip: Clip, hands: HandModel, *, source: str | None = None) -> "pyarrow.Table":
    """The hands of a clip in the columns of `schema`, by frame, person and side.

    Args:
      clip: with hands of any number; a frame without any has no row.
      hands: both hand models.
      source: name of the file that the frames are of; None: the clip's.
    """
    parts = [
        _columns(track.part(slice(first, first + TRACK_FRAMES_AT_ONCE)), clip, hands)
        for track in clip.tracks
        for first in range(0, len(track), TRACK_FRAMES_AT_ONCE)
    ]
    names = [name for name in COLUMNS if name != "source"]
    if parts:
        columns = {name: np.concatenate([columns[name] for columns in parts]) for name in names}
    else:
        columns = {name: np.zeros((0, *COLUMNS[name][1])) for name in names}
    order = np.lexsort((columns["handedness"] == HANDS[1], columns["person"], columns["frame"]))
    columns = {name: array[order] for name, array in columns.items()}
    return table_of(
        columns | {"source": np.full(len(order), source or clip.name, object)}, hands=hands
    )


def rows_of_pictures(
    results: Sequence[tuple[str, Reconstruction]], hands: HandModel
) -> "pyarrow.Table":
    """The hands of pictures in the columns of `schema`: frame 0 of each, at time 0.

    What a picture does not tell (the score of a given box, keypoints that nobody detected) is NaN.

    Args:
      results: each with its source's name; a picture without hands has no row.
      hands: both hand models.
    """
    rows = [
        _row(source, result.camera, result.photograph.size_px, person, hand)
        for source, result in results
        for person, one in enumerate(result.persons)
        for hand in one.hands
    ]
    dtypes = {name: object if kind == "string" else kind for name, (kind, _) in COLUMNS.items()}
    columns = {
        name: np.array([row[name] for row in rows], dtypes[name]).reshape(-1, *shape)
        for name, (_, shape) in COLUMNS.items()
    }
    return table_of(columns, hands=hands)


def table_of(columns: Mapping[str, np.ndarray], *, hands: HandModel) -> "pyarrow.Table":
    """A table in the columns of `schema` from arrays with a leading axis of rows.

    Args:
      columns: by the names of `COLUMNS`, all of them.
      hands: both hand models.
    """
    pa = pyarrow_module()
    made = schema(hands)
    arrays = []
    for name, (kind, shape) in COLUMNS.items():
        if kind == "string":
            arrays.append(pa.array(columns[name].tolist(), pa.string()))
            continue
        dtype = np.dtype(kind)
        array = pa.array(np.ascontiguousarray(columns[name], dtype).ravel())
        for size in reversed(shape):
            array = pa.FixedSizeListArray.from_arrays(array, size)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=made)


def arrays_of(table: "pyarrow.Table") -> dict[str, np.ndarray]:
    """The columns of such a table, or some of them, as arrays (rows, *shape).

    Numbers are not copied where the table is in one piece.
    """
    pa = pyarrow_module()
    arrays = {}
    for name in table.column_names:
        column = table.column(name)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        shape = [len(array)]
        while pa.types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
            array = array.flatten()
        primitive = pa.types.is_floating(array.type) or pa.types.is_integer(array.type)
        arrays[name] = array.to_numpy(zero_copy_only=primitive).reshape(shape)
    return arrays


def write_parquet(
    clip: Clip, hands: HandModel, path: Path | str, *, source: str | None = None
) -> None:
    """Writes the hands of a clip as one file, compressed by Zstandard.

    Args:
      clip: with hands of any number.
      hands: both hand models.
      path: of the file.
      source: name of the file that the frames are of; None: the clip's.
    """
    table = rows_of(clip, hands, source=source)
    import pyarrow.parquet as pq

    told = {**table.schema.metadata, b"er_jax.messages": json.dumps(clip.messages).encode()}
    with atomic_write(Path(path)) as temporary:
        pq.write_table(table.replace_schema_metadata(told), temporary, compression="zstd")


def pyarrow_module() -> Any:
    """PyArrow, which only those need who write or read tables.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise ConfigError(
            "tables of hands need PyArrow, which is not installed: pip install 'er_jax[video]'"
        ) from None
    return pyarrow


def _columns(track: HandTrack, clip: Clip, hands: HandModel) -> dict[str, np.ndarray]:
    """All columns of a track's frames but the source's."""
    vertices, joints = track.meshes(hands)
    count = len(track)
    camera = clip.camera
    outline = camera.projection.project(vertices)
    corner = outline.min(1)
    pose = Rotation.from_matrix(track.rotations.reshape(-1, 3, 3)).as_rotvec()
    width, height = clip.size_px
    return {
        "frame": track.frames,
        "time_s": clip.times_s[track.frames],
        "person": np.full(count, track.person),
        "handedness": np.full(count, track.side, object),
        "score": track.score,
        "filled": track.filled,
        "box_xywh_px": np.hstack([corner, outline.max(1) - corner]),
        "keypoints_px": camera.projection.project(joints),
        "detected_keypoints_px": track.keypoints_px,
        "keypoint_confidence": track.confidence,
        "joints_m": joints,
        "joint_sigma_m": track.joint_sigma_m,
        "depth_sigma_m": track.depth_sigma_m,
        "betas": track.betas,
        "pose_axis_angle_with_mean": pose.reshape(count, 48),
        "transl_m": track.transl,
        "focal_px": np.tile(camera.focal_px, (count, 1)),
        "principal_point_px": np.tile(camera.principal_point_px, (count, 1)),
        "width_px": np.full(count, width),
        "height_px": np.full(count, height),
        "focal_source": np.full(count, camera.focal_source, object),
    }


def _row(
    source: str, camera: PhotographCamera, size_px: tuple[int, int], person: int, hand: Hand
) -> dict[str, Any]:
    """All columns of a hand in a picture."""
    outline = camera.projection.project(hand.vertices)
    corner = outline.min(0)
    unknown = np.full(21, np.nan)
    detected, confidence = hand.detected_px, hand.detected_confidence
    return {
        "source": source,
        "frame": 0,
        "time_s": 0.0,
        "person": person,
        "handedness": hand.side,
        "score": np.nan if hand.score is None else hand.score,
        "filled": False,
        "box_xywh_px": np.hstack([corner, outline.max(0) - corner]),
        "keypoints_px": hand.keypoints_px,
        "detected_keypoints_px": np.full((21, 2), np.nan) if detected is None else detected,
        "keypoint_confidence": unknown if confidence is None else confidence,
        "joints_m": hand.joints,
        "joint_sigma_m": hand.joint_sigma_m,
        "depth_sigma_m": hand.depth_sigma_m,
        "betas": hand.betas,
        "pose_axis_angle_with_mean": hand.full_pose,
        "transl_m": hand.transl,
        "focal_px": camera.focal_px,
        "principal_point_px": camera.principal_point_px,
        "width_px": size_px[0],
        "height_px": size_px[1],
        "focal_source": camera.focal_source,
    }


def _mean_pose(hands: HandModel) -> dict[str, list[float]]:
    """Of both hands: what the pose has more than MANO's own parameters."""
    return {
        side: np.asarray(hands.hand(side).mean_pose, np.float64).round(7).tolist() for side in HANDS
    }


def _arrow_type(kind: str, shape: tuple[int, ...]) -> Any:
    pa = pyarrow_module()
    made = {"string": pa.string(), "bool": pa.bool_()}.get(kind) or pa.from_numpy_dtype(kind)
    for size in reversed(shape):
        made = pa.list_(pa.field("element", made, nullable=False), size)
    return made
