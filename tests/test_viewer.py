"""The viewer: results read back, the page that it writes, and what a browser makes of it."""

import base64
import dataclasses
import json
import logging
import re
import shutil
import struct
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
from official_files import write_official_folder
from scipy.spatial.transform import Rotation
from test_video_outputs import moving

from er_jax.commands import view as command
from er_jax.mano import HANDS, HandModel, load_hands
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.photographs.photograph import Photograph, PhotographCamera
from er_jax.photographs.result import Hand, Person, Reconstruction
from er_jax.rendering.overlays import write_image
from er_jax.utils.atomic_write import write_json
from er_jax.utils.errors import ConfigError, DataError, DiskError, NotFoundError
from er_jax.video.frames import written_video
from er_jax.video.parquet import rows_of, table_of, write_parquet
from er_jax.video.track import Clip, HandTrack
from er_jax.viewer import scene as scene_module
from er_jax.viewer.confidence import NOT_KNOWN, SURE_TO_UNSURE, UNSURE_M, joint_colours
from er_jax.viewer.geometry import picture_plane, plane_behind, views_of
from er_jax.viewer.live import LiveViewer, Timeline
from er_jax.viewer.page import STEP_M, thinned, write_page
from er_jax.viewer.pictures import pictures_of, with_times_of
from er_jax.viewer.result import Result, read_result
from er_jax.viewer.server import running_server

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("viser")

FRAMES, RATE = 24, 12.0
SIZE_PX = (640, 420)
CAMERA = PhotographCamera((520.0, 500.0), (290.0, 240.0), "given")  # not in the picture's middle
BOTH = 5
"""A frame with both hands."""
MARK_PX = (100, 300, 40, 30)
"""x, y, width, height of a green mark in the pictures."""
GREEN = (60, 160, 0)


@pytest.fixture(scope="module")
def hands() -> HandModel:
    return load_hands()


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A right hand that goes and comes back, a left one that comes late and leaves early."""
    away = np.setdiff1d(np.arange(FRAMES), np.arange(10, 15))
    return Clip(
        name="waving",
        size_px=SIZE_PX,
        times_s=np.arange(FRAMES) / RATE,
        camera=CAMERA,
        tracks=(
            in_sight(moving("right", away, 1), 0.1),
            in_sight(moving("left", np.arange(4, 21), 2), -0.1),
        ),
        hand_model="stand-in",
        messages=("Drawn, with 5 < 6 fingers.",),
    )


@pytest.fixture(scope="module")
def table(clip: Clip, hands: HandModel, tmp_path_factory) -> Path:
    """The clip's table, its video beside it."""
    folder = tmp_path_factory.mktemp("clip")
    write_parquet(clip, hands, folder / "wav&ing_hands.parquet", source="waving.mp4")
    with written_video(folder / "waving.mp4", RATE) as video:
        for frame, time_s in enumerate(clip.times_s):
            video.add(marked(frame), time_s)
    return folder / "wav&ing_hands.parquet"


@pytest.fixture(scope="module")
def picture(clip: Clip, hands: HandModel, tmp_path_factory) -> tuple[Path, Reconstruction]:
    """A picture's JSON, the picture beside it."""
    folder = tmp_path_factory.mktemp("picture")
    write_image(folder / "wave.png", marked())
    result = reconstruction(clip, hands, folder / "wave.png")
    write_json(folder / "wave_hands.json", result.to_dict())
    return folder / "wave_hands.json", result


def marked(frame: int = 0) -> np.ndarray:
    """A light grey picture with a green mark, a frame darker than the one before."""
    pixels = np.full((SIZE_PX[1], SIZE_PX[0], 3), 225 - 3 * frame, np.uint8)
    x, y, width, height = MARK_PX
    pixels[y : y + height, x : x + width] = GREEN
    return pixels


def in_sight(track: HandTrack, x_m: float) -> HandTrack:
    """A hand that stays in the picture, but for its turns."""
    some = 0.2 * (track.transl - track.transl.mean(0))
    return dataclasses.replace(track, transl=some + np.array([x_m, 0, 0.6]))


