"""What is written of a clip, read back by readers that share no code with the writers."""

import dataclasses
import json
import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial.transform import Rotation, RotationSpline

from data_pipeline.synthetic import poses
from er_jax.mano import HAND21, MANO16, PARENTS, HandModel, load_hands, mano_forward
from er_jax.mano.conventions import kinematic_joints, rest_wrist
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.photographs.photograph import PhotographCamera
from er_jax.utils.errors import ConfigError, DataError
from er_jax.video.bvh import write_bvh
from er_jax.video.gltf import LeftOut, write_gltf
from er_jax.video.lerobot import STATE_NAMES, Episode, state_of, write_lerobot
from er_jax.video.parquet import COLUMNS, FORMAT, arrays_of, rows_of, write_parquet
from er_jax.video.track import Clip, HandTrack

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

DOCS = Path(__file__).parents[1] / "docs" / "video.md"
FRAMES, RATE = 50, 25.0
SIZE_PX = (97, 64)  # odd, as pictures can be
TIPS = {"Thumb": 745, "Index": 317, "Middle": 445, "Ring": 556, "Pinky": 673}
TURNED = np.diag([1.0, -1.0, -1.0])  # the camera's axes to y up


@pytest.fixture(scope="module")
def hands() -> HandModel:
    return load_hands()


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A right hand that goes and comes back, a left one that comes late and leaves early."""
    away = np.setdiff1d(np.arange(FRAMES), np.arange(18, 27))
    return Clip(
        name="waving",
        size_px=SIZE_PX,
        times_s=np.arange(FRAMES) / RATE,
        camera=PhotographCamera((120.0, 110.0), (47.0, 30.0), "given"),
        tracks=(moving("right", away, 1), moving("left", np.arange(6, 41), 2)),
        hand_model="stand-in",
        messages=("The focal length is given.",),
    )


@pytest.fixture(scope="module")
def written(clip: Clip, hands: HandModel, tmp_path_factory) -> tuple[Path, LeftOut]:
    """The animation, and what its writer says of what is left out."""
    path = tmp_path_factory.mktemp("gltf") / "waving.glb"
    return path, write_gltf(clip, hands, path)


def moving(side: str, frames: np.ndarray, seed: int, person: int = 0) -> HandTrack:
    """A hand that moves smoothly through five random poses, in `frames` of the clip."""
    random = np.random.default_rng(seed)
    mirrored = np.tile([1.0, -1.0, -1.0], 15) if side == "left" else 1.0
    mean = stand_in_arrays(side)["hands_mean"]
    keys = np.linspace(0, 1, 5)
    at = frames / FRAMES
    bends = poses.sample_pose(random, 5) * mirrored + mean
    fingers = PchipInterpolator(keys, bends)(at).reshape(-1, 3)
    root = RotationSpline(keys, Rotation.random(5, random_state=seed))(at).as_matrix()
    turns = Rotation.from_rotvec(fingers).as_matrix().reshape(-1, 15, 3, 3)
    middle = np.array([0.1 if side == "right" else -0.1, 0, 0.6])
    places = random.normal(middle, 0.08, (5, 3))
    count = len(frames)
    filled = np.arange(count) % 11 == 5
    return HandTrack(
        person=person,
        side=side,
        frames=frames,
        filled=filled,
        score=np.where(filled, 0, random.uniform(0.5, 1, count)),
        betas=np.tile(random.normal(0, 0.7, 10), (count, 1)),
        rotations=np.concatenate([root[:, None], turns], axis=1),
        transl=CubicSpline(keys, places)(at),
        keypoints_px=np.where(filled[:, None, None], np.nan, random.uniform(0, 60, (count, 21, 2))),
        confidence=random.uniform(0, 1, (count, 21)),
        joint_sigma_m=random.uniform(0.001, 0.01, (count, 21)),
        depth_sigma_m=random.uniform(0.01, 0.05, count),
    )


def none_of(clip: Clip) -> Clip:
    return dataclasses.replace(clip, tracks=())


# Parquet


def test_rows_say_what_the_tracks_say(clip, hands):
    table = rows_of(clip, hands, source="waving.mp4")
    rows = arrays_of(table)
    assert list(rows) == list(COLUMNS) == table.schema.names
    assert rows["source"].tolist() == ["waving.mp4"] * len(table)
    order = list(zip(rows["frame"], rows["handedness"] == "left", strict=True))
    assert order == sorted(order) and len(set(order)) == sum(map(len, clip.tracks))
    for track in clip.tracks:
        own = {name: array[rows["handedness"] == track.side] for name, array in rows.items()}
        vertices, joints = track.meshes(hands)
        seen = [120.0, 110.0] * joints[..., :2] / joints[..., 2:] + [47.0, 30.0]
        outline = [120.0, 110.0] * vertices[..., :2] / vertices[..., 2:] + [47.0, 30.0]
        x, y, width, height = own["box_xywh_px"].T
        np.testing.assert_allclose(x, outline[..., 0].min(1), atol=1e-3)
        np.testing.assert_allclose(y, outline[..., 1].min(1), atol=1e-3)
        np.testing.assert_allclose(x + width, outline[..., 0].max(1), atol=1e-3)
        np.testing.assert_allclose(y + height, outline[..., 1].max(1), atol=1e-3)
        np.testing.assert_allclose(own["keypoints_px"], seen, atol=1e-3)
        np.testing.assert_allclose(own["joints_m"], joints, atol=1e-6)
        np.testing.assert_array_equal(own["frame"], track.frames)
        np.testing.assert_array_equal(own["time_s"], track.frames / RATE)
        np.testing.assert_array_equal(own["filled"], track.filled)
        assert np.isnan(own["detected_keypoints_px"][track.filled]).all()
        for name, value in {
            "score": track.score,
            "detected_keypoints_px": track.keypoints_px,
            "keypoint_confidence": track.confidence,
            "joint_sigma_m": track.joint_sigma_m,
            "depth_sigma_m": track.depth_sigma_m,
            "betas": track.betas,
            "transl_m": track.transl,
            "focal_px": np.tile([120.0, 110.0], (len(track), 1)),
            "principal_point_px": np.tile([47.0, 30.0], (len(track), 1)),
        }.items():
            np.testing.assert_allclose(own[name], value, rtol=1e-6, err_msg=name)
        assert set(own["width_px"]) == {97} and set(own["height_px"]) == {64}
        assert set(own["person"]) == {0} and set(own["focal_source"]) == {"given"}


def test_a_file_alone_gives_the_meshes_again(clip, hands, tmp_path):
    """Its parameters and its metadata are all that MANO needs."""
    write_parquet(clip, hands, tmp_path / "hands.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["hands.parquet"]
    group = pq.read_metadata(tmp_path / "hands.parquet").row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}
    table = pq.read_table(tmp_path / "hands.parquet")
    told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert told["er_jax.format"] == FORMAT and told["er_jax.hand_model"] == "stand-in"
    assert json.loads(told["er_jax.joint_names"]) == list(HAND21)
    assert json.loads(told["er_jax.pose_joint_names"]) == list(MANO16)
    assert json.loads(told["er_jax.messages"]) == list(clip.messages)
    assert "y down" in told["er_jax.axes"] and told["er_jax.hand_model_sha256"] == hands.sha256
    rows = arrays_of(table)
    for track in clip.tracks:
        own = {name: array[rows["handedness"] == track.side] for name, array in rows.items()}
        mean = json.loads(told["er_jax.mean_pose"])[track.side]
        pose = own["pose_axis_angle_with_mean"] - np.array([0, 0, 0, *mean], np.float32)
        mesh = mano_forward(hands.hand(track.side), own["betas"], pose, own["transl_m"])
        np.testing.assert_allclose(mesh.joints, own["joints_m"], atol=2e-6)


def test_numbers_are_not_copied(clip, hands):
    table = rows_of(clip, hands)
    for name, array in arrays_of(table).items():
        kind, shape = COLUMNS[name]
        assert array.shape[1:] == shape
        if kind not in ("string", "bool"):
            assert array.dtype == kind
            held = [one for one in table.column(name).chunk(0).buffers() if one]
            spans = [(one.address, one.address + one.size) for one in held]
            assert any(low <= array.ctypes.data < high for low, high in spans), name


def test_a_clip_without_hands_has_no_rows(clip, hands, tmp_path):
    write_parquet(none_of(clip), hands, tmp_path / "none.parquet")
    table = pq.read_table(tmp_path / "none.parquet")
    assert len(table) == 0 and table.schema.equals(rows_of(clip, hands).schema)


@pytest.mark.parametrize("reader", ["pandas", "daft", "datasets"])
def test_other_readers_see_the_same(clip, hands, tmp_path, reader):
    library = pytest.importorskip(reader)
    path = tmp_path / "hands.parquet"
    write_parquet(clip, hands, path)
    expected = arrays_of(rows_of(clip, hands))
    if reader == "pandas":
        frame = library.read_parquet(path)
        columns = {name: frame[name].tolist() for name in frame}
        for name, (_, shape) in COLUMNS.items():
            if len(shape) == 2:
                columns[name] = [np.stack(value) for value in columns[name]]
    elif reader == "daft":
        columns = library.read_parquet(str(path)).to_pydict()
    else:
        columns = library.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "c")).to_dict()
    assert list(columns) == list(COLUMNS)
    for name, values in columns.items():
        np.testing.assert_array_equal(np.asarray(values), expected[name], err_msg=name)


def test_the_docs_list_the_columns():
    (section,) = (one for one in DOCS.read_text("utf-8").split("\n## ") if one[:7] == "Parquet")
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    listed = {cells[1].strip(" `"): (cells[2].strip(), cells[3].strip()) for cells in rows}
    assert listed == {
        name: (kind, " × ".join(map(str, shape))) for name, (kind, shape) in COLUMNS.items()
    }


# LeRobot

INFO = {
    *("codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks"),
    *("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb", "fps", "splits"),
    *("data_path", "video_path", "features"),
}
"""Keys of meta/info.json: huggingface/lerobot, src/lerobot/datasets/utils.py, `DatasetInfo`."""
DATA = {
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}
"""Columns that all datasets have: src/lerobot/utils/constants.py, `DEFAULT_FEATURES`."""
STATS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
"""Of each feature: src/lerobot/datasets/compute_stats.py, `get_feature_stats`."""
KEY = "observation.images.camera"
EPISODE = {
    *("episode_index", "tasks", "length", "data/chunk_index", "data/file_index"),
    *("dataset_from_index", "dataset_to_index"),
    *("meta/episodes/chunk_index", "meta/episodes/file_index"),
    *(f"videos/{KEY}/{name}" for name in ("chunk_index", "file_index")),
    *(f"videos/{KEY}/{name}" for name in ("from_timestamp", "to_timestamp")),
}
"""Columns of meta/episodes besides stats/FEATURE/STATISTIC: dataset_metadata.py, `save_episode`
and `_save_episode_metadata`; dataset_writer.py, `_save_episode_data` and `_save_episode_video`."""
VIDEO = {
    *("video.height", "video.width", "video.codec", "video.pix_fmt", "video.fps"),
    *("video.channels", "has_audio", "is_depth_map"),
}
"""Of a video's feature: video_utils.py, `get_video_info`."""


