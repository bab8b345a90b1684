"""Clips: frames in and out, hands followed with one identity, work that goes on after a kill."""

import dataclasses
import json
import shutil
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_hands import FOCAL, MIDDLE, drawn
from test_photographs import SIZE, detected

from er_jax.commands import clips, photographs
from er_jax.commands.webcam import run_live
from er_jax.detection import DetectedHand
from er_jax.detection.types import box_around
from er_jax.mano import load_hands
from er_jax.photographs.engine import Engine
from er_jax.utils.errors import BadImageError, ConfigError
from er_jax.video import chunks
from er_jax.video.following import follow_clip
from er_jax.video.frames import Frame, Frames, in_background, written_video
from er_jax.video.live import LiveHands, Viewer, Webcam
from er_jax.video.observations import Observations, settled
from er_jax.video.reconstruct import KEY_EVERY, Item, keys_of, reconstruct_clip
from er_jax.video.tracking import Tracker

TRUTH = drawn(1, (0, 1), seed=7)
HANDS = detected(TRUTH)


def moved(hand: DetectedHand, by: tuple[float, float], **changes) -> DetectedHand:
    points = hand.keypoints_px + np.array(by)
    return dataclasses.replace(hand, keypoints_px=points, box_px=box_around(points), **changes)


def frame_of(index: int) -> np.ndarray:
    """An image that tells which one it is."""
    return np.full((SIZE[1], SIZE[0], 3), index % 256, np.uint8)


class Script:
    """A detector that knows the hands of every frame, and follows them by nearness.

    What is told by a frame's grey value is the frame's number.
    """

    def __init__(self, frames: list[list[DetectedHand]]):
        self.frames = frames
        self.searched: list[int] = []

    def __call__(self, image: np.ndarray) -> list[DetectedHand]:
        self.searched.append(number_of(image))
        return self.frames[number_of(image)]

    def follow(self, image: np.ndarray, keypoints_px: np.ndarray) -> list[DetectedHand | None]:
        hands = self.frames[number_of(image)]

        def nearest(points: np.ndarray) -> DetectedHand | None:
            def apart(hand: DetectedHand) -> float:
                return float(np.linalg.norm(hand.keypoints_px - points, axis=1).mean())

            return min(hands, key=apart, default=None)

        return [nearest(points) for points in keypoints_px]


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()))


def followed(frames: list[list[DetectedHand]], **options) -> tuple[list[set], Tracker]:
    """Persons and sides in each frame, and the tracker."""
    tracker = Tracker(Script(frames), **options)
    found = [tracker(frame_of(i)) for i in range(len(frames))]
    return [{(h.person, h.detected.side) for h in hands} for hands in found], tracker


BOTH = {(0, "right"), (0, "left")}
DRIFT = [(1.5 * i, 0.5 * i) for i in range(60)]


def test_hands_are_searched_once_and_followed_then():
    found, tracker = followed([[moved(hand, by) for hand in HANDS] for by in DRIFT[:40]])
    assert found == [BOTH] * 40
    assert tracker.searches == 3  # the first frame, and every 15


def test_without_following_every_frame_is_searched():
    script = Script([[moved(hand, by) for hand in HANDS] for by in DRIFT[:5]])
    tracker = Tracker(script.__call__)
    assert [len(tracker(frame_of(i))) for i in range(5)] == [2] * 5
    assert script.searched == list(range(5))


def test_a_doubt_of_a_few_frames_flips_no_side():
    frames = []
    for i, by in enumerate(DRIFT):
        wrong = {"side": "left", "side_probability": 0.95} if 20 <= i < 25 else {}
        frames.append([moved(HANDS[0], by, **wrong)])
    found, _ = followed(frames)
    assert found == [{(0, "right")}] * 60


def test_a_side_that_began_wrong_is_put_right_by_more_evidence():
    frames = []
    for i, by in enumerate(DRIFT):
        wrong = {"side": "left", "side_probability": 0.95} if i < 3 else {}
        frames.append([moved(HANDS[0], by, **wrong)])
    found, _ = followed(frames)
    assert found[0] == {(0, "left")} and found[-1] == {(0, "right")}


@pytest.mark.parametrize("gone", [0, 1])
def test_a_hand_that_comes_back_is_the_same_hand(gone):
    frames = []
    for i, by in enumerate(DRIFT):
        hands = [moved(hand, by) for hand in HANDS]
        if 10 <= i < 40:
            del hands[gone]
        frames.append(hands)
    found, _ = followed(frames)
    assert found[9] == BOTH and found[-1] == BOTH
    assert found[20] == {(0, "left" if gone == 0 else "right")}