def reconstruction(clip: Clip, hands: HandModel, path: Path) -> Reconstruction:
    """The hands of one frame of a clip, as a picture's."""
    found = {}
    for track in clip.tracks:
        one = track.part(np.flatnonzero(track.frames == BOTH))
        vertices, joints = one.meshes(hands)
        pose = Rotation.from_matrix(one.rotations[0]).as_rotvec().ravel()
        found[track.side] = Hand(
            side=track.side,
            present=True,
            source="fit",
            score=None if track.side == "left" else 0.875,
            side_probability=None,
            vertices=vertices[0],
            joints=joints[0],
            joint_sigma_m=np.where(np.arange(21) == 3, np.nan, one.joint_sigma_m[0]),
            depth_sigma_m=float(one.depth_sigma_m[0]),
            keypoints_px=CAMERA.projection.project(joints[0]),
            detected_px=None if track.side == "left" else np.full((21, 2), 7.0),
            detected_confidence=None if track.side == "left" else np.full(21, 0.5),
            box_px=np.zeros(4),
            reprojection_px=0.0,
            explained=True,
            betas=one.betas[0],
            rotations=one.rotations[0],
            pose=pose,
            full_pose=pose,
            transl=one.transl[0],
        )
    return Reconstruction(
        photograph=Photograph(marked(), path, SIZE_PX),
        camera=CAMERA,
        persons=(Person(**found),),
        faces=np.asarray(hands.faces),
        messages=("Drawn.",),
        hand_model=hands.source,
        seconds=0.0,
    )


def shown(path: Path, **options) -> tuple[Result, object]:
    """A result with its pictures, as the command has them."""
    result = read_result(path, **options)
    pictures = pictures_of(result.path, result.clip, result.picture_name)
    return dataclasses.replace(result, clip=with_times_of(result.clip, pictures)), pictures


# Results read back


def test_a_table_gives_the_clip_again(clip, hands, table):
    result, pictures = shown(table)
    assert result.picture_name == "waving.mp4" and result.clip.messages == clip.messages
    for name in ("size_px", "camera", "hand_model"):
        assert getattr(result.clip, name) == getattr(clip, name), name
    np.testing.assert_allclose(result.clip.times_s, clip.times_s, atol=1e-4)
    assert [hand.label for hand in result.hands] == ["right", "left"]
    for expected, hand in zip(clip.tracks, result.hands, strict=True):
        assert (hand.track.person, hand.track.side) == (expected.person, expected.side)
        for field in dataclasses.fields(HandTrack):
            if field.name not in ("person", "side"):
                told = getattr(hand.track, field.name), getattr(expected, field.name)
                np.testing.assert_allclose(*told, atol=2e-6, rtol=1e-6, err_msg=field.name)
        vertices, joints = expected.meshes(hands)
        np.testing.assert_allclose(hand.vertices_m, vertices, atol=5e-6)
        np.testing.assert_allclose(hand.joints_m, joints, atol=5e-6)
        for frame in range(FRAMES):
            place = np.flatnonzero(expected.frames == frame)
            assert hand.at(frame) == (place[0] if len(place) else None)
    assert len(pictures.jpegs) == FRAMES and pictures.size_px == SIZE_PX
    assert pictures.pixels(3).shape[1] == 400


def test_a_table_alone_has_the_times_of_all_its_frames(clip, hands, tmp_path):
    """Frames without hands have no row; those after the last hand nobody knows."""
    middle = np.r_[3:7, 12:18]
    times = np.cumsum(np.linspace(0.03, 0.06, FRAMES))
    times = times - times[0]
    one = dataclasses.replace(clip, times_s=times, tracks=(moving("left", middle, 3),))
    write_parquet(one, hands, tmp_path / "a_hands.parquet")
    found = read_result(tmp_path).clip.times_s
    assert len(found) == 18 and (np.diff(found) > 0).all() and found[0] == 0
    np.testing.assert_allclose(found[middle], times[middle])
    np.testing.assert_allclose(np.diff(found[:4]), times[3] / 3)


def test_persons_keep_their_hands_apart(clip, hands, tmp_path):
    second = dataclasses.replace(in_sight(moving("right", np.arange(2, 9), 5), 0.0), person=1)
    both = dataclasses.replace(clip, tracks=(*clip.tracks, second))
    write_parquet(both, hands, tmp_path / "two_hands.parquet")
    found = read_result(tmp_path).hands
    assert [hand.label for hand in found] == ["1_right", "1_left", "2_right"]
    for hand, track in zip(found, both.tracks, strict=True):
        np.testing.assert_allclose(hand.vertices_m, track.meshes(hands)[0], atol=5e-6)