def pictures(clip: Clip, bright: int = 0) -> Iterator[np.ndarray]:
    """A picture a frame, whose grey tells which frame it is."""
    width, height = clip.size_px
    for frame in range(len(clip.times_s)):
        yield np.full((height, width, 3), bright + 3 * frame, np.uint8)


@pytest.fixture(scope="module")
def late(clip: Clip) -> Clip:
    """A clip of a left hand alone, whose frames come at uneven times."""
    times = np.array([0.0, 0.04, 0.08, 0.3, 0.35, 0.5])
    track = dataclasses.replace(moving("left", np.arange(1, 5), 3), person=4)
    return dataclasses.replace(clip, name="late", times_s=times, tracks=(track,))


@pytest.fixture(scope="module")
def dataset(clip, late, hands, tmp_path_factory) -> Path:
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("lerobot") / "dataset"
    episodes = [
        Episode(clip, pictures(clip), "wave"),
        Episode(late, pictures(late, 90), "knock"),
        Episode(clip, pictures(clip, 40), "wave"),
    ]
    write_lerobot(episodes, hands, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]
    return folder


LENGTHS = (FRAMES, 13, FRAMES)
NEAREST = (0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5)
"""Frames of the second clip nearest to 0, 0.04, …, 0.48 s."""


def test_lerobot_has_the_published_fields(dataset):
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {
        *("meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/er_jax.json"),
        *("meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"),
        f"videos/{KEY}/chunk-000/file-000.mp4",
    }
    info = json.loads((dataset / "meta/info.json").read_text())
    assert set(info) == INFO
    assert info["codebase_version"] == "v3.0" and info["fps"] == 25
    assert info["splits"] == {"train": "0:3"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 113, 2)
    place = {"chunk_index": 0, "file_index": 0}
    assert info["data_path"].format(**place) in files
    assert info["video_path"].format(video_key=KEY, **place) in files

    features = info["features"]
    stored = pq.read_schema(dataset / "data/chunk-000/file-000.parquet")
    assert set(features) - set(stored.names) == {KEY}
    assert features[KEY]["dtype"] == "video" and set(features[KEY]["info"]) == VIDEO
    assert features[KEY]["shape"] == [64, 98, 3]
    assert features[KEY]["names"] == ["height", "width", "channels"]
    for name, kind in DATA.items():
        assert features[name] == {"dtype": str(kind).replace("float", "float32"), "shape": [1],
                                  "names": None}  # fmt: skip
        assert stored.field(name).type == kind
    for name in ("observation.state", "observation.hands_present"):
        (length,) = features[name]["shape"]
        assert len(set(features[name]["names"])) == length
        assert stored.field(name).type == pa.list_(pa.float32(), length)
    stats = json.loads((dataset / "meta/stats.json").read_text())
    assert set(stats) == set(features) and all(set(one) == STATS for one in stats.values())
    episodes = pq.read_schema(dataset / "meta/episodes/chunk-000/file-000.parquet")
    of_stats = {f"stats/{name}/{what}" for name in features for what in STATS}
    assert set(episodes.names) == EPISODE | of_stats