def test_all_hands_gone_for_a_while_are_the_same_person_s():
    frames = [[] if 10 <= i < 40 else list(HANDS) for i in range(60)]
    found, _ = followed(frames)
    assert found[20] == set() and found[-1] == BOTH


def test_where_both_are_followed_to_one_hand_the_other_one_is_lost():
    """As where the one goes behind the other."""
    frames = []
    for i in range(60):
        right, left = HANDS
        apart = left.keypoints_px.mean(0) - right.keypoints_px.mean(0)
        by = apart * min(i, 30) / 30 * 0.98
        hands = [moved(right, tuple(by)), left]
        frames.append(hands if i < 25 else [left])
    found, _ = followed(frames)
    assert found[-1] == {(0, "left")}


def test_another_person_has_another_number():
    others = [moved(hand, (0.0, 500.0)) for hand in HANDS]
    frames = [list(HANDS) + (others if i >= 10 else []) for i in range(20)]
    found, _ = followed(frames)
    assert found[0] == BOTH
    assert found[-1] == BOTH | {(1, "right"), (1, "left")}


def test_a_hand_does_not_jump_across_the_picture():
    far = moved(HANDS[0], (400.0, 0.0))
    found, _ = followed([[HANDS[0]]] * 5 + [[far]] * 1)
    tracker = Tracker(Script([[HANDS[0]]] * 5 + [[far]]))
    hands = [tracker(frame_of(i)) for i in range(6)]
    assert found[4] == {(0, "right")}
    # It is found by a search as what came back, not followed.
    assert tracker.searches >= 2 and len(hands[5]) == 1


def test_a_tracker_goes_on_from_its_state():
    frames = [[moved(hand, by) for hand in HANDS] for by in DRIFT]
    whole = Tracker(Script(frames))
    expected = [whole(frame_of(i)) for i in range(60)]
    first, second = Tracker(Script(frames)), Tracker(Script(frames))
    for i in range(25):
        first(frame_of(i))
    second.restore(first.state())
    for i in range(25, 60):
        for one, other in zip(second(frame_of(i)), expected[i], strict=True):
            assert one.person == other.person
            np.testing.assert_array_equal(one.detected.keypoints_px, other.detected.keypoints_px)
            assert one.detected.side_probability == pytest.approx(other.detected.side_probability)
    assert second.searches == whole.searches


# Sides of a whole clip


def observations(sides, rights, middles, person=0) -> Observations:
    """One frame after the other; of each, sides, probabilities of a right hand, and places."""
    rows = [
        (frame, side, right, middle)
        for frame, some in enumerate(zip(sides, rights, middles, strict=True))
        for side, right, middle in zip(*some, strict=True)
    ]
    points = HANDS[0].keypoints_px - HANDS[0].keypoints_px.mean(0)
    count = len(rows)
    return Observations(
        times_s=np.arange(len(sides)) / 30,
        size_px=SIZE,
        frame=np.array([row[0] for row in rows]),
        person=np.full(count, person),
        side=np.array([row[1] for row in rows]),
        right=np.array([row[2] for row in rows], float),
        score=np.ones(count),
        keypoints_px=np.stack([points + np.array([row[3], 0.0]) for row in rows]),
        confidence=np.ones((count, 21)),
        joints_m=np.zeros((count, 21, 3)),
    )


def crossing(swapped: range, near: range, count: int = 60) -> Observations:
    sides, rights, middles = [], [], []
    for i in range(count):
        order = (1, 0) if i in swapped else (0, 1)
        sides.append(order)
        rights.append((0.9, 0.1))
        middles.append((0.0, 20.0) if i in near else (0.0, 600.0))
    return observations(sides, rights, middles)


def test_hands_taken_for_each_other_where_they_were_near_are_put_right():
    seen = crossing(swapped=range(20, 34), near=range(18, 36))
    right = settled(seen)
    assert (seen.side != np.tile([0, 1], 60)).any()
    np.testing.assert_array_equal(right.side, np.tile([0, 1], 60))