def test_a_pictures_json_gives_its_hands_again(picture):
    path, expected = picture
    result, pictures = shown(path)
    assert len(result.clip.times_s) == len(pictures.jpegs) == 1
    assert result.clip.camera == CAMERA and result.clip.size_px == SIZE_PX
    assert result.clip.messages == ("Drawn.",) and pictures.pixels(0).shape == marked().shape
    np.testing.assert_allclose(pictures.pixels(0)[315, 120], GREEN, atol=12)
    assert [hand.label for hand in result.hands] == ["right", "left"]
    for told, hand in zip(expected.hands, result.hands, strict=True):
        np.testing.assert_allclose(hand.vertices_m[0], told.vertices, atol=2e-6)
        np.testing.assert_allclose(hand.joints_m[0], told.joints, atol=2e-6)
        np.testing.assert_allclose(hand.track.joint_sigma_m[0], told.joint_sigma_m, atol=1e-7)
        np.testing.assert_allclose(hand.track.depth_sigma_m[0], told.depth_sigma_m, atol=1e-7)
    right, left = (hand.track for hand in result.hands)
    assert right.score[0] == 0.875 and np.isnan(left.score[0])
    assert (right.keypoints_px == 7).all() and (right.confidence == 0.5).all()
    assert np.isnan(left.keypoints_px).all() and np.isnan(left.confidence).all()


def test_one_of_several_sources_is_chosen(clip, hands, tmp_path):
    paths = []
    for name, track in zip(("one.mp4", "two.mp4"), clip.tracks, strict=True):
        one = dataclasses.replace(clip, tracks=(track,))
        write_parquet(one, hands, tmp_path / f"{name}.parquet", source=name)
        paths.append(pq.read_table(tmp_path / f"{name}.parquet"))
    both = tmp_path / "all_hands.parquet"
    pq.write_table(pa.concat_tables(paths), both)
    with pytest.raises(ConfigError, match=r"all_hands.*2 sources.*--source.*one\.mp4, two\.mp4"):
        read_result(both)
    with pytest.raises(ConfigError, match=r"no source 'three'.*--source.*one\.mp4, two\.mp4"):
        read_result(both, source="three")
    result = read_result(both, source="two.mp4")
    assert result.picture_name == "two.mp4"
    assert [hand.label for hand in result.hands] == ["left"]


def test_of_bulk_work_each_picture_of_a_file_is_a_source(clip, hands, tmp_path):
    rows = []
    for key, track in zip(("a.png", ""), clip.tracks, strict=True):
        table = rows_of(dataclasses.replace(clip, tracks=(track,)), hands, source="in.tar")
        rows.append(table.append_column("key", pa.array([key] * len(table))))
    path = tmp_path / "unit-0.parquet"
    pq.write_table(pa.concat_tables(rows), path)
    with pytest.raises(ConfigError, match=r"2 sources.*one of: in\.tar, in\.tar/a\.png"):
        read_result(path)
    assert [hand.label for hand in read_result(path, source="in.tar/a.png").hands] == ["right"]
    assert [hand.label for hand in read_result(path, source="in.tar").hands] == ["left"]


def test_a_folder_stands_for_the_only_result_in_it(table, picture, tmp_path):
    assert read_result(table.parent).path == table
    (tmp_path / "log.txt").touch()
    with pytest.raises(NotFoundError, match=r"no result in this folder: .*_hands\.parquet"):
        read_result(tmp_path)
    for file in (table, picture[0]):
        shutil.copy(file, tmp_path)
    several = r"2 results .* name one: wav&ing_hands\.parquet, wave_hands\.json"
    with pytest.raises(ConfigError, match=several):
        read_result(tmp_path)