def test_lerobot_episodes_lie_end_to_end(dataset):
    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    data = pq.read_table(dataset / "data/chunk-000/file-000.parquet").to_pydict()
    assert [row["tasks"] for row in rows] == [["wave"], ["knock"], ["wave"]]
    ends = np.cumsum((0, *LENGTHS))
    for number, row in enumerate(rows):
        first, last = row["dataset_from_index"], row["dataset_to_index"]
        assert (first, last, row["length"]) == (ends[number], ends[number + 1], LENGTHS[number])
        assert set(data["episode_index"][first:last]) == {number} == {row["episode_index"]}
        assert data["frame_index"][first:last] == list(range(last - first))
        assert data["index"][first:last] == list(range(first, last))
        assert set(data["task_index"][first:last]) == {number % 2}
        times = np.arange(last - first, dtype=np.float32) / np.float32(25)
        np.testing.assert_allclose(data["timestamp"][first:last], times, atol=1e-6)
        assert row[f"videos/{KEY}/from_timestamp"] == pytest.approx(first / 25)
        assert row[f"videos/{KEY}/to_timestamp"] == pytest.approx(last / 25)
    tasks = pytest.importorskip("pandas").read_parquet(dataset / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["wave", "knock"] and tasks["task_index"].tolist() == [0, 1]


def test_lerobot_pictures_are_those_of_their_frames(dataset):
    """At k/fps lies the picture of frame k; of uneven times the nearest one.

    Of two that follow one is whole, and none is stored in another order than it is shown in: not
    all readers would find it.
    """
    av = pytest.importorskip("av")
    even = np.arange(FRAMES)
    expected = np.concatenate([3 * even, 90 + 3 * np.array(NEAREST), 40 + 3 * even])
    with av.open(str(dataset / f"videos/{KEY}/chunk-000/file-000.mp4")) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
        container.seek(0)
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert all(packet.pts == packet.dts for packet in packets)
    whole = [packet.is_keyframe for packet in packets]
    assert all(one or other for one, other in pairwise(whole))
    assert len(frames) == len(expected)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(113) / 25, atol=1e-4)
    seen = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    np.testing.assert_allclose(seen, expected, atol=1.2)


