"""The detector: palms, regions and landmarks obey their geometry; its files are checked."""

import hashlib
import json
import logging
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from er_jax.detection import DetectorError, landmarks, mediapipe_hands, palms, weights
from er_jax.detection.mediapipe_hands import MediaPipeHands, tiles
from er_jax.detection.palms import Palms
from er_jax.detection.regions import Pyramid, Region
from er_jax.mano.joints import HAND21
from er_jax.photographs.photograph import read_photograph
from er_jax.utils.cache import cache_dir

PHOTOS = Path(__file__).parents[2] / "shared" / "photos"
RANDOM = np.random.default_rng(0)
REGION = Region(130.0, 70.0, 90.0, math.radians(35))


def own_weights() -> Path | None:
    """The detector's folder, where a person has one; the tests fetch nothing."""
    named = os.environ.get("ER_JAX_DETECTOR_DIR")
    folder = Path(named) if named else cache_dir() / "detection" / "mediapipe-0.10.21"
    return folder if (folder / weights.PALMS_FILE).exists() else None


needs_weights = pytest.mark.skipif(
    own_weights() is None, reason="the detector's networks are not in the user's cache"
)


# Regions


def test_a_regions_maps_are_inverse_and_agree_with_its_crop():
    points = RANDOM.uniform(0, 1, (50, 2))
    picture = REGION.to_picture(points)
    np.testing.assert_allclose(REGION.from_picture(picture), points, atol=1e-12)
    affine = REGION.to_crop(64)
    in_crop = picture @ affine[:, :2].T + affine[:, 2]
    np.testing.assert_allclose(in_crop, points * 64 - 0.5, atol=1e-9)


def test_a_region_turned_by_an_angle_points_up_there():
    up = REGION.to_picture(np.array([0.5, 0.0])) - REGION.to_picture(np.array([0.5, 0.5]))
    assert math.atan2(up[0], -up[1]) == pytest.approx(REGION.angle)
    assert np.hypot(*up) == pytest.approx(REGION.side / 2)