def test_a_hand_that_was_followed_to_the_lost_one_s_place_is_put_right():
    """Both; the left one alone; it is followed to the right one; both, exchanged; both."""
    sides, rights, middles = [], [], []
    for i in range(60):
        if 20 <= i < 30:
            sides.append((1,))
            rights.append((0.1 if i < 25 else 0.9,))
            middles.append((600.0 if i < 25 else 0.0,))
        else:
            exchanged = 30 <= i < 36
            sides.append((1, 0) if exchanged else (0, 1))
            rights.append((0.9, 0.1))
            middles.append((0.0, 600.0))
    right = settled(observations(sides, rights, middles))
    expected = [side for some in rights for side in [0 if right > 0.5 else 1 for right in some]]
    np.testing.assert_array_equal(right.side, expected)


def test_hands_that_never_were_near_keep_their_sides_whatever_a_few_frames_say():
    seen = crossing(swapped=range(0), near=range(0))
    doubted = seen.right.copy()
    doubted[40:60] = 1 - doubted[40:60]  # ten frames
    np.testing.assert_array_equal(
        settled(dataclasses.replace(seen, right=doubted)).side, np.tile([0, 1], 60)
    )


def test_a_clip_that_was_followed_the_wrong_way_round_is_turned():
    seen = crossing(swapped=range(60), near=range(0))
    np.testing.assert_array_equal(settled(seen).side, np.tile([0, 1], 60))


def test_a_hand_of_a_moment_is_none():
    sides = [(0, 1) if i in (10, 11) else (0,) for i in range(30)]
    rights = [(0.9, 0.1) if i in (10, 11) else (0.9,) for i in range(30)]
    middles = [(0.0, 600.0) if i in (10, 11) else (0.0,) for i in range(30)]
    assert set(settled(observations(sides, rights, middles)).side) == {0}


def test_every_frame_starts_from_one_that_was_fitted_from_nothing():
    """Not far away, and with all of its hands."""
    sides = [(0,) if 20 <= i < 30 or i > 50 else (0, 1) for i in range(60)]
    rights = [tuple(0.9 - 0.8 * side for side in some) for some in sides]
    seen = observations(sides, rights, [tuple(600.0 * side for side in some) for some in sides])
    rows = [tuple(np.flatnonzero(seen.frame == i)) for i in range(60) if i != 40]
    items = [Item(int(seen.frame[own[0]]), 0, own) for own in rows]
    keys = keys_of(items, seen.side)
    assert len(keys) <= 60 / KEY_EVERY + 2
    for item in items:
        near = [key for key in keys if abs(key.frame - item.frame) < KEY_EVERY]
        assert any({*seen.side[[*item.rows]]} <= {*seen.side[[*key.rows]]} for key in near)


# Files


def test_a_video_is_read_as_it_was_written(tmp_path):
    pytest.importorskip("av")
    shades = [40, 90, 140, 190]
    times = [0.0, 0.1, 0.15, 0.4]
    with written_video(tmp_path / "a.mp4", 20.0) as video:
        for shade, time in zip(shades, times, strict=True):
            video.add(np.full((51, 65, 3), shade, np.uint8), time)  # odd: a row and a column less
    frames = list(Frames.of(tmp_path / "a.mp4"))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=1e-3)
    np.testing.assert_allclose([frame.pixels.mean() for frame in frames], shades, atol=3)
    assert frames[0].pixels.shape == (50, 64, 3)
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("matrix", "bright"),
    [
        (
            (0, 1, -1, 0),
            (slice(0, 30), slice(-20, None)),
        ),  # a quarter clockwise, as phones store it
        ((-1, 0, 0, -1), (slice(-20, None), slice(-30, None))),
        ((0, -1, 1, 0), (slice(-30, None), slice(0, 20))),
    ],
)
def test_a_video_is_turned_as_its_camera_was_held(tmp_path, matrix, bright):
    pytest.importorskip("av")
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[:24, :32] = 220
    with written_video(tmp_path / "a.mp4", 20.0) as video:
        for i in range(3):
            video.add(picture, i / 20)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.index(b"tkhd") + 44  # of the track's matrix: a b u c d v x y w
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    first = next(iter(Frames.of(tmp_path / "a.mp4"))).pixels
    assert first.shape[:2] == ((64, 48) if a == 0 else (48, 64))
    rows, columns = bright
    assert first[rows, columns].mean() > 200
    assert first.mean() < 90