def test_lerobot_state_is_the_hands(dataset, clip, late, hands):
    data = pq.read_table(dataset / "data/chunk-000/file-000.parquet").to_pydict()
    state = np.array(data["observation.state"])
    present = np.array(data["observation.hands_present"])
    column = {name: number for number, name in enumerate(STATE_NAMES)}
    assert len(column) == 128 == state.shape[1]
    own = np.zeros((FRAMES, 2))
    for index, track in enumerate(clip.tracks):
        own[track.frames, index] = 1
        values = state[track.frames]

        def named(pattern: str, names, values=values, side=track.side) -> np.ndarray:
            return np.stack([values[:, column[f"{side}_{pattern.format(x)}"]] for x in names], 1)

        wrist = rest_wrist(hands.hand(track.side), track.betas) + track.transl
        np.testing.assert_allclose(named("wrist_{}", "xyz"), wrist, atol=1e-6)
        for axis in "xy":
            names = [f"wrist_rotation_{row}{axis}" for row in "xyz"]
            root = track.rotations[:, 0, :, "xyz".index(axis)]
            np.testing.assert_allclose(named("{}", names), root, atol=1e-6)
        for joint, name in enumerate(MANO16[1:], start=1):
            turn = Rotation.from_rotvec(named(f"{name}_{{}}", "xyz")).as_matrix()
            np.testing.assert_allclose(turn, track.rotations[:, joint], atol=1e-6)
        np.testing.assert_allclose(named("beta_{}", range(10)), track.betas, atol=1e-6)
        side = slice(64 * index, 64 * index + 64)
        assert not state[:FRAMES, side][own[:, index] == 0].any()
    np.testing.assert_array_equal(present[:FRAMES], own)
    assert not present[FRAMES : FRAMES + 13, 0].any()  # nearest frames 0, …, 5, of which 1 to 4
    assert present[FRAMES : FRAMES + 13, 1].tolist() == [0, *[1] * 10, 0, 0]
    absent = state_of(late, hands, person=0)
    assert not absent[0].any() and not absent[1].any()


def test_lerobot_statistics(dataset):
    stats = json.loads((dataset / "meta/stats.json").read_text())
    data = pq.read_table(dataset / "data/chunk-000/file-000.parquet").to_pydict()
    for name in ("observation.state", "timestamp"):
        values = np.array(data[name]).reshape(113, -1)
        for what, expected in {
            "min": values.min(0),
            "max": values.max(0),
            "mean": values.mean(0),
            "std": values.std(0),
            "q10": np.quantile(values, 0.1, axis=0),
            "count": [113],
        }.items():
            np.testing.assert_allclose(stats[name][what], expected, atol=1e-6, err_msg=what)
    shades = np.concatenate([3 * np.arange(50), 90 + 3 * np.array(NEAREST), 40 + 3 * np.arange(50)])
    shades = shades / 255
    for what, expected in {
        "min": shades.min(),
        "max": shades.max(),
        "mean": shades.mean(),
        "std": shades.std(),
        "q50": np.quantile(shades, 0.5, method="inverted_cdf"),
    }.items():
        value = np.array(stats[KEY][what])
        assert value.shape == (3, 1, 1)
        np.testing.assert_allclose(value, expected, atol=1e-9, err_msg=what)
    assert stats[KEY]["count"] == [113]


