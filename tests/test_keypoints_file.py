"""Keypoints by file: what is written is read again, other formats are converted, faults named."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from er_jax.detection import (
    DetectedHand,
    FileDetections,
    ImageKeypoints,
    KeypointsError,
    read_keypoints,
    write_keypoints,
)

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.uniform(0, 300, (21, 2)).round(3)


def a_hand(side="right") -> DetectedHand:
    points, confidence = POINTS.copy(), np.linspace(0.1, 1, 21)
    points[4], confidence[4] = math.nan, 0
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    return DetectedHand(
        side=side,
        side_probability=0.75,
        score=0.5,
        box_px=np.concatenate([low, high - low]),
        keypoints_px=points,
        confidence=confidence,
        relative_depth_px=np.arange(21.0),
        joints_m=RANDOM.normal(size=(21, 3)),
    )


def written(folder: Path, content, name="keypoints.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def own(**hand):
    entry = {"side": "left", "keypoints_px": POINTS.tolist(), **hand}
    return {"format": "er_jax keypoints 1", "images": [{"image": "a.jpg", "hands": [entry]}]}


def test_what_is_written_is_read_again(tmp_path):
    images = [
        ImageKeypoints("a/b.jpg", [a_hand(), a_hand("left")], (640, 480), (600, 610), (319.5, 240)),
        ImageKeypoints("none.png", []),
    ]
    write_keypoints(tmp_path / "k.json", images)
    found = read_keypoints(tmp_path / "k.json")
    assert len(found) == 2
    for one, two in zip(images, found, strict=True):
        assert dataclasses.replace(one, hands=[]) == dataclasses.replace(two, hands=[])
        for left, right in zip(one.hands, two.hands, strict=True):
            for field in dataclasses.fields(DetectedHand):
                np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_what_is_left_out_has_defaults_and_null_is_unknown(tmp_path):
    points = [*POINTS.tolist()[:20], None]
    points[0] = [*points[0], 0.25]
    ((hand,),) = (
        image.hands for image in read_keypoints(written(tmp_path, own(keypoints_px=points)))
    )
    assert (hand.score, hand.side_probability, hand.joints_m) == (1, 1, None)
    np.testing.assert_array_equal(hand.confidence, [0.25, *[1] * 19, 0])
    assert np.isnan(hand.keypoints_px[20]).all()
    np.testing.assert_allclose(hand.box_px[2:], np.ptp(POINTS[:20], axis=0))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "truncated"),
        ('{"format": "er_jax keypoints 1", "images": [', "truncated"),
        ("[" * 100_000, "keypoints"),
        ({"format": "er_jax keypoints 2", "images": []}, r"\$\.format"),
        ({"images": []}, "format"),
        ({**own(), "hand": 1}, "hand"),
        (own(side="both"), r"\$\.images\[0\]\.hands\[0\]\.side"),
        (own(keypoints_px=POINTS.tolist()[:20]), "length >= 21"),
        (own(keypoints_px=[[1.0]] * 21), "length >= 2"),
        (own(keypoints_px=[None] * 21), "no keypoint is known"),
        (own(keypoints_px=[[1, 2, 1.5]] * 21), r"hands\[0\]: .*confidence"),
        (own(score=-1), ">= 0"),
        (own(joints_m=[[0, 0, "x"]] * 21), "joints_m"),
        (json.dumps(own()).replace("a.jpg", "b\\ud800.jpg"), "keypoints.json"),
        (json.dumps(own(score=1)).replace('"score": 1', '"score": NaN'), "keypoints.json"),
        (json.dumps(own(keypoints_px=[[7, 2]] * 21)).replace("7", "1e999"), "keypoints.json"),
    ],
)
def test_faults_are_named(tmp_path, content, reason):
    path = written(tmp_path, content)
    with pytest.raises(KeypointsError, match=reason) as caught:
        read_keypoints(path)
    assert str(path) in str(caught.value)


def test_absent_files_and_unknown_kinds_are_said(tmp_path):
    with pytest.raises(KeypointsError, match=r"k\.json: no such file"):
        read_keypoints(tmp_path / "k.json")
    with pytest.raises(KeypointsError, match="openpose"):
        read_keypoints(tmp_path / "k.json", "open_pose")
    with pytest.raises(KeypointsError, match="in this folder"):
        read_keypoints(tmp_path, "openpose")


def test_a_folder_of_openpose(tmp_path):
    scores = np.linspace(0.1, 1, 21)
    numbers = np.column_stack([POINTS, scores]).ravel().tolist()
    person = {"hand_left_keypoints_2d": [0] * 63, "hand_right_keypoints_2d": numbers, "face": []}
    for name in ("b", "a"):
        written(tmp_path, {"version": 1.3, "people": [person]}, f"{name}_keypoints.json")
    written(tmp_path, "no JSON", "other.json")
    found = read_keypoints(tmp_path, "openpose")
    assert [image.image for image in found] == ["a", "b"]
    (hand,) = found[0].hands
    assert hand.side == "right"
    np.testing.assert_array_equal(hand.keypoints_px, POINTS)
    assert hand.score == pytest.approx(scores.mean())
    person["hand_left_keypoints_2d"] = [1.0] * 62
    path = written(tmp_path, {"people": [person]}, "c_keypoints.json")
    with pytest.raises(KeypointsError, match=r"people\[0\]\.hand_left_keypoints_2d: 62"):
        read_keypoints(path, "openpose")


def test_mmpose_whole_bodies_and_hands(tmp_path):
    body = RANDOM.uniform(0, 300, (133, 2))
    instance = {"keypoints": body.tolist(), "keypoint_scores": [0.5] * 133, "bbox": [[0, 0, 1, 1]]}
    (image,) = read_keypoints(written(tmp_path, [instance], "x.json"), "mmpose")
    hands = {hand.side: hand for hand in image.hands}
    assert image.image == "x"
    np.testing.assert_array_equal(hands["left"].keypoints_px, body[91:112])
    np.testing.assert_array_equal(hands["right"].keypoints_px, body[112:])
    instance = {"keypoints": POINTS.tolist(), "keypoint_scores": [1.02] * 21}
    path = written(tmp_path, [instance])
    with pytest.raises(KeypointsError, match="side"):
        read_keypoints(path, "mmpose")
    ((hand,),) = (each.hands for each in read_keypoints(path, "mmpose", side="left"))
    assert (hand.side, hand.score) == ("left", 1)
    instance["keypoint_scores"] = [1] * 20
    with pytest.raises(KeypointsError, match="20 keypoint_scores"):
        read_keypoints(written(tmp_path, [instance]), "mmpose", side="left")
    with pytest.raises(KeypointsError, match="17 keypoints"):
        few = {"keypoints": [[0, 0]] * 17, "keypoint_scores": [1] * 17}
        read_keypoints(written(tmp_path, [few]), "mmpose")


@pytest.mark.parametrize("names", ["python", "javascript"])
def test_mediapipe_results(tmp_path, names):
    size = (640, 480)
    landmarks = [
        {"x": (x + 0.5) / 640, "y": (y + 0.5) / 480, "z": 0.01 * i - 0.1, "visibility": 0}
        for i, (x, y) in enumerate(POINTS)
    ]
    world = [{"x": 0.1, "y": 0.2, "z": 0.3}] * 21
    result = {
        "python": {
            "handedness": [[{"score": 0.8, "category_name": "Left", "index": 0}]],
            "hand_landmarks": [landmarks],
            "hand_world_landmarks": [world],
        },
        "javascript": {
            "handedness": [[{"score": 0.8, "categoryName": "Left"}]],
            "landmarks": [landmarks],
            "worldLandmarks": [world],
        },
    }[names]
    path = written(tmp_path, result)
    with pytest.raises(KeypointsError, match="size_px"):
        read_keypoints(path, "mediapipe")
    ((hand,),) = (image.hands for image in read_keypoints(path, "mediapipe", size_px=size))
    assert (hand.side, hand.side_probability) == ("left", 0.8)
    np.testing.assert_allclose(hand.keypoints_px, POINTS)
    np.testing.assert_allclose(hand.relative_depth_px, 6.4 * np.arange(21), atol=1e-9)
    np.testing.assert_array_equal(hand.joints_m, [[0.1, 0.2, 0.3]] * 21)
    (swapped,) = read_keypoints(path, "mediapipe", size_px=size, swap_sides=True)
    assert swapped.hands[0].side == "right"
    result["handedness"] = []
    with pytest.raises(KeypointsError, match="not of as many hands"):
        read_keypoints(written(tmp_path, result), "mediapipe", size_px=size)


def test_a_picture_is_found_by_its_path_or_name(tmp_path):
    names = ["x/a.jpg", "y/a.jpg", "b.jpg", "c"]
    write_keypoints(tmp_path / "k.json", [ImageKeypoints(name, []) for name in names])
    detections = FileDetections(tmp_path / "k.json")
    assert detections.of(Path("y/a.jpg")).image == "y/a.jpg"
    assert detections.of(Path("/photos/b.jpg")).image == "b.jpg"
    assert detections.of(Path("/photos/c.png")).image == "c"
    with pytest.raises(KeypointsError, match="2 entries"):
        detections.of(Path("z/a.jpg"))
    with pytest.raises(KeypointsError, match=r"nothing of d\.jpg"):
        detections.of(Path("d.jpg"))