def changed(path: Path, folder: Path, change) -> Path:
    """A copy of a JSON file with a change."""
    value = json.loads(path.read_text())
    change(value)
    (folder / path.name).write_text(json.dumps(value))
    return folder / path.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="x 2"), r"wave_hands\.json: format is 'x 2', not 'er_jax recon"),
        (lambda v: v.pop("camera"), r"a value is missing .*KeyError: 'camera'.*damaged"),
        (lambda v: v["persons"][0]["left"]["betas"].pop(), r"shape \(9,\) instead of \(10,\)"),
        (lambda v: v["persons"].clear(), "no hand was found in this picture"),
        (lambda v: v["camera"].update(focal_px=[0, 1]), r"focal_px \[0\.0, 1\.0\]"),
        (lambda v: v.update(hand_model="paw"), "hand_model is 'paw'.*release"),
        (
            lambda v: v["persons"][0]["right"]["joints_m"][9].__setitem__(1, 0.5),
            r"right: joints_m are \d+\.\d mm from .* make it again",
        ),
        (
            lambda v: v["persons"][0]["right"].update(transl_m=[None] * 3),
            r"right: joints_m are nan mm",
        ),
    ],
)
def test_json_that_is_no_result_is_told(picture, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_result(changed(picture[0], tmp_path, change))


def test_files_that_are_no_result_are_told(clip, hands, table, tmp_path):
    with pytest.raises(NotFoundError, match=r"none\.parquet: no such file: give a result"):
        read_result(tmp_path / "none.parquet")
    (tmp_path / "a_hands.glb").touch()
    with pytest.raises(DataError, match=r"a_hands\.glb: not a result .*_hands\.parquet"):
        read_result(tmp_path / "a_hands.glb")
    for ending, content in ((".json", b'{"format": '), (".parquet", table.read_bytes()[:-9])):
        (tmp_path / f"cut_hands{ending}").write_bytes(content)
        with pytest.raises(DataError, match=rf"cut_hands{ending}: cannot be read as .*damaged"):
            read_result(tmp_path / f"cut_hands{ending}")
    rows = pq.read_table(table)
    told = rows.schema.metadata

    def says(message: str, made: pa.Table) -> None:
        pq.write_table(made, tmp_path / "odd.parquet")
        with pytest.raises(DataError, match=rf"odd\.parquet: .*{message}"):
            read_result(tmp_path / "odd.parquet")

    says("er_jax.format is None, not 'er_jax hands 1'", rows.replace_schema_metadata({}))
    other = told | {b"er_jax.format": b"er_jax hands 9"}
    says("er_jax.format is 'er_jax hands 9'", rows.replace_schema_metadata(other))
    says("the columns betas are missing", rows.drop_columns(["betas"]))
    says("no hand was found in this clip", rows.slice(0, 0))
    says("two rows of one frame", pa.concat_tables([rows, rows.slice(3, 1)]))
    for name, value, message in (
        ("width_px", 7, "width_px changes within a source"),
        ("time_s", 99.0, "frame and time_s do not ascend together"),
        ("transl_m", 0.3, r"right: joints_m are \d+\.\d mm from"),
        ("handedness", "both", "handedness is neither"),
    ):
        columns = {key: array.copy() for key, array in arrays(rows).items()}
        columns[name][3] = value
        says(message, table_of(columns, hands=hands).replace_schema_metadata(told))


def arrays(rows: pa.Table) -> dict[str, np.ndarray]:
    from er_jax.video.parquet import arrays_of

    return arrays_of(rows)


def test_the_hand_model_has_to_be_the_files(clip, table, picture, tmp_path):
    (tmp_path / "mano").mkdir()
    left = stand_in_arrays("left")
    folder = write_official_folder(tmp_path / "mano", left | {"weights": left["weights"][:, ::-1]})
    for path in (table, picture[0]):
        with pytest.raises(ConfigError, match="are the stand-in hand's, not MANO's: leave --mano"):
            read_result(path, mano_dir=folder)
    asked = changed(picture[0], tmp_path, lambda value: value.update(hand_model="MANO files"))
    with pytest.raises(ConfigError, match="its hands are MANO's: give --mano_dir"):
        read_result(asked)
    models = load_hands(folder)
    own = dataclasses.replace(clip, hand_model=models.source)
    write_parquet(own, models, tmp_path / "mano_hands.parquet")
    result = read_result(tmp_path / "mano_hands.parquet", mano_dir=folder)
    np.testing.assert_allclose(
        result.hands[1].vertices_m, clip.tracks[1].meshes(models)[0], atol=5e-6
    )
    (tmp_path / "other").mkdir()
    other = write_official_folder(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"another hand model \(hand_model_sha256"):
        read_result(tmp_path / "mano_hands.parquet", mano_dir=other)


# Pictures


def test_a_picture_that_is_not_there_is_told_and_one_that_does_not_fit_is_not_shown(
    clip, hands, table, tmp_path, caplog
):
    write_parquet(clip, hands, tmp_path / "a_hands.parquet", source="a.mp4")
    result = read_result(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert pictures_of(result.path, result.clip, "a.mp4") is None
    assert re.search(r"a\.mp4 is not there, so no picture is shown; give --picture", caplog.text)
    video = table.with_name("waving.mp4")
    given = pictures_of(result.path, result.clip, "a.mp4", video)
    assert given is not None and len(given.jpegs) == FRAMES
    with written_video(tmp_path / "a.mp4", RATE) as writer:
        for time_s in clip.times_s[:20]:
            writer.add(marked(), time_s)
    message = r"a\.mp4: 20 frames, but hands were found in frame 23"
    with pytest.raises(DataError, match=message):
        pictures_of(result.path, result.clip, None, tmp_path / "a.mp4")
    caplog.clear()
    assert pictures_of(result.path, result.clip, "a.mp4") is None
    assert re.search(message, caplog.text)
    write_image(tmp_path / "tall.png", np.zeros((400, 300, 3), np.uint8))
    with pytest.raises(DataError, match=r"tall\.png: 300×400 px, but .* in 640×420 px"):
        pictures_of(result.path, result.clip, None, tmp_path / "tall.png")


# Where things are


def test_the_picture_stands_where_its_pixels_were_seen(clip, table):
    plane = picture_plane(CAMERA, SIZE_PX, 0.7)
    corners = CAMERA.projection.project(plane.corners_m)
    width, height = SIZE_PX
    edges = [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]]
    np.testing.assert_allclose(corners, edges, atol=1e-9)
    assert plane.frustum_m.shape == (8, 2, 3) and not plane.frustum_m[:4, 0].any()
    hands = read_result(table).hands
    behind = plane_behind(clip, hands)
    assert behind.middle_m[2] > max(hand.vertices_m[..., 2].max() for hand in hands)
    views = views_of(behind, hands)
    for aspect in (0.45, 1.0, 2.2):
        half = np.tan(views["camera"].fov(aspect) / 2)
        rays = np.abs(behind.corners_m[:, :2] / behind.corners_m[:, 2:])
        assert (rays <= [half * aspect, half]).all() and rays.max() > 0.6 * min(half, half * aspect)
    assert views["camera"].look_at_m[:2] == (0, 0) and views["camera"].position_m == (0, 0, 0)
    side = np.subtract(views["side"].position_m, views["side"].look_at_m)
    assert side[0] > 2 * np.abs(side[1:]).max()
    assert views["hands"].fov(1) < views["camera"].fov(1)


def test_a_joint_has_the_colour_of_its_sigma():
    colours = joint_colours(np.array([0, UNSURE_M, 9, np.nan, UNSURE_M / 6]))
    assert colours[0].tolist() == list(SURE_TO_UNSURE[0])
    assert colours[1].tolist() == colours[2].tolist() == list(SURE_TO_UNSURE[-1])
    assert colours[3].tolist() == list(NOT_KNOWN)
    half = np.add(SURE_TO_UNSURE[0], SURE_TO_UNSURE[1]) / 2
    np.testing.assert_allclose(colours[4], half, atol=1)


def test_frames_are_thinned_to_a_rate():
    assert thinned(np.arange(90) / 30, 10).tolist() == list(range(0, 90, 3))
    added_up = np.cumsum(np.full(900, 1 / 30))
    assert thinned(added_up, 10).tolist() == list(range(0, 900, 3))
    assert thinned(np.arange(90) / 29.97, 10).tolist()[:4] == [0, 3, 6, 9]
    assert thinned(np.arange(7) / 5, 10).tolist() == list(range(7))
    assert thinned(np.array([0.0, 0.01, 0.5, 0.52, 0.6]), 10).tolist() == [0, 2, 4]
    assert thinned(np.zeros(1), 10).tolist() == [0]


class Control:
    """A slider, a button or a list, as far as `Timeline` knows them."""

    def __init__(self, value=None):
        self.value, self.label = value, ""

    def on_update(self, called):
        self.update = called

    on_click = on_update


def test_the_timeline_plays_in_a_loop_and_goes_where_the_slider_is_put():
    made = {}

    class Gui:
        def add_slider(self, name, least, most, step, value):
            assert (least, most, step) == (0, 4, 1)
            return made.setdefault(name, Control(value))

        def add_button(self, name):
            return made.setdefault("button", Control())

        def add_dropdown(self, name, options, initial_value):
            assert initial_value in options
            return made.setdefault(name, Control(initial_value))

    seen: list[int] = []
    timeline = Timeline(Gui(), np.array([0.0, 0.1, 0.2, 0.6, 0.7]), seen.append)
    timeline.advance(0.15)
    assert seen == []  # it does not play yet
    made["button"].update(None)
    for seconds in (0.15, 0.04, 0.2, 0.25, 0.12, 0.2):
        timeline.advance(seconds)
    assert seen == [1, 2, 3, 4, 0] and made["button"].label == "Pause"
    made["button"].update(None)
    made["Frame"].value = 3
    made["Frame"].update(type("Event", (), {"client": object()}))
    timeline.advance(9.0)
    assert seen[5:] == [3] and made["button"].label == "Play"
    made["button"].update(None)
    made["Speed"].value = "2×"
    timeline.advance(0.06)  # from 0.6 s
    assert seen[6:] == [4]


# The page


@pytest.fixture(scope="module")
def pages(table, picture, tmp_path_factory) -> dict[str, Path]:
    """The pages of the clip and of the picture, as the command writes them."""
    folder = tmp_path_factory.mktemp("pages")
    for name, path in (("clip", table), ("picture", picture[0])):
        assert command.main([str(path), "--html", str(folder / "new" / f"{name}.html")]) == 0
    made = {path.stem: path for path in (folder / "new").iterdir()}
    assert sorted(made) == ["clip", "picture"]
    return made


def recording(page: Path) -> tuple[float, list[tuple[float, dict]], list[bytes]]:
    """What a page shows: seconds, messages with their times, and the arrays that they name."""
    import msgspec
    import zstandard

    (data,) = re.findall(r'__VISER_EMBED_DATA__="([^"]+)"', page.read_text("utf-8"))
    packed = base64.b64decode(data)
    (size,) = struct.unpack("<Q", packed[:8])
    inner = zstandard.ZstdDecompressor().decompress(packed[8:], max_output_size=size)
    (length,) = struct.unpack("<Q", inner[:8])
    told = msgspec.msgpack.decode(inner[8 : 8 + length])
    at, buffers = 8 + length, []
    for size in told["binaryBufferLengths"]:
        at += -at % 8
        buffers.append(inner[at : at + size])
        at += size
    return told["durationSeconds"], told["messages"], buffers


def test_the_page_has_every_frames_hands_at_its_time(clip, table, pages):
    seconds, messages, buffers = recording(pages["clip"])
    result, _ = shown(table)
    kept = thinned(result.clip.times_s, 10.0)
    assert seconds == pytest.approx(result.clip.times_s[kept[-1]] + 1 / RATE, abs=0.06)

    def array(value) -> np.ndarray:
        return np.frombuffer(buffers[value["__binary_index"]], value["dtype"]).reshape(-1, 3)

    for hand in result.hands:
        mesh, skin = f"/meshes/{hand.label}", f"/meshes/{hand.label}/skin"
        joints = f"/joints/{hand.label}/joints"
        state: dict[str, object] = {}
        waiting = list(messages)
        for frame in kept:
            while waiting and waiting[0][0] <= result.clip.times_s[frame] + 1e-6:
                message = waiting.pop(0)[1]
                if message.get("name") in (mesh, skin, joints):
                    key = message["name"], message["type"]
                    told = message.get("updates") or message.get("props") or message
                    state |= {(*key[:1], name): value for name, value in told.items()}
            place = hand.at(frame)
            assert state[mesh, "visible"] == (place is not None), (frame, hand.label)
            if place is not None:
                found = array(state[skin, "vertices"]) + np.array(state[mesh, "position"])
                assert np.abs(found - hand.vertices_m[place]).max() < 0.51 * STEP_M
                points = array(state[joints, "batched_positions"])
                np.testing.assert_allclose(points, hand.joints_m[place], atol=1e-6)
                colours = array(state[joints, "batched_colors"])
                expected = joint_colours(hand.track.joint_sigma_m[place])
                np.testing.assert_array_equal(colours, expected)


def test_the_page_has_every_frames_picture(clip, pages):
    _, messages, buffers = recording(pages["clip"])
    kept = thinned(clip.times_s, 10.0)
    greys = []
    for _, message in messages:
        if message.get("name") == "/camera/picture":
            value = (message.get("updates") or message.get("props") or {}).get("_data")
            if value is not None:
                data = value if isinstance(value, bytes) else buffers[value["__binary_index"]]
                greys.append(cv2.imdecode(np.frombuffer(data, np.uint8), 0)[:40].mean())
    np.testing.assert_allclose(greys, 225 - 3 * kept, atol=2.5)


def test_the_page_says_what_is_known(clip, pages, picture):
    text = pages["clip"].read_text("utf-8")
    head = text[: text.index("<script")]
    assert "<title>wav&amp;ing</title>" in head and "default-src 'none'" in head
    assert (
        "http" not in re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', head)[0]
    )
    legend = text[text.index('<details id="er_jax"') :]
    assert "Drawn, with 5 &lt; 6 fingers." in legend and "30 mm and more" in legend
    seen = [int((~track.filled).sum()) for track in clip.tracks]
    assert f"<td>right</td><td>{seen[0]} of 24</td>" in legend
    assert f"<td>left</td><td>{seen[1]} of 24</td>" in legend
    legend = pages["picture"].read_text("utf-8").split('<details id="er_jax"')[1]
    sigma = 1000 * np.nanmedian(picture[1].hands[0].joint_sigma_m[1:])
    assert f"<td>right</td><td>0.88</td><td>{sigma:.0f} mm</td>" in legend
    assert "<td>left</td><td>–</td>" in legend
    licence = metadata.distribution("viser").read_text("licenses/LICENSE")
    assert "Made with viser" in legend and licence in legend
    assert pages["picture"].stat().st_size < 1.2e6


def test_a_page_that_cannot_be_written_is_told(picture, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    result, pictures = shown(picture[0])
    with pytest.raises(DiskError, match=r"a\.html: cannot be written"):
        write_page(result, pictures, tmp_path / "file" / "a.html")
    kept = tmp_path / "a.html"
    kept.write_text("before")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskError, match="no room"):
        write_page(result, pictures, kept)
    assert [path.name for path in tmp_path.iterdir() if "a.html" in path.name] == ["a.html"]
    assert kept.read_text() == "before"


def refuse(*_) -> None:
    raise OSError("no room")


def test_without_viser_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ConfigError, match=r"pip install 'er_jax\[view\]'"):
        scene_module.viser_module()