def test_a_video_that_fails_leaves_the_one_before(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), written_video(tmp_path / "a.mp4", 20.0) as video:
        video.add(np.zeros((16, 16, 3), np.uint8), 0.0)
        raise KeyboardInterrupt
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_what_is_whole_of_a_video_cut_short_is_read(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        random = np.random.default_rng(0)
        for _ in range(40):
            pixels = random.integers(0, 256, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data[: len(data) // 2])
    assert 5 < len(list(Frames.of(tmp_path / "a.ts"))) < 40


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no video", "not a video"), (b"", "not a video"), (None, "no such file")],
)
def test_what_is_no_video_is_named(tmp_path, content, said):
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadImageError, match=said):
        Frames.of(path)


def test_frames_of_a_folder_come_by_their_numbers(tmp_path):
    from PIL import Image

    for number in (2, 10, 1):
        Image.new("L", (32, 24), number).save(tmp_path / f"frame{number}.png")
    frames = list(Frames.of(tmp_path, frame_rate=10.0))
    assert [number_of(frame.pixels) for frame in frames] == [1, 2, 10]
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.1, 0.2])
    Image.new("L", (32, 25)).save(tmp_path / "frame11.png")
    with pytest.raises(BadImageError, match="frame 3 has 32×25"):
        list(Frames.of(tmp_path))


def test_the_background_hands_over_what_went_wrong_and_ends_when_nobody_reads():
    def failing():
        yield 1
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        list(in_background(failing, 2))
    made = []

    def endless():
        for i in range(10**6):
            made.append(i)
            yield i

    items = in_background(endless, 2)
    assert next(items) == 0
    items.close()
    assert len(made) < 10


# A whole clip


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """Twelve frames, each of the shade of its number."""
    from PIL import Image

    (tmp_path / "clip").mkdir()
    for i in range(12):
        Image.fromarray(frame_of(i)).save(tmp_path / f"clip/{i}.png")
    return tmp_path / "clip"


def script() -> Script:
    frames = [[moved(hand, by) for hand in HANDS] for by in DRIFT[:12]]
    frames[6] = [frames[6][0]]
    return Script(frames)


CAMERA = {"focal_px": tuple(FOCAL), "principal_point_px": tuple(MIDDLE)}


def test_the_hands_of_a_clip_are_those_that_were_seen(clip_folder):
    engine = Engine(load_hands(), detector=None)
    clip = reconstruct_clip(clip_folder, engine, lambda: Tracker(script()), **CAMERA)
    assert [(track.person, track.side) for track in clip.tracks] == [(0, "right"), (0, "left")]
    for side, track in enumerate(clip.tracks):
        assert track.frames.tolist() == list(range(12))
        assert np.flatnonzero(track.filled).tolist() == ([] if side == 0 else [6])
        _, joints = track.meshes(engine.hand_model)
        seen = joints[..., :2] / joints[..., 2:] * FOCAL + MIDDLE
        expected = TRUTH.keypoints[0, side] + np.array(DRIFT[:12])[:, None]
        assert np.linalg.norm(seen - expected, axis=-1).mean() < 4
        assert (track.betas == track.betas[0]).all()
    raw = reconstruct_clip(clip_folder, engine, lambda: Tracker(script()), smoothed=False, **CAMERA)
    assert len(raw.tracks[1]) == 11
    assert (raw.tracks[0].betas != raw.tracks[0].betas[0]).any()


DECODE = """
import sys
from pathlib import Path
from er_jax.video.frames import Frames
for _ in range(40):
    assert sum(1 for _ in Frames.of(Path(sys.argv[1])).part(0, 10).read_ahead()) == 10
"""


def test_a_damaged_clip_that_is_left_midway_does_not_hang(tmp_path):
    """What its decoder's threads complain of must not wait for Python, which waits for them."""
    path = tmp_path / "clip.mp4"
    random = np.random.default_rng(0)
    with written_video(path, 20) as video:
        for index in range(60):
            video.add(random.integers(0, 255, (400, 512, 3), np.uint8), index / 20)
    data = bytearray(path.read_bytes())
    for place in random.integers(5000, len(data) - 20000, 400):
        data[place] ^= 0x5A
    path.write_bytes(data)
    command = [sys.executable, "-c", DECODE, str(path)]
    said = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120
    )
    assert (said.returncode, said.stderr) == (0, "")