def test_lerobot_goes_on_to_another_file(clip, hands, tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr("er_jax.video.lerobot_files.VIDEO_FILE_MB", 0)
    monkeypatch.setattr("er_jax.video.lerobot_files.DATA_FILE_MB", 0)
    episodes = [Episode(clip, pictures(clip)), Episode(clip, pictures(clip, 9))]
    write_lerobot(episodes, hands, tmp_path / "set", camera="head", fps=25)
    key = "observation.images.head"
    rows = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in rows] == [0, 1]
    assert [row[f"videos/{key}/file_index"] for row in rows] == [0, 1]
    assert [row[f"videos/{key}/from_timestamp"] for row in rows] == [0, 0]
    assert (tmp_path / f"set/videos/{key}/chunk-000/file-001.mp4").stat().st_size
    second = pq.read_table(tmp_path / "set/data/chunk-000/file-001.parquet")
    assert second["index"].to_pylist() == list(range(FRAMES, 2 * FRAMES))


def test_lerobot_refuses(clip, hands, tmp_path):
    pytest.importorskip("av")
    folder = tmp_path / "set"
    with pytest.raises(ConfigError, match="at least one clip"):
        write_lerobot([], hands, folder)
    short = list(pictures(clip))[:-1]
    with pytest.raises(DataError, match="waving: picture 49 of 50 is missing"):
        write_lerobot([Episode(clip, short)], hands, folder)
    small = (picture[:10] for picture in pictures(clip))
    with pytest.raises(DataError, match="waving: picture 0 of 50 is not of the clip's size"):
        write_lerobot([Episode(clip, small)], hands, folder)
    wide = dataclasses.replace(clip, size_px=(120, 64))
    with pytest.raises(DataError, match="not of the size 98×64"):
        write_lerobot([Episode(clip, pictures(clip)), Episode(wide, pictures(wide))], hands, folder)
    assert not list(tmp_path.iterdir())  # nothing half done is left
    folder.mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        write_lerobot([Episode(clip, pictures(clip))], hands, folder)


@pytest.mark.parametrize(("absent", "what"), [("pyarrow", "PyArrow"), ("av", "PyAV")])
def test_an_absent_library_is_named(clip, hands, tmp_path, monkeypatch, absent, what):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConfigError, match=rf"{what}, .* pip install 'er_jax\[video\]'"):
        write_lerobot([Episode(clip, pictures(clip))], hands, tmp_path / "set")
    if absent == "pyarrow":
        with pytest.raises(ConfigError, match=what):
            write_parquet(clip, hands, tmp_path / "hands.parquet")
    assert not list(tmp_path.iterdir())


# glTF


class Animation:
    """A glTF file, read by pygltflib and moved by NumPy in float64."""

    def __init__(self, path: Path):
        self.gltf = pytest.importorskip("pygltflib").GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        self.parent = {
            child: number
            for number, node in enumerate(self.gltf.nodes)
            for child in node.children or ()
        }

    def array(self, number: int) -> np.ndarray:
        """Values of an accessor."""
        accessor = self.gltf.accessors[number]
        view = self.gltf.bufferViews[accessor.bufferView]
        kind = np.dtype({5121: "u1", 5123: "<u2", 5126: "<f4"}[accessor.componentType])
        length = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        assert view.byteOffset % 4 == 0 and view.byteOffset + view.byteLength <= len(self.blob)
        assert accessor.count * length * kind.itemsize == view.byteLength
        values = np.frombuffer(self.blob, kind, accessor.count * length, view.byteOffset)
        values = values.reshape(accessor.count, length)
        if accessor.min:
            np.testing.assert_array_equal(values.min(0), accessor.min)
            np.testing.assert_array_equal(values.max(0), accessor.max)
        return values.astype(np.float64)

    def channels(self, node: int) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
        """Times, values and interpolation of what moves a node."""
        if not self.gltf.animations:
            return {}
        (animation,) = self.gltf.animations
        found = {}
        for channel in animation.channels:
            if channel.target.node == node:
                sampler = animation.samplers[channel.sampler]
                times, values = self.array(sampler.input)[:, 0], self.array(sampler.output)
                assert (np.diff(times) > 0).all() and len(times) == len(values)
                found[channel.target.path] = times, values, sampler.interpolation
        return found

    def world(self, number: int, time: float | None) -> np.ndarray:
        """Transform (4, 4) of a node; None: as the file stands."""
        node = self.gltf.nodes[number]
        own = {
            "translation": node.translation or [0, 0, 0],
            "rotation": node.rotation or [0, 0, 0, 1],
            "scale": node.scale or [1, 1, 1],
        }
        if time is not None:
            for path, (times, values, interpolation) in self.channels(number).items():
                own[path] = between(times, values, interpolation, time)
        local = np.eye(4)
        local[:3, :3] = quaternion_matrix(own["rotation"]) * own["scale"]
        local[:3, 3] = own["translation"]
        above = self.parent.get(number)
        return local if above is None else self.world(above, time) @ local

    def vertices(self, label: str, time: float | None) -> np.ndarray:
        """Skinned vertices of a hand; the mesh's own node has no say."""
        (node,) = (one for one in self.gltf.nodes if one.name == f"{label}_mesh")
        (primitive,) = self.gltf.meshes[node.mesh].primitives
        skin = self.gltf.skins[node.skin]
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2)
        moves = np.stack([self.world(joint, time) for joint in skin.joints]) @ inverse
        attributes = primitive.attributes
        points = np.insert(self.array(attributes.POSITION), 3, 1.0, axis=1)
        joints = self.array(attributes.JOINTS_0).astype(int)
        weights = self.array(attributes.WEIGHTS_0)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
        blended = (weights[..., None, None] * moves[joints]).sum(1)
        return np.einsum("vij,vj->vi", blended, points)[:, :3]

    def faces(self, label: str) -> np.ndarray:
        (mesh,) = (one for one in self.gltf.meshes if one.name == label)
        return self.array(mesh.primitives[0].indices).astype(int).reshape(-1, 3)