@pytest.mark.parametrize("shape", [(60, 90), (201, 301), (803, 1203)])
def test_a_spot_is_cropped_to_its_place_at_any_size_of_picture(shape):
    """No level of the pyramid, of even or odd size, is shifted."""
    height, width = shape
    spot = np.array([width * 0.4, height * 0.55])
    y, x = np.mgrid[:height, :width]
    square = ((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (0.04 * height) ** 2
    image = np.repeat((255 * np.exp(-square / 2)).astype(np.uint8)[..., None], 3, axis=2)
    region = Region(width * 0.45, height * 0.5, height * 0.6, 0.4)
    weight = Pyramid(image).crop(region, 32)[..., 0]
    centre = [np.average(np.arange(32), weights=weight.sum(axis=axis)) for axis in (0, 1)]
    np.testing.assert_allclose(centre, region.from_picture(spot) * 32 - 0.5, atol=0.04)


def test_a_shrunk_crop_is_a_mean_and_not_a_sample():
    image = np.zeros((512, 512, 3), np.uint8)
    image[::2, ::2] = 255
    crop = Pyramid(image).crop(Region(255.5, 255.5, 512), 32)
    np.testing.assert_allclose(crop, 0.25, atol=0.02)


def test_outside_of_a_picture_is_black():
    image = np.full((20, 20, 3), 255, np.uint8)
    crop = Pyramid(image).crop(Region(9.5, 9.5, 40), 40)
    assert crop.sum() == 20 * 20 * 3


@pytest.mark.parametrize("size", [(512, 334), (300, 300), (100, 1000), (7, 5)])
def test_tiles_cover_the_picture_with_overlap(size):
    width, height = size
    side = 0.62 * max(size)
    covered = np.zeros((height, width), int)
    for tile in tiles(width, height, side):
        left, top = (tile.x - side / 2 + 0.5, tile.y - side / 2 + 0.5)
        inside_x = (np.arange(width) >= left - 0.5) & (np.arange(width) <= left + side)
        inside_y = (np.arange(height) >= top - 0.5) & (np.arange(height) <= top + side)
        covered += inside_y[:, None] & inside_x
    assert (covered > 0).mean() > 0.94  # of an axis hardly longer than the side, the middle
    assert covered[height // 2, width // 2] >= 2 or len(tiles(width, height, side)) == 1


# Palms


def test_anchors_are_the_cells_middles_two_a_layer():
    anchors = palms.anchors()
    assert anchors.shape == (2016, 2)
    fine, coarse = anchors[: 24 * 24 * 2], anchors[24 * 24 * 2 :]
    np.testing.assert_allclose(fine[[0, 1, 2]] * 192, [[4, 4], [4, 4], [12, 4]])
    np.testing.assert_allclose(coarse[[0, 5, 6, 72]] * 192, [[8, 8], [8, 8], [24, 8], [8, 24]])
    assert {len(set(map(tuple, part))) for part in (fine, coarse)} == {24 * 24, 12 * 12}


def encoded(box, keypoints, anchor):
    """What the network says for a palm of this box (left, top, right, bottom), in sides."""
    middle = (box[:2] + box[2:]) / 2
    parts = [middle - palms.anchors()[anchor], box[2:] - box[:2]]
    parts.append((keypoints - palms.anchors()[anchor]).ravel())
    return np.concatenate(parts) * palms.INPUT_SIZE


def test_palms_are_decoded_from_any_anchor():
    values, logits = np.zeros((2016, 18)), np.full(2016, -100.0)
    boxes = np.array([[0.1, 0.2, 0.3, 0.5], [0.6, 0.6, 0.9, 0.8]])
    keypoints = RANDOM.uniform(0, 1, (2, 7, 2))
    for i, (anchor, logit) in enumerate([(37, 0.0), (1900, 2.0)]):
        values[anchor], logits[anchor] = encoded(boxes[i], keypoints[i], anchor), logit
    found = palms.decode(values, logits, threshold=0.4)
    np.testing.assert_allclose(found.scores, [1 / (1 + math.exp(-2)), 0.5])  # the surest first
    np.testing.assert_allclose(found.boxes, boxes[::-1])
    np.testing.assert_allclose(found.keypoints, keypoints[::-1])
    assert palms.decode(values, logits, threshold=0.6).scores.size == 1
    none = palms.decode(values, logits, threshold=0.95)
    assert (none.boxes.shape, none.keypoints.shape) == ((0, 4), (0, 7, 2))
    assert palms.hand_regions(none, REGION) == []


def test_overlapping_palms_become_their_weighted_mean():
    boxes = np.array([[0.0, 0, 1, 1], [0.2, 0, 1.2, 1], [2, 2, 3, 3], [0.7, 0, 1.7, 1]])
    keypoints = np.arange(4.0)[:, None, None] * np.ones((4, 7, 2))
    merged = palms.merge_overlapping(Palms(np.array([0.5, 0.75, 0.6, 0.55]), boxes, keypoints))
    np.testing.assert_allclose(merged.scores, [0.75, 0.6])
    weighted = (0.5 * boxes[0] + 0.75 * boxes[1] + 0.55 * boxes[3]) / 1.8  # both overlap the surest
    np.testing.assert_allclose(merged.boxes, [weighted, boxes[2]])
    np.testing.assert_allclose(merged.keypoints[0], (0.75 * 1 + 0.55 * 3) / 1.8)


def test_palms_that_overlap_little_stay_apart():
    boxes = np.array([[0.0, 0, 1, 1], [0.6, 0, 1.6, 1]])  # intersection over union: 0.25
    merged = palms.merge_overlapping(Palms(np.array([0.5, 0.7]), boxes, np.zeros((2, 7, 2))))
    np.testing.assert_allclose(merged.boxes, boxes[::-1])


@pytest.mark.parametrize("degrees", [0, 40, 180, -100])
def test_the_hands_region_turns_with_the_palm(degrees):
    """Fingers upwards, 2.6 of the palm, its middle half a palm on from the palm's."""
    view = Region(200.0, 100.0, 400.0, math.radians(degrees))
    keypoints = np.full((1, 7, 2), 0.5)
    keypoints[0, 0], keypoints[0, 2] = (0.4, 0.6), (0.4, 0.4)
    palm = Palms(np.ones(1), np.array([[0.3, 0.4, 0.5, 0.6]]), keypoints)
    (region,) = palms.hand_regions(palm, view)
    assert math.cos(region.angle - view.angle) == pytest.approx(1)
    assert region.side == pytest.approx(2.6 * 0.2 * 400)
    middle = view.from_picture(np.array([region.x, region.y]))
    np.testing.assert_allclose(middle, [0.4, 0.4], atol=1e-12)


# Landmarks

HAND = np.zeros((21, 3))
HAND[1:, 0] = np.repeat([-0.3, -0.15, 0.0, 0.15, 0.3], 4)
HAND[1:, 1] = -np.tile([0.4, 0.6, 0.8, 1.0], 5)
HAND[1:, 2] = np.tile([0.05, 0.1, 0.0, -0.1], 5)


def test_landmarks_and_their_metric_joints_turn_back_into_the_picture():
    crop = (HAND * 100 + (112, 190, 3)).ravel()
    found = landmarks.place_landmarks(REGION, crop, (0.1 * HAND).ravel(), 0.9, 0.2)
    upright = landmarks.place_landmarks(
        Region(REGION.x, REGION.y, REGION.side), crop, (0.1 * HAND).ravel(), 0.9, 0.2
    )
    turn = REGION.rotation
    middle = np.array([REGION.x, REGION.y])
    np.testing.assert_allclose(
        found.keypoints_px - middle, (upright.keypoints_px - middle) @ turn.T
    )
    np.testing.assert_allclose(upright.joints_m, 0.1 * HAND)
    # In the picture and in metres the bones point the same way, and so does the depth.
    scale = 100 / 224 * REGION.side
    wrist = found.joints_m[0, :2]
    bones = (found.joints_m[:, :2] - wrist) * scale / 0.1
    np.testing.assert_allclose(found.keypoints_px - found.keypoints_px[0], bones, atol=1e-9)
    np.testing.assert_allclose(found.joints_m[:, 2], 0.1 * HAND[:, 2])
    np.testing.assert_allclose(found.relative_depth_px, HAND[:, 2] * scale, atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 70, 180, -130])
def test_the_region_of_a_hand_turns_and_grows_with_it(degrees):
    turn = Region(0, 0, 1, math.radians(degrees)).rotation
    reference = landmarks.region_of_hand(HAND[:, :2])
    region = landmarks.region_of_hand(3 * HAND[:, :2] @ turn.T + (50, 20))
    assert reference.angle == pytest.approx(0)
    assert math.cos(region.angle - math.radians(degrees)) == pytest.approx(1)
    assert region.side == pytest.approx(3 * reference.side)
    middle = 3 * turn @ (reference.x, reference.y) + (50, 20)
    np.testing.assert_allclose([region.x, region.y], middle, atol=1e-9)
    inside = region.from_picture(3 * HAND[:, :2] @ turn.T + (50, 20))
    assert inside.min() > 0
    assert inside.max() < 1


def answer(points, right=1.0, presence=0.9, palm_score=0.8):
    found = landmarks.Landmarks(presence, right, points, np.zeros(21), np.zeros((21, 3)))
    return mediapipe_hands._Answer(palm_score, found, np.ones(21))


def test_answers_of_one_hand_become_one_and_crossed_hands_stay_two():
    points = 100 * HAND[:, :2]
    mirrored = points * (-1, 1) + (33, 0)
    same = answer(points + 5, presence=0.7)
    assert mediapipe_hands._distinct([same, answer(points)])[0].landmarks.presence == 0.9
    assert len(mediapipe_hands._distinct([same, answer(points)])) == 1
    apart = np.linalg.norm(points - mirrored, axis=1).mean() / 100
    assert 0.25 < apart < 0.5
    assert len(mediapipe_hands._distinct([answer(points), answer(mirrored, right=0.0)])) == 2
    nearer = points + np.array([27, 0])  # one hand, taken for two of one side
    assert len(mediapipe_hands._distinct([answer(points), answer(nearer, presence=0.6)])) == 1
    assert len(mediapipe_hands._distinct([answer(points), answer(nearer, right=0.0)])) == 2


def test_fingers_of_a_hand_are_no_hand():
    points = 100 * HAND[:, :2]
    fingers = 0.25 * points + (20, -70)
    assert len(mediapipe_hands._distinct([answer(points), answer(fingers, presence=0.6)])) == 1
    beside = fingers + np.array([90, 0])
    assert len(mediapipe_hands._distinct([answer(points), answer(beside, presence=0.6)])) == 2


def test_the_side_and_its_probability_agree():
    for right, side in ((0.8, "right"), (0.2, "left")):
        hand = mediapipe_hands._as_hand(answer(100 * HAND[:, :2], right=right))
        assert (hand.side, hand.side_probability) == (side, pytest.approx(0.8))
        np.testing.assert_allclose(hand.box_px, [-30, -100, 60, 100])


class Nothing:
    """A network that finds nothing and counts its calls."""

    calls = 0

    def __init__(self, path, threads):
        pass

    def __call__(self, crop):
        Nothing.calls += 1
        return [np.zeros((2016, 18), np.float32), np.full((2016, 1), -50, np.float32)]


def test_pictures_without_hands(monkeypatch, tmp_path):
    monkeypatch.setattr(mediapipe_hands, "LiteRTNetwork", Nothing)
    monkeypatch.setattr(mediapipe_hands, "weights_dir", lambda folder: tmp_path)
    quick, thorough = MediaPipeHands(thorough=False), MediaPipeHands()
    for shape in ((1, 1, 3), (1, 900, 3), (60, 40, 3)):
        assert thorough(np.zeros(shape, np.uint8)) == []
    Nothing.calls = 0
    assert quick(np.zeros((480, 640, 3), np.uint8)) == []
    assert Nothing.calls == 1
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="RGB"):
            quick(wrong)


# The networks' files


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A small wheel in the place of MediaPipe's, its checksums pinned; an empty cache."""
    contents = {name: name.encode() * 3 for name in weights.FILES}
    pinned = {
        name: (place, hashlib.sha256(contents[name]).hexdigest())
        for name, (place, _) in weights.FILES.items()
    }
    monkeypatch.setattr(weights, "FILES", pinned)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commands = []

    def pip(command, **_):
        commands.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "mediapipe.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, (place, _) in pinned.items():
                archive.writestr(place, contents[name])
            archive.writestr("mediapipe/other", "x")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights.subprocess, "run", pip)
    return contents, commands