def test_a_part_of_a_clip_has_its_own_numbers_and_the_clip_s_times(tmp_path):
    path = tmp_path / "clip.mp4"
    with written_video(path, 20) as video:
        for index in range(9):
            video.add(np.full((32, 48, 3), 25 * index, np.uint8), index / 20)
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(9):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((32, 48, 3), 25 * index, np.uint8))
    for frames in (Frames.of(path), Frames.of(folder, frame_rate=20)):
        for first, count, expected in ((0, 3, [0, 1, 2]), (5, 3, [5, 6, 7]), (7, 0, [7, 8])):
            part = frames.part(first, count)
            found = list(part.read_ahead())
            assert [frame.index for frame in found] == list(range(len(expected)))
            np.testing.assert_allclose([frame.time_s for frame in found], np.array(expected) / 20)
            means = [frame.pixels.mean() for frame in found]
            np.testing.assert_allclose(means, 25 * np.array(expected), atol=4)
            assert part.count == len(expected)
        assert not list(frames.part(20, 3))


def test_a_killed_call_goes_on_and_ends_the_same(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 5)
    engine = Engine(load_hands(), detector=None)
    whole = reconstruct_clip(clip_folder, engine, lambda: Tracker(script()), **CAMERA)
    keep, kept = chunks.keep, []

    def dies_after(folder, number, chunk):
        if len(kept) in (1, 4):
            kept.append(None)
            raise KeyboardInterrupt
        keep(folder, number, chunk)
        kept.append((folder.name, number))

    monkeypatch.setattr(chunks, "keep", dies_after)
    scripts = []

    def tracker() -> Tracker:
        scripts.append(script())
        return Tracker(scripts[-1])

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reconstruct_clip(clip_folder, engine, tracker, folder=tmp_path / "work", **CAMERA)
    clip = reconstruct_clip(clip_folder, engine, tracker, folder=tmp_path / "work", **CAMERA)
    for one, other in zip(clip.tracks, whole.tracks, strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert scripts[1].searched[:1] != [0]  # it did not begin again
    assert [name for name in kept if name] == [
        *(("seen", i) for i in range(3)),
        *(("fitted", i) for i in range(3)),
    ]


@pytest.fixture
def run(monkeypatch, clip_folder, tmp_path):
    """Runs the command's work on the clip."""
    monkeypatch.setattr(clips, "MediaPipeHands", lambda *_, **__: script())
    engine = Engine(load_hands(), detector=None)

    def call(named=(clip_folder,), **options) -> Path:
        output = tmp_path / "out"
        clips.run_clips(list(named), output, engine, settings={"a": 1}, **CAMERA, **options)
        return output

    return call


def test_the_command_writes_what_is_asked_for(run, capsys):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    out = run(kinds="mp4,parquet,glb,bvh,lerobot")
    names = {path.name for path in out.iterdir()}
    assert {"clip_hands.mp4", "clip_hands.parquet", "clip_hands.glb", "lerobot"} <= names
    assert sum(name.endswith(".bvh") for name in names) == 2
    assert "clip_hands.work" not in names
    drawn_frames = list(Frames.of(out / "clip_hands.mp4"))
    assert len(drawn_frames) == 12
    # Painted where the hand is, and the picture as it was elsewhere.
    last = drawn_frames[-1].pixels.astype(int)
    x, y = (TRUTH.keypoints[0, 0, 9] + DRIFT[11]).round().astype(int)
    assert last[y, x, 0] > last[y, x, 2] + 60
    assert np.abs(last[-20:, -20:] - 11).max() < 8
    assert "right" in capsys.readouterr().out
    run(kinds="mp4,lerobot")  # again


def test_other_settings_begin_again(run, tmp_path):
    pytest.importorskip("pyarrow")
    work = tmp_path / "out/clip_hands.work"
    (work / "seen").mkdir(parents=True)
    (work / "settings.json").write_text(json.dumps({"a": 2}))
    (work / "seen/000000.npz").write_bytes(b"of another call")
    assert (run(kinds="parquet") / "clip_hands.parquet").exists()


def test_clips_of_one_name_keep_their_files_apart(run, clip_folder, tmp_path):
    pytest.importorskip("pyarrow")
    shutil.copytree(clip_folder, tmp_path / "other/clip")
    out = run([clip_folder, tmp_path / "other/clip"], kinds="parquet")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["clip_1_hands.parquet", "clip_2_hands.parquet"]


def test_options_that_do_not_fit(run, clip_folder):
    with pytest.raises(ConfigError, match="'avi' is none of mp4"):
        run(kinds="avi")
    options = photographs._parser().parse_args([str(clip_folder), "--clip", "--box=0,0,9,9"])
    with pytest.raises(ConfigError, match="are for photographs"):
        photographs._run_clips([clip_folder], options)


def test_what_is_taken_for_a_clip(tmp_path):
    assert photographs._is_clip(Path("a.MP4"), False)
    assert not photographs._is_clip(Path("a.jpg"), True)
    assert [photographs._is_clip(tmp_path, clip) for clip in (False, True)] == [False, True]


def test_without_the_extra_its_name_is_told(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"er_jax\[video\]"):
        Frames.of(tmp_path / "a.mp4")


def test_a_clip_without_hands(clip_folder):
    engine = Engine(load_hands(), detector=None)
    clip = reconstruct_clip(clip_folder, engine, lambda: Tracker(Script([[]] * 12)))
    assert clip.tracks == () and clip.messages == ("no hand was found",)
    assert len(follow_clip(Frames.of(clip_folder), lambda: Tracker(Script([[]] * 12)))) == 0


# Live


class Capture:
    """A camera as OpenCV has it, of the frames of a script, so many a second."""

    def __init__(self, count: int, rate: float, opened: bool = True):
        self._count, self._rate, self._opened = count, rate, opened
        self._next = 0
        self.asked: dict[int, int] = {}
        self.released = False

    def isOpened(self) -> bool:
        return self._opened

    def set(self, what: int, value: int) -> None:
        self.asked[what] = value

    def read(self):
        if self._next == self._count:
            return False, None
        time.sleep(1 / self._rate)
        self._next += 1
        return True, frame_of(self._next - 1)

    def release(self) -> None:
        self.released = True


def test_the_freshest_frame_comes_first_and_the_others_are_counted():
    capture = Capture(20, 200.0)
    with Webcam(0, (64, 48), open_capture=lambda _: capture) as webcam:
        seen = []
        for frame, taken in webcam:
            seen.append(frame.index)
            assert number_of(frame.pixels) == frame.index
            assert taken <= time.monotonic()
            time.sleep(0.03)  # slower than the camera
    assert seen == sorted(set(seen)) and len(seen) < 20
    assert seen[-1] == 19
    assert len(seen) + webcam.dropped == 20
    assert capture.released and sorted(capture.asked.values()) == [48, 64]


def test_a_camera_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="--device=1"):
        Webcam(0, open_capture=lambda _: Capture(0, 1.0, opened=False))


