"""Clips as a LeRobot dataset v3.0, which robots learn from: written without the library itself.

The layout is that of huggingface/lerobot (docs/source/lerobot-dataset-v3.mdx; the fields those of
src/lerobot/datasets/{utils,dataset_metadata,dataset_writer,compute_stats,video_utils}.py):

    meta/info.json                              features, frames a second, patterns of the paths
    meta/stats.json                             of each feature: range, mean, spread, quantiles
    meta/tasks.parquet                          sentences and their numbers
    meta/episodes/chunk-000/file-000.parquet    an episode a row: where its frames are
    data/chunk-000/file-000.parquet             a frame a row
    videos/observation.images.camera/chunk-000/file-000.mp4
    meta/er_jax.json                            ours: axes, hand model, and each episode's camera
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from er_jax.mano import HANDS, MANO16, HandModel, hand_model_identity
from er_jax.mano.conventions import rest_wrist
from er_jax.photographs.result import AXES, LEFT_SHAPE
from er_jax.utils.errors import ConfigError, DataError
from er_jax.video.lerobot_files import (
    DATA_FILE_MB,
    FILE,
    FILES_A_CHUNK,
    VIDEO_FILE_MB,
    Picture,
    Tables,
    Videos,
)
from er_jax.video.lerobot_stats import picture_stats, vector_stats
from er_jax.video.parquet import pyarrow_module
from er_jax.video.track import Clip

VERSION = "v3.0"
ROBOT = "human_hands"
STATE, PRESENT = "observation.state", "observation.hands_present"
TASK = "hands at work"

_HAND_STATE = (
    *(f"wrist_{axis}" for axis in "xyz"),
    *(f"wrist_rotation_{entry}" for entry in ("xx", "yx", "zx", "xy", "yy", "zy")),
    *(f"{joint}_{axis}" for joint in MANO16[1:] for axis in "xyz"),
    *(f"beta_{number}" for number in range(10)),
)
STATE_NAMES = tuple(f"{side}_{name}" for side in HANDS for name in _HAND_STATE)
"""Of the numbers of `observation.state`."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """A clip on its way into a dataset.

    Attributes:
      clip: its hands.
      pictures: RGB of all its frames in their order; read once.
      task: what is done in it, one sentence.
      person: number of the person whose hands they are; None: the one seen most.
    """

    clip: Clip
    pictures: Iterable[Picture]
    task: str = TASK
    person: int | None = None


def write_lerobot(
    episodes: Sequence[Episode],
    hands: HandModel,
    folder: Path | str,
    *,
    camera: str = "camera",
    fps: int | None = None,
) -> None:
    """Writes clips as the episodes of one dataset; `docs/video.md` says what is in it.

    Args:
      episodes: of pictures of one size.
      hands: both hand models.
      folder: of the dataset; it must not be there yet.
      camera: name, for `observation.images.CAMERA`.
      fps: frames a second; None: those of the first clip, rounded, which LeRobot's must be. A clip
        whose frames come at other times gives for each time its nearest frame.

    Raises:
      ConfigError: the folder is there, there is no episode, or PyAV or PyArrow is not installed.
      DataError: a clip has no frames, or its pictures are fewer or of another size.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; remove it, or name another folder")
    if not episodes:
        raise ConfigError(f"{folder}: a dataset needs at least one clip")
    for episode in episodes:
        if not len(episode.clip.times_s):
            raise DataError(f"{episode.clip.name}: a clip without frames; leave it out")
    rate = fps or max(round(episodes[0].clip.frame_rate), 1)
    beside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _Dataset(beside, f"observation.images.{camera}", rate, hands).write(episodes)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def state_of(
    clip: Clip, hands: HandModel, person: int | None = None
) -> tuple[Float[np.ndarray, "F 128"], Float[np.ndarray, "F 2"]]:
    """`observation.state` of every frame, and which hands are there, right and left.

    Args:
      clip: with hands of any number.
      hands: both hand models.
      person: number of the person; None: the one seen most.

    Returns:
      Numbers in the order `STATE_NAMES`, zeros of a hand that is not there; and 1 or 0 a hand.
    """
    state = np.zeros((len(clip.times_s), len(HANDS), len(_HAND_STATE)))
    present = np.zeros((len(clip.times_s), len(HANDS)))
    person = _most_seen(clip) if person is None else person
    for track in clip.tracks:
        if track.person != person or not len(track):
            continue
        side = HANDS.index(track.side)
        fingers = Rotation.from_matrix(track.rotations[:, 1:].reshape(-1, 3, 3)).as_rotvec()
        state[track.frames, side] = np.hstack(
            [
                rest_wrist(hands.hand(track.side), track.betas) + track.transl,
                track.rotations[:, 0, :, 0],
                track.rotations[:, 0, :, 1],
                fingers.reshape(len(track), -1),
                track.betas,
            ]
        )
        present[track.frames, side] = 1
    return state.reshape(len(state), -1), present