def test_the_networks_are_fetched_once_and_said(published, caplog):
    contents, commands = published
    with caplog.at_level(logging.INFO):
        folder = weights.weights_dir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    assert weights.weights_dir() == folder
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "mediapipe==0.10.21"} <= set(command)
    (line,) = caplog.messages
    assert all(part in line for part in ("35.6 MB", "Apache", "mediapipe==0.10.21", str(folder)))


def test_a_wrong_file_is_named_and_never_used(published):
    contents, _ = published
    folder = weights.weights_dir()
    path = folder / weights.LANDMARKS_FILE
    path.write_bytes(b"damaged")
    found = hashlib.sha256(b"damaged").hexdigest()
    expected = hashlib.sha256(contents[weights.LANDMARKS_FILE]).hexdigest()
    for directory in (None, folder):
        with pytest.raises(DetectorError, match=f"{found}, expected {expected}.*delete") as caught:
            weights.weights_dir(directory)
        assert str(path) in str(caught.value)
    path.unlink()
    assert weights.weights_dir() == folder


def test_another_packages_content_is_not_unpacked(published):
    contents, _ = published
    contents[weights.PALMS_FILE] = b"another network"
    with pytest.raises(DetectorError, match=r"palm_detection_full\.tflite in it"):
        weights.weights_dir()
    assert not (cache_dir() / "detection").exists()