def test_live_hands_are_shown_recorded_and_filtered(tmp_path):
    pytest.importorskip("av")
    engine = Engine(load_hands(), detector=None)
    hands = LiveHands(engine, Tracker(script()), **CAMERA)
    with Webcam(0, open_capture=lambda _: Capture(12, 20.0)) as webcam:
        run_live(webcam, hands, tmp_path)
    clip = hands.clip("webcam")
    assert len(list(Frames.of(tmp_path / "webcam_hands.mp4"))) == len(clip.times_s) > 1
    right = clip.tracks[0]
    assert (right.person, right.side) == (0, "right") and len(right) == len(clip.times_s)
    _, joints = right.meshes(engine.hand_model)
    seen = joints[..., :2] / joints[..., 2:] * FOCAL + MIDDLE
    assert np.linalg.norm(seen - right.keypoints_px, axis=-1).mean() < 8
    plain = LiveHands(engine, Tracker(script()), filtered=False, **CAMERA)
    (raw, _) = plain(Frame(0, 0.0, frame_of(0)))
    np.testing.assert_array_equal(raw.rotations, raw.fitted.rotations)


def test_the_page_shows_the_newest_picture_to_this_machine_alone():
    viewer = Viewer()
    try:
        assert viewer.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(viewer.address, timeout=10) as page:
            assert b"/live" in page.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(viewer.address + "etc", timeout=10)
        viewer.show(np.full((48, 64, 3), (200, 30, 30), np.uint8))
        with urllib.request.urlopen(viewer.address + "live", timeout=10) as stream:
            assert stream.readline() == b"--frame\r\n"
            stream.readline()
            length = int(stream.readline().split()[1])
            stream.readline()
            picture = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), 1)
            assert picture.shape == (48, 64, 3)
            assert np.abs(picture[20, 20].astype(int) - (30, 30, 200)).max() < 12
    finally:
        viewer.close()