def between(times: np.ndarray, values: np.ndarray, interpolation: str, time: float) -> np.ndarray:
    """Value of a sampler at a time."""
    before = int(np.clip(np.searchsorted(times, time + 1e-6) - 1, 0, len(times) - 1))
    after = min(before + 1, len(times) - 1)
    if interpolation == "STEP" or before == after or time <= times[before]:
        return values[before]
    share = (time - times[before]) / (times[after] - times[before])
    mixed = (1 - share) * values[before] + share * values[after]
    # Of neighbouring quaternions the chord is as good as the arc, if their signs go together.
    return mixed / np.linalg.norm(mixed) if values.shape[1] == 4 else mixed


def quaternion_matrix(xyzw) -> np.ndarray:
    x, y, z, w = xyzw
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def skinned(track: HandTrack) -> np.ndarray:
    """Vertices by MANO's skinning without its pose corrections, from the hand's own arrays."""
    hand = stand_in_arrays(track.side)
    rest = hand["v_template"] + hand["shapedirs"][..., :10] @ track.betas[0]
    joints = hand["J_regressor"] @ rest
    moved = np.zeros((len(track), 778, 3))
    for frame in range(len(track)):
        chain: list[np.ndarray] = []
        for joint, parent in enumerate(PARENTS):
            local = np.eye(4)
            local[:3, :3] = track.rotations[frame, joint]
            local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
            chain.append(chain[parent] @ local if joint else local)
        for joint, transform in enumerate(chain):
            points = (rest - joints[joint]) @ transform[:3, :3].T + transform[:3, 3]
            moved[frame] += hand["weights"][:, joint, None] * points
    return moved + track.transl[:, None]


def test_gltf_skins_give_the_meshes(written, clip, hands):
    """Within 0.03 mm of MANO without its pose corrections, and nearly all within 3 mm of it all.

    The motion goes from one random gesture to the next; a fist's knuckles are up to 5 mm off.
    """
    path, left_out = written
    animation = Animation(path)
    distances = []
    for track in clip.tracks:
        exact, meshes = skinned(track), track.meshes(hands)[0]
        for place, frame in enumerate(track.frames.tolist()):
            points = animation.vertices(track.side, clip.times_s[frame]) @ TURNED
            assert np.abs(points - exact[place]).max() < 3e-5
            distances.append(1000 * np.linalg.norm(points - meshes[place], axis=1))
        np.testing.assert_array_equal(
            animation.faces(track.side), np.asarray(hands.hand(track.side).faces)
        )
    found = np.concatenate(distances)
    assert np.median(found) < 0.1 and (found < 3).mean() > 0.98 and found.max() < 6
    assert left_out.median_mm == pytest.approx(np.median(found), abs=0.005)
    assert left_out.largest_mm == pytest.approx(found.max(), abs=0.05)
    told = animation.gltf.asset.extras
    assert told["left_out_median_mm"] == round(left_out.median_mm, 3)
    assert told["left_out_largest_mm"] == round(left_out.largest_mm, 3)
    assert told["hand_model"] == "stand-in"