def test_a_port_that_is_taken_is_told():
    with running_server() as server:
        port = server.get_port()
        with pytest.raises(ConfigError, match=rf"port {port}: cannot be had .*--port"):
            running_server("127.0.0.1", port).__enter__()
        with running_server() as second:
            assert second.get_port() != port


# In a browser


@pytest.fixture(scope="module")
def browser():
    """Chromium without a network of its own."""
    api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    options = (
        *("--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--no-first-run"),
        *("--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-sync"),
        "--disable-component-update",
    )
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(options))
        yield started
        started.close()


@dataclasses.dataclass
class Opened:
    """A page of the browser, and all that it asked for."""

    page: object
    requests: list[str]
    errors: list[str]

    def seen(self) -> np.ndarray:
        """RGB of the canvas, as it is now."""
        data = self.page.screenshot()
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)

    def until(self, holds, seconds: float = 120) -> np.ndarray:
        """A picture of which something holds, as of the one half a second before."""
        ends = time.monotonic() + seconds
        times = 0
        while times < 2:
            assert time.monotonic() < ends, "the page never showed it"
            time.sleep(0.5)
            times = times + 1 if holds(pixels := self.seen()) else 0
        return pixels


@pytest.fixture
def opened(browser):
    """Opens an address in a window of this size, without what lies over the canvas."""
    pages = []

    def open_page(address: str, size: tuple[int, int] = (800, 600), over: bool = False) -> Opened:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        pages.append(page)
        made = Opened(page, [], [])
        page.on("request", lambda request: made.requests.append(request.url))
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.goto(address)
        if not over:
            page.add_style_tag(content="#er_jax, .mantine-Notifications-root {display: none}")
        page.wait_for_selector("canvas")
        return made

    yield open_page
    for page in pages:
        page.close()