def test_a_folder_without_the_networks_is_said_and_nothing_fetched(published, tmp_path):
    with pytest.raises(DetectorError, match=r"palm_detection_full.tflite and .*--detector_dir"):
        weights.weights_dir(tmp_path / "none")
    assert not published[1]


def test_pips_failure_is_told(published, monkeypatch):
    def pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: a\nERROR: no network\n\n")

    monkeypatch.setattr(weights.subprocess, "run", pip)
    with pytest.raises(DetectorError, match=r"0.10.21: no network. Run .*--detector_dir"):
        weights.weights_dir()
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DetectorError, match=r"no pip .*ensurepip"):
        weights.weights_dir()


@pytest.mark.slow
def test_the_published_networks_can_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        folder = weights.weights_dir()
    except DetectorError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no network: {error}")
    assert sorted(path.name for path in folder.iterdir()) == sorted(weights.FILES)
    assert MediaPipeHands()(np.zeros((64, 64, 3), np.uint8)) == []


# With the networks, on photographs


@needs_weights
def test_its_library_says_nothing_of_itself_and_python_still_does(capfd):
    MediaPipeHands(own_weights())
    print("here", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "here\n"


@needs_weights
@pytest.mark.skipif(not PHOTOS.exists(), reason="the shared photographs are not there")
@pytest.mark.parametrize("turn", [None, cv2.ROTATE_180])
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("onehand10k_9.jpg", "right"),
        ("onehand10k_784.jpg", "left"),
        ("freihand_00017620.jpg", "right"),
    ],
)
def test_a_hand_is_found_either_way_up_and_mirrored_is_the_other_side(name, side, turn):
    detector = MediaPipeHands(own_weights())
    image = read_photograph(PHOTOS / name).pixels
    pictures = json.loads((PHOTOS / "annotations.json").read_text())["pictures"]
    (entry,) = (picture for picture in pictures if picture["file"] == name)
    truth = np.array(entry["hands"][0]["keypoints_px"])
    known, truth = truth[:, 2] > 0, truth[:, :2]
    size = np.ptp(truth[known], axis=0).max()
    if turn is not None:
        image = np.ascontiguousarray(cv2.rotate(image, turn))
        truth = (image.shape[1] - 1, image.shape[0] - 1) - truth
    hand = detector(image)[0]
    assert hand.side == side
    assert np.linalg.norm(hand.keypoints_px - truth, axis=1)[known].mean() < 0.15 * size
    bone = [HAND21.index("Wrist"), HAND21.index("Middle_1")]
    flat, metric = (
        np.diff(hand.keypoints_px[bone], axis=0)[0],
        np.diff(hand.joints_m[bone], axis=0)[0],
    )
    cosine = flat @ metric[:2] / np.linalg.norm(flat) / np.linalg.norm(metric[:2])
    assert cosine > 0.9  # the metric joints stand as the keypoints do
    mirrored = detector(np.ascontiguousarray(image[:, ::-1]))[0]
    assert mirrored.side != side