def test_gltf_has_a_skin_of_16_joints_and_a_channel_each(written, clip, hands):
    animation = Animation(written[0])
    gltf = animation.gltf
    assert [skin.name for skin in gltf.skins] == ["right", "left"]
    for skin, track in zip(gltf.skins, clip.tracks, strict=True):
        names = [gltf.nodes[joint].name for joint in skin.joints]
        assert names == [f"{track.side}_{name}" for name in MANO16]
        channels = [animation.channels(joint) for joint in skin.joints]
        assert [sorted(found) for found in channels] == [["rotation", "translation"]] + 15 * [
            ["rotation"]
        ]
        for found in channels:
            times, quaternions, interpolation = found["rotation"]
            np.testing.assert_allclose(times, track.frames / RATE, atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1, atol=1e-6)
            assert interpolation == "LINEAR"
            assert ((quaternions[1:] * quaternions[:-1]).sum(1) > 0).all()
        inverse = animation.array(skin.inverseBindMatrices).reshape(-1, 4, 4)
        hand = stand_in_arrays(track.side)
        rest = hand["v_template"] + hand["shapedirs"][..., :10] @ track.betas[0]
        np.testing.assert_allclose(-inverse[:, 3, :3], hand["J_regressor"] @ rest, atol=1e-6)
        np.testing.assert_array_equal(inverse[:, :3, :3], np.tile(np.eye(3), (16, 1, 1)))
        assert np.isin(skin.joints[0], gltf.nodes[animation.parent[skin.joints[0]]].children)
        mesh = gltf.nodes[[node.skin for node in gltf.nodes].index(gltf.skins.index(skin))]
        normals = animation.array(gltf.meshes[mesh.mesh].primitives[0].attributes.NORMAL)
        outward = rest - rest.mean(0)
        assert ((normals * outward).sum(1) > 0).mean() > 0.8


def test_gltf_shows_a_hand_only_where_it_is_known(written, clip):
    animation = Animation(written[0])
    for track in clip.tracks:
        known = set(track.frames.tolist())
        for frame in range(FRAMES):
            size = np.ptp(animation.vertices(track.side, frame / RATE), axis=0).max()
            assert (size > 0.05) == (frame in known)
        still = animation.vertices(track.side, None)  # where no animation is played
        first = animation.vertices(track.side, track.frames[0] / RATE)
        np.testing.assert_allclose(still, first, atol=1e-6)


def test_gltf_stands_upright_before_the_clip_s_camera(written, clip):
    """In the first frame and at rest: what is high in the picture has a large y."""
    animation = Animation(written[0])
    (node,) = (one for one in animation.gltf.nodes if one.camera is not None)
    lens = animation.gltf.cameras[node.camera].perspective
    points = animation.vertices("right", 0.0)
    seen = np.divide(points[:, :2], -points[:, 2:])
    height = seen[:, 1] / np.tan(lens.yfov / 2)
    width = seen[:, 0] / np.tan(lens.yfov / 2) / lens.aspectRatio
    expected = clip.camera.projection.project(skinned(clip.tracks[0])[0])
    expected = (expected - clip.camera.principal_point_px) / (np.array(SIZE_PX) / 2)
    np.testing.assert_allclose(np.column_stack([width, -height]), expected, atol=1e-3)


def test_gltf_opens_in_trimesh(written, clip, hands):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(written[0])
    assert {len(mesh.vertices) for mesh in scene.geometry.values()} == {778}
    assert len(scene.geometry) == 2


def test_gltf_of_several_persons_one_frame_and_nobody(clip, hands, tmp_path):
    whole = moving("left", np.arange(FRAMES), 6, person=1)
    tracks = (moving("left", np.array([3]), 5), whole, moving("left", np.array([8]), 7))
    write_gltf(dataclasses.replace(clip, tracks=tracks), hands, tmp_path / "two.glb")
    two = Animation(tmp_path / "two.glb")
    assert [skin.name for skin in two.gltf.skins] == ["1_left", "2_left", "1_left_2"]
    points = two.vertices("1_left", clip.times_s[3]) @ TURNED
    assert np.abs(points - skinned(tracks[0])[0]).max() < 3e-5
    armature = two.parent[two.gltf.skins[1].joints[0]]
    assert "scale" not in two.channels(armature)  # always there
    assert write_gltf(none_of(clip), hands, tmp_path / "none.glb") == (0, 0)
    content = (tmp_path / "none.glb").read_bytes()
    assert struct.unpack("<4sII", content[:12]) == (b"glTF", 2, len(content))
    assert not Animation(tmp_path / "none.glb").gltf.skins
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.glb", "two.glb"]


# BVH