def amber(pixels: np.ndarray) -> np.ndarray:
    """Where the right hand is, but for what is drawn in it."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return (red - green > 10) & (green - blue > 10)


def blue(pixels: np.ndarray) -> np.ndarray:
    """Where the left hand is, but for what is drawn in it."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return (blue - green > 10) & (green - red > 10)


def green(pixels: np.ndarray) -> np.ndarray:
    """Where the picture's mark is, but for what lies over it."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return (green - red > 60) & (green - blue > 60)


def turned(pixels: np.ndarray) -> bool:
    """Whether the picture's mark, wider than high, is seen from the side."""
    rows, columns = np.nonzero(green(pixels))
    return len(rows) > 20 and bool(np.ptp(columns) < 0.8 * np.ptp(rows))


def silhouette(vertices_m, faces, centre_px, focal_px, size_px) -> np.ndarray:
    """Where a window shows a mesh, by its triangles."""
    points = vertices_m[:, :2] / vertices_m[:, 2:] * focal_px + centre_px
    mask = np.zeros(size_px[::-1], np.uint8)
    for triangle in points[faces]:
        cv2.fillPoly(mask, [np.round(triangle * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def test_the_page_of_a_picture_shows_the_hands_over_it(opened, pages, picture):
    size = (800, 600)
    found = opened(pages["picture"].as_uri(), size)
    pixels = found.until(lambda p: green(p).sum() > 100 and amber(p).any() and blue(p).any())
    result, _ = shown(picture[0])
    plane = plane_behind(result.clip, result.hands)
    view = views_of(plane, result.hands)["camera"]
    centre = np.array(size) / 2
    focal = size[1] / 2 / np.tan(view.fov(size[0] / size[1]) / 2)
    masks = {
        hand.track.side: silhouette(
            hand.vertices_m[0], result.faces[HANDS.index(hand.track.side)], centre, focal, size
        )
        for hand in result.hands
    }
    hidden = masks["right"] & masks["left"]
    for side, found_there in (("right", amber(pixels)), ("left", blue(pixels))):
        both = (found_there & masks[side]).sum()
        assert both > 0.97 * found_there.sum(), side
        assert both > 0.8 * (masks[side] & ~hidden).sum(), side  # bones and a label are over it

    scale = focal / np.array(CAMERA.focal_px)
    x, y, width, height = MARK_PX
    low = (np.array([x, y]) - 0.5 - CAMERA.principal_point_px) * scale + centre
    high = (np.array([x + width, y + height]) - 0.5 - CAMERA.principal_point_px) * scale + centre
    rows, columns = np.nonzero(green(pixels))
    assert np.abs([columns.min() - low[0], columns.max() + 1 - high[0]]).max() < 3
    assert np.abs([rows.min() - low[1], rows.max() + 1 - high[1]]).max() < 3
    assert not found.errors


def test_the_page_asks_nobody_for_anything(opened, pages):
    found = opened(pages["clip"].as_uri(), over=True)
    found.until(lambda p: amber(p).any())
    assert len(found.requests) > 1  # the pictures, by blob:
    assert {re.split("[:/]", url)[0] for url in found.requests} <= {"file", "data", "blob"}
    refused = found.page.evaluate(
        """() => new Promise((resolve) => {
          addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
          fetch("http://127.0.0.1:9/outside").catch(() => setTimeout(() => resolve("tried"), 500));
        })"""
    )
    assert refused.startswith("http://127.0.0.1:9")
    assert not [url for url in found.requests if url.startswith("http")]
    assert found.page.title() == "wav&ing" and not found.errors
    assert found.page.locator("#er_jax").get_attribute("open") is not None


def test_the_page_of_a_clip_has_a_timeline_and_hands_come_and_go(opened, pages):
    found = opened(pages["clip"].as_uri(), (420, 640))
    time_s = found.page.locator("input").first
    for at, right, left in (("0.1", True, False), ("1.0", False, True), ("1.5", True, True)):
        time_s.fill(at)
        time_s.press("Enter")
        wanted = (right, left)
        found.until(lambda p: (amber(p[:590]).any(), blue(p[:590]).any()) == wanted)  # noqa: B023
    assert found.page.locator("#er_jax").get_attribute("open") is None  # on a phone
    side = opened(pages["clip"].as_uri() + "?view=side")
    side.until(lambda p: amber(p).any() and turned(p))
    assert not found.errors and not side.errors


def test_the_live_viewer_hides_what_is_not_wanted_and_turns(opened, table):
    result, pictures = shown(table)
    with running_server() as server:
        viewer = LiveViewer(server, result, pictures)
        playing = threading.Thread(target=viewer.play, args=(60,), daemon=True)
        playing.start()
        address = f"http://127.0.0.1:{server.get_port()}"
        found = opened(address, (1100, 700))
        page = found.page
        found.until(lambda p: amber(p[:, :700]).any() and not blue(p[:, :700]).any())
        # The window is narrower since the panel is there, and the picture still whole in it.
        pixels = found.until(lambda p: (np.abs(p[:, 1].astype(int) - 255) < 3).all())
        rows, columns = np.nonzero(green(pixels))
        assert rows.mean() > 350 and columns.mean() < np.nonzero(amber(pixels[:, :700]))[1].mean()
        assert "frame 0 of 0 to 23, 0.00 s" in page.content()
        page.get_by_role("textbox").first.fill("12")
        page.get_by_role("textbox").first.press("Enter")
        found.until(lambda p: blue(p[:, :700]).sum() > 200 and not amber(p[:, :700]).any())
        assert "frame 12 of 0 to 23, 1.00 s" in page.content()
        page.get_by_text("Side", exact=True).click()
        found.until(lambda p: turned(p[:, :700]))
        for name in ("Meshes", "Joints", "Scores"):
            page.get_by_text(name, exact=True).click()
        found.until(lambda p: not blue(p[:, :700]).any())
        assert {re.split("/", url)[2] for url in found.requests if url.startswith("http")} == {
            address.removeprefix("http://")
        }
        assert not found.errors