class _Dataset:
    """A dataset while it is written."""

    def __init__(self, folder: Path, video_key: str, fps: int, hands: HandModel):
        self._folder, self._video_key, self._fps, self._hands = folder, video_key, fps, hands

    def write(self, episodes: Sequence[Episode]) -> None:
        """Writes all its files."""
        tasks = list(dict.fromkeys(episode.task for episode in episodes))
        vectors: list[dict[str, np.ndarray]] = []
        counts = np.zeros((3, 256), np.int64)
        rows = []
        total = 0
        (self._folder / "meta").mkdir(parents=True)
        with (
            Tables(self._folder / "data") as tables,
            Videos(self._folder / "videos" / self._video_key, self._fps) as video,
        ):
            for number, episode in enumerate(episodes):
                clip = episode.clip
                chosen = _frames_at(clip, self._fps)
                columns = self._columns(episode, chosen, number, total, tasks.index(episode.task))
                table = self._table(columns)
                place = tables.add(table)
                shown, shades = video.add(clip.name, clip.size_px, episode.pictures, chosen)
                stats = {name: vector_stats(column) for name, column in columns.items()}
                stats[self._video_key] = picture_stats(shades, len(chosen))
                span = {"dataset_from_index": total, "dataset_to_index": total + len(chosen)}
                first = {"episode_index": number, "tasks": [episode.task], "length": len(chosen)}
                row: dict[str, Any] = first | _at("data", place) | span
                row |= {f"videos/{self._video_key}/{name}": value for name, value in shown.items()}
                row |= {
                    f"stats/{name}/{what}": value.tolist()
                    for name, of_feature in stats.items()
                    for what, value in of_feature.items()
                }
                rows.append(row | _at("meta/episodes", (0, 0)))
                vectors.append(columns)
                counts += shades
                total += len(chosen)
        joined = {name: np.concatenate([part[name] for part in vectors]) for name in vectors[0]}
        stats = {name: vector_stats(column) for name, column in joined.items()}
        stats[self._video_key] = picture_stats(counts, total)
        self._write_json(
            "meta/stats.json",
            {
                name: {what: value.tolist() for what, value in of_feature.items()}
                for name, of_feature in stats.items()
            },
        )
        self._write_tasks(tasks)
        self._write_episodes(rows)
        self._write_json("meta/info.json", self._info(len(episodes), total, len(tasks), video))
        self._write_json("meta/er_jax.json", self._told(episodes))

    def _columns(
        self, episode: Episode, chosen: Int[np.ndarray, "n"], number: int, first: int, task: int
    ) -> dict[str, np.ndarray]:
        """What a frame has but its picture, of an episode's frames; scalars are of shape (n,)."""
        state, present = state_of(episode.clip, self._hands, episode.person)
        within = np.arange(len(chosen))
        return {
            STATE: state[chosen].astype(np.float32),
            PRESENT: present[chosen].astype(np.float32),
            "timestamp": (within / self._fps).astype(np.float32),
            "frame_index": within,
            "episode_index": np.full(len(chosen), number),
            "index": first + within,
            "task_index": np.full(len(chosen), task),
        }

    def _table(self, columns: Mapping[str, np.ndarray]) -> Any:
        pa = pyarrow_module()
        return pa.table(
            {
                name: pa.array(column)
                if column.ndim == 1
                else pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])
                for name, column in columns.items()
            }
        )

    def _info(self, episodes: int, frames: int, tasks: int, video: "Videos") -> dict[str, Any]:
        width, height = video.size_px
        about = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.fps": self._fps,
            "video.channels": 3,
            "is_depth_map": False,
            "has_audio": False,
        }
        features = {
            self._video_key: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": about,
            },
            STATE: _feature("float32", len(STATE_NAMES), list(STATE_NAMES)),
            PRESENT: _feature("float32", len(HANDS), list(HANDS)),
            "timestamp": _feature("float32", 1, None),
            "frame_index": _feature("int64", 1, None),
            "episode_index": _feature("int64", 1, None),
            "index": _feature("int64", 1, None),
            "task_index": _feature("int64", 1, None),
        }
        return {
            "codebase_version": VERSION,
            "robot_type": ROBOT,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": FILES_A_CHUNK,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": f"data/{FILE}.parquet",
            "video_path": f"videos/{{video_key}}/{FILE}.mp4",
            "features": features,
        }

    def _told(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        return {
            "axes": AXES,
            "angles": "radians; the fingers' axis-angle with MANO's mean pose",
            "left_shape": LEFT_SHAPE,
            **hand_model_identity(self._hands),
            "episodes": [
                {
                    "clip": episode.clip.name,
                    "size_px": list(episode.clip.size_px),
                    "focal_px": list(episode.clip.camera.focal_px),
                    "principal_point_px": list(episode.clip.camera.principal_point_px),
                    "focal_source": episode.clip.camera.focal_source,
                    "messages": list(episode.clip.messages),
                }
                for episode in episodes
            ],
        }

    def _write_tasks(self, tasks: list[str]) -> None:
        """Sentences are the index of the table, as pandas stores one."""
        pa = pyarrow_module()
        import pyarrow.parquet as pq

        def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
            return {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy_kind,
                "metadata": None,
            }

        index = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                column("task_index", "int64", "int64"),
                column("task", "unicode", "object"),
            ],
        }
        numbers = pa.array(range(len(tasks)), pa.int64())
        table = pa.table({"task_index": numbers, "task": pa.array(tasks, pa.string())})
        table = table.replace_schema_metadata({"pandas": json.dumps(index)})
        pq.write_table(table, self._folder / "meta" / "tasks.parquet")

    def _write_episodes(self, rows: list[dict[str, Any]]) -> None:
        pa = pyarrow_module()
        import pyarrow.parquet as pq

        path = self._folder / "meta" / "episodes" / f"{FILE.format(chunk_index=0, file_index=0)}"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), f"{path}.parquet")

    def _write_json(self, path: str, value: Any) -> None:
        text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
        (self._folder / path).write_text(text + "\n", encoding="utf-8")


def _frames_at(clip: Clip, fps: int) -> Int[np.ndarray, "n"]:
    """Numbers of the clip's frames to show at 0, 1/fps, 2/fps, …

    All of them, once each, if none is off by more than half a frame; else the nearest ones.
    """
    times = clip.times_s - clip.times_s[0]
    if np.abs(times - np.arange(len(times)) / fps).max() <= 0.5 / fps:
        return np.arange(len(times))
    wanted = np.arange(int(times[-1] * fps + 1e-6) + 1) / fps
    return np.searchsorted((times[1:] + times[:-1]) / 2, wanted)


def _most_seen(clip: Clip) -> int:
    seen: dict[int, int] = {}
    for track in clip.tracks:
        seen[track.person] = seen.get(track.person, 0) + int((~track.filled).sum())
    return max(seen, key=lambda person: (seen[person], -person), default=0)


def _feature(kind: str, length: int, names: list[str] | None) -> dict[str, Any]:
    return {"dtype": kind, "shape": [length], "names": names}


def _at(what: str, place: tuple[int, int]) -> dict[str, int]:
    return {f"{what}/chunk_index": place[0], f"{what}/file_index": place[1]}