class Motion:
    """A BVH file and its forward kinematics, by the words of the file alone."""

    def __init__(self, path: Path):
        head, tail = path.read_text().split("MOTION")
        words = iter(head.split())
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[np.ndarray] = []
        self.channels: list[list[str]] = []
        assert next(words) == "HIERARCHY"
        open_joints: list[int] = []
        for word in words:
            if word in ("ROOT", "JOINT", "End"):
                name = next(words)
                self.names.append(name if word != "End" else f"tip of {self.names[-1]}")
                self.parents.append(open_joints[-1] if open_joints else -1)
                self.channels.append([])
            elif word == "{":
                open_joints.append(len(self.names) - 1)
            elif word == "}":
                open_joints.pop()
            elif word == "OFFSET":
                self.offsets.append(np.array([float(next(words)) for _ in range(3)]))
            elif word == "CHANNELS":
                self.channels[-1] = [next(words) for _ in range(int(next(words)))]
        assert not open_joints
        count, step, *rows = tail.strip().splitlines()
        self.step_s = float(step.removeprefix("Frame Time:"))
        self.rows = np.array([[float(value) for value in row.split()] for row in rows])
        assert len(self.rows) == int(count.removeprefix("Frames:"))
        assert self.rows.shape[1] == sum(map(len, self.channels))

    def joints(self) -> dict[str, np.ndarray]:
        """Places (frames, 3) in the file's axes and unit."""
        places, turns, first = [], [], 0
        for parent, offset, channels in zip(self.parents, self.offsets, self.channels, strict=True):
            values = self.rows[:, first : first + len(channels)]
            first += len(channels)
            local = np.tile(offset, (len(self.rows), 1))
            turn = np.tile(np.eye(3), (len(self.rows), 1, 1))
            for channel, value in zip(channels, values.T, strict=True):
                axis = "XYZ".index(channel[0])
                if channel.endswith("position"):
                    local[:, axis] += value
                else:
                    turn = (
                        turn
                        @ Rotation.from_euler(channel[0], value[:, None], degrees=True).as_matrix()
                    )
            if parent >= 0:
                local = places[parent] + np.einsum("tij,tj->ti", turns[parent], local)
                turn = turns[parent] @ turn
            places.append(local)
            turns.append(turn)
        return dict(zip(self.names, places, strict=True))


def test_bvh_bones_lie_where_the_hands_do(clip, hands, tmp_path):
    files = write_bvh(clip, hands, tmp_path / "new")
    assert [path.name for path in files] == ["waving_right.bvh", "waving_left.bvh"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        path.name for path in files
    )
    for path, track in zip(files, clip.tracks, strict=True):
        motion = Motion(path)
        assert motion.step_s == pytest.approx(1 / RATE) and len(motion.rows) == FRAMES
        found = motion.joints()
        assert [name for name in found if "tip" not in name] == list(MANO16)
        assert motion.channels[0][:3] == ["Xposition", "Yposition", "Zposition"]
        assert {tuple(one[-3:]) for one in motion.channels if one} == {
            ("Zrotation", "Xrotation", "Yrotation")
        }
        expected = kinematic_joints(
            hands.hand(track.side), track.betas, track.rotations, track.transl
        )
        for joint, name in enumerate(MANO16):
            metres = found[name][track.frames] / 100 @ TURNED
            np.testing.assert_allclose(metres, expected[:, joint], atol=2e-6, err_msg=name)
        vertices = skinned(track)
        for finger, vertex in TIPS.items():
            metres = found[f"tip of {finger}_3"][track.frames] / 100 @ TURNED
            np.testing.assert_allclose(metres, vertices[:, vertex], atol=1e-3)
        assert np.abs(np.diff(motion.rows[:, 3:], axis=0)).max() < 180  # no jumps of whole turns


def test_bvh_moves_on_where_a_hand_is_not_seen(clip, hands, tmp_path):
    """Steadily from where it was last seen to where it is next; still before and after."""
    right, left = (Motion(path).joints()["Wrist"] for path in write_bvh(clip, hands, tmp_path))
    gap = right[17:28]
    np.testing.assert_allclose(np.diff(gap, axis=0), np.tile((gap[-1] - gap[0]) / 10, (10, 1)),
                               atol=1e-4)  # fmt: skip
    np.testing.assert_array_equal(left[:6], np.tile(left[6], (6, 1)))
    np.testing.assert_array_equal(left[41:], np.tile(left[40], (9, 1)))


def test_bvh_of_uneven_times_and_nobody(clip, late, hands, tmp_path):
    (path,) = write_bvh(late, hands, tmp_path)
    motion = Motion(path)
    assert motion.step_s == pytest.approx(0.05)  # the usual distance of two frames
    wrist = motion.joints()["Wrist"] / 100 @ TURNED
    track = late.tracks[0]
    at = np.clip(np.arange(len(wrist)) * motion.step_s, 0.04, 0.35)
    own = rest_wrist(hands.hand("left"), track.betas) + track.transl
    expected = [np.interp(at, late.times_s[track.frames], own[:, axis]) for axis in range(3)]
    np.testing.assert_allclose(wrist, np.transpose(expected), atol=1e-5)
    assert len(motion.rows) == round(0.5 / motion.step_s) + 1
    film = dataclasses.replace(clip, times_s=np.arange(FRAMES) * 1001 / 24000)
    for path in write_bvh(film, hands, tmp_path / "film"):
        motion = Motion(path)
        assert len(motion.rows) == FRAMES and motion.step_s == pytest.approx(1001 / 24000, abs=1e-7)
    assert write_bvh(none_of(clip), hands, tmp_path / "none") == []
