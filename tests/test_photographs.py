"""Photographs in, hands out: cameras, odd files, one result, its files, and the command."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from drawn_hands import FOCAL, MIDDLE, Truth, drawn
from PIL import Image

import er_jax
from er_jax.commands.fit import run_fit
from er_jax.commands.photographs import (
    BATCH,
    output_names,
    pictures_of,
    run_photographs,
)
from er_jax.commands.photographs import main as photographs_command
from er_jax.detection import (
    DetectedHand,
    DetectorError,
    ImageKeypoints,
    read_keypoints,
    write_keypoints,
)
from er_jax.evaluation.calibration import Calibration
from er_jax.mano import HANDS, axis_angle_to_matrix, load_hands, mano_forward
from er_jax.photographs.engine import OUTSIDE_FACTOR, Engine, _messages, _of_detector, _of_network
from er_jax.photographs.photograph import (
    Photograph,
    camera_of,
    photograph_of,
    read_photograph,
)
from er_jax.photographs.result import Person
from er_jax.utils.arguments import numbers
from er_jax.utils.errors import BadImageError, ConfigError, DiskError, NotFoundError
from er_jax.video.parquet import COLUMNS, arrays_of, rows_of_pictures

SIZE = (512, 400)


def detected(truth: Truth, index: int = 0, **changes) -> list[DetectedHand]:
    """A detector's answer that is the truth."""
    hands = []
    for column, side in enumerate(truth.sides):
        points = truth.keypoints[index, column]
        low, high = points.min(0), points.max(0)
        hand = DetectedHand(
            side=HANDS[side],
            side_probability=0.95,
            score=0.9,
            box_px=np.concatenate([low, high - low]),
            keypoints_px=points,
            confidence=np.ones(21),
            joints_m=truth.joints[index, column] - truth.joints[index, column].mean(0),
        )
        hands.append(dataclasses.replace(hand, **changes))
    return hands


class Known:
    """A detector that was told what to answer."""

    def __init__(self, hands: list[DetectedHand]):
        self._hands = hands

    def __call__(self, image: np.ndarray) -> list[DetectedHand]:
        return self._hands


@pytest.fixture(scope="module")
def truth() -> Truth:
    return drawn(1, (0, 1), seed=7)


@pytest.fixture(scope="module")
def result(truth):
    engine = Engine(load_hands(), detector=Known(detected(truth)))
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    camera = {"focal_px": tuple(FOCAL), "principal_point_px": tuple(MIDDLE)}
    return engine.many([picture], **camera)[0]


# Pictures and cameras


def test_a_picture_is_turned_upright_as_its_camera_was_held(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:5, :5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = read_photograph(tmp_path / "a.png")
    assert (found.size_px, found.stored_size_px, found.exif_orientation) == ((20, 30), (30, 20), 6)
    assert found.pixels[:5, -5:].min() == 255


def test_the_focal_length_is_as_given_then_by_exif_then_assumed(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28  # FocalLengthIn35mmFilm
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg", exif=exif)
    photograph = read_photograph(tmp_path / "a.jpg")
    by_exif = camera_of(photograph)
    assert by_exif.focal_source == "EXIF"
    assert by_exif.focal_px[0] == pytest.approx(28 * 500 / np.hypot(36, 24))
    assert by_exif.principal_point_px == (199.5, 149.5)
    given = camera_of(photograph, (500, 510), (200, 100))
    assert (given.focal_px, given.focal_source) == ((500, 510), "given")
    assert given.principal_point_px == (200, 100)
    plain = camera_of(photograph_of(np.zeros((30, 40, 3), np.uint8)))
    assert (plain.focal_source, plain.focal_px) == ("assumed", (48.0, 48.0))
    for wrong in (0, -3, float("nan")):
        with pytest.raises(ConfigError, match="above zero"):
            camera_of(photograph, wrong)


def test_a_smaller_picture_has_a_smaller_camera():
    """A point is seen at the same place of the picture, whose pixels are larger."""
    camera = camera_of(photograph_of(np.zeros((300, 400, 3), np.uint8)), 500.0)
    point = np.array([0.1, -0.2, 0.7])
    large, small = (one.projection.project(point) for one in (camera, camera.scaled(0.25)))
    np.testing.assert_allclose((small + 0.5) / 0.25, large + 0.5)


ODD_FILES = {
    "grey.png": lambda: Image.fromarray(np.full((40, 40), 130, np.uint8)),
    "grey16.png": lambda: Image.fromarray(np.full((40, 40), 130 << 8, np.uint16)),
    "cmyk.jpg": lambda: Image.new("CMYK", (40, 40), (0, 0, 0, 125)),
    "palette.gif": lambda: Image.new("RGB", (40, 40), (130, 130, 130)).quantize(4),
    "one.png": lambda: Image.new("RGB", (1, 1), (130, 130, 130)),
    "alpha.png": lambda: Image.new("RGBA", (40, 40), (5, 5, 5, 128)),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_pictures_of_any_kind_become_rgb_bytes(tmp_path, name):
    ODD_FILES[name]().save(tmp_path / name)
    pixels = read_photograph(tmp_path / name).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    np.testing.assert_allclose(pixels, 130, atol=4)


def test_of_an_animated_picture_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    first = read_photograph(tmp_path / "a.gif")
    assert first.pixels[0, 0].tolist() == [255, 0, 0]
    said = _messages(first, camera_of(first), (), absent=False)
    assert said == ("the first of 2 images in the file, the others not", "no hand was found")


def test_a_cameras_jpeg_with_a_preview_is_one_picture(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read_photograph(tmp_path / "a.jpg").images_in_file == 1


def test_pictures_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        tmp_path / "whole.jpg"
    )
    half = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(half[: len(half) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    reasons = {
        "text.jpg": "not an image",
        "half.jpg": "cannot be read whole",
        "empty.png": "not an image",
        "nowhere.jpg": "no such image",
        ".": "a folder, not an image",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadImageError, match=reason):
            read_photograph(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImageError, match="larger than 0 megapixels"):
        read_photograph(tmp_path / "whole.jpg")


def test_bytes_are_read_as_their_file_is(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    of_file = read_photograph(tmp_path / "turned.jpg")
    data = (tmp_path / "turned.jpg").read_bytes()
    of_bytes = read_photograph(Path("nowhere/turned.jpg"), data, most_pixels=600)
    np.testing.assert_array_equal(of_bytes.pixels, of_file.pixels)
    assert (of_bytes.size_px, of_bytes.exif_orientation) == ((20, 30), 6)
    with pytest.raises(BadImageError, match=r"nowhere/turned.jpg: cannot be read whole"):
        read_photograph(Path("nowhere/turned.jpg"), data[:-100])
    with pytest.raises(BadImageError, match=r"turned.jpg: larger than 0 megapixels"):
        read_photograph(Path("turned.jpg"), data, most_pixels=599)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_picture(array):
    with pytest.raises(BadImageError, match="RGB bytes"):
        photograph_of(array)


# The result


def test_the_result_is_the_hands_that_were_seen(result, truth):
    (person,) = result.persons
    assert [hand.side for hand in person.hands] == ["right", "left"]
    for column, hand in enumerate(person.hands):
        assert (hand.source, hand.present, hand.explained) == ("fit", True, True)
        error = np.linalg.norm(
            (hand.joints - hand.joints[0]) - (truth.joints[0, column] - truth.joints[0, column, 0]),
            axis=-1,
        )
        assert 1000 * error.mean() < 12
        off = np.linalg.norm(hand.keypoints_px - truth.keypoints[0, column], axis=-1).mean()
        assert off == pytest.approx(hand.reprojection_px, abs=1e-3)
        assert off < 4
        assert hand.joint_sigma_m[0] == 0
        assert (hand.joint_sigma_m[1:] > 0).all()


def test_vertices_joints_and_pixels_follow_from_the_parameters(result):
    hands = load_hands()
    for hand in result.hands:
        model = hands.hand(hand.side)
        mesh = mano_forward(model, hand.betas, hand.rotations, hand.transl)
        np.testing.assert_allclose(mesh.vertices, hand.vertices, atol=1e-5)
        np.testing.assert_allclose(mesh.joints, hand.joints, atol=1e-4)
        of_pose = mano_forward(model, hand.betas, hand.pose, hand.transl)
        np.testing.assert_allclose(of_pose.vertices, hand.vertices, atol=1e-4)
        turned = axis_angle_to_matrix(jnp.asarray(hand.full_pose).reshape(16, 3))
        np.testing.assert_allclose(turned, hand.rotations, atol=1e-4)
        seen = result.camera.projection.project(hand.joints)
        np.testing.assert_allclose(seen, hand.keypoints_px, atol=1e-2)
    np.testing.assert_allclose(
        result.persons[0].rel_trans,
        result.persons[0].left.joints[0] - result.persons[0].right.joints[0],
    )


def test_the_files_say_the_same(result, tmp_path):
    files = result.save(tmp_path, "a")
    names = {file.name for file in files}
    assert names == {
        f"a_hands{end}" for end in ("_right.obj", "_left.obj", ".glb", ".json", ".png")
    }
    assert {file.name for file in tmp_path.iterdir()} == names  # and nothing unfinished
    content = json.loads((tmp_path / "a_hands.json").read_text())
    scene = trimesh.load(tmp_path / "a_hands.glb")
    for hand in result.hands:
        mesh = trimesh.load(tmp_path / f"a_hands_{hand.side}.obj", process=False)
        np.testing.assert_allclose(mesh.vertices, hand.vertices, atol=1e-5)
        assert mesh.faces.tolist() == result.faces[HANDS.index(hand.side)].tolist()
        in_gltf = scene.geometry[hand.side].vertices @ scene.graph[hand.side][0][:3, :3].T
        np.testing.assert_allclose(in_gltf * [1, -1, -1], hand.vertices, atol=1e-5)
        said = content["persons"][0][hand.side]
        np.testing.assert_allclose(said["joints_m"], hand.joints, atol=1e-6)
        np.testing.assert_allclose(said["rotations_with_mean"], hand.rotations, atol=1e-6)
        header = (tmp_path / f"a_hands_{hand.side}.obj").read_text().splitlines()[0]
        assert header.startswith("#")
        assert "x right, y down, z forward" in header
    assert content["image"]["size_px"] == list(SIZE)
    assert content["camera"]["focal_px"] == FOCAL.tolist()
    assert "mirrored" in content["left_shape"]
    assert cv2.imread(str(tmp_path / "a_hands.png")) is not None


def test_rows_of_a_picture_say_what_its_hands_are(result):
    hands = load_hands()
    by_box = dataclasses.replace(
        result.hands[1], score=None, detected_px=None, detected_confidence=None
    )
    persons = (Person(right=result.hands[0]), Person(left=by_box))
    second = dataclasses.replace(result, persons=persons)
    nothing = dataclasses.replace(result, persons=())
    table = rows_of_pictures([("a", result), ("none", nothing), ("b", second)], hands)
    rows = arrays_of(table)
    assert list(rows) == list(COLUMNS)
    assert rows["source"].tolist() == ["a", "a", "b", "b"]
    assert rows["handedness"].tolist() == ["right", "left", "right", "left"]
    assert rows["person"].tolist() == [0, 0, 0, 1]
    assert set(rows["frame"]) == {0} and set(rows["time_s"]) == {0.0} and not rows["filled"].any()
    for row, hand in enumerate([*result.hands, *second.hands]):
        own = {name: column[row] for name, column in rows.items()}
        mesh = mano_forward(hands.hand(hand.side), own["betas"], hand.pose, own["transl_m"])
        np.testing.assert_allclose(own["pose_axis_angle_with_mean"], hand.full_pose, rtol=1e-6)
        np.testing.assert_allclose(mesh.vertices, hand.vertices, atol=1e-4)
        np.testing.assert_allclose(own["joints_m"], hand.joints, rtol=1e-6)
        np.testing.assert_allclose(own["joint_sigma_m"], hand.joint_sigma_m, rtol=1e-6)
        seen = result.camera.projection.project(hand.vertices)
        np.testing.assert_allclose(own["box_xywh_px"][:2], seen.min(0), atol=1e-3)
        np.testing.assert_allclose(own["box_xywh_px"][2:], np.ptp(seen, 0), atol=1e-3)
        np.testing.assert_allclose(own["keypoints_px"], hand.keypoints_px, rtol=1e-6)
        assert own["focal_px"].tolist() == list(map(np.float32, result.camera.focal_px))
        assert (own["width_px"], own["height_px"], own["focal_source"]) == (*SIZE, "given")
    np.testing.assert_allclose(rows["score"], [0.9, 0.9, 0.9, np.nan], rtol=1e-6)
    assert np.isnan(rows["detected_keypoints_px"][3]).all()
    assert np.isnan(rows["keypoint_confidence"][3]).all()
    np.testing.assert_allclose(rows["detected_keypoints_px"][0], result.hands[0].detected_px)
    assert (rows["keypoint_confidence"][:3] == 1).all()


def test_a_result_replaces_an_earlier_one_and_nothing_else(result, tmp_path):
    """Meshes of hands that are gone go; the picture and other pictures' files stay."""
    kept = [tmp_path / name for name in ("a.png", "a.json", "a_hands_1_right.txt", "b_hands.glb")]
    for file in (*kept, tmp_path / "a_hands_1_left.obj"):
        file.write_text("kept")
    result.save(tmp_path, "a")
    (person,) = result.persons
    one_hand = dataclasses.replace(result, persons=(dataclasses.replace(person, left=None),))
    one_hand.save(tmp_path, "a")
    assert all(file.read_text() == "kept" for file in kept)
    left = {file.name for file in tmp_path.glob("a_hands*.obj")}
    assert left == {"a_hands_right.obj"}
    dataclasses.replace(result, persons=()).save(tmp_path, "a")
    assert not list(tmp_path.glob("a_hands*.glb")) + list(tmp_path.glob("a_hands*.obj"))


@pytest.mark.parametrize("size", [(3, 900), (900, 3), (1, 1)])
def test_a_picture_of_any_shape_is_drawn(truth, tmp_path, size):
    engine = Engine(load_hands(), detector=Known(detected(truth)))
    found = engine(np.zeros((size[1], size[0], 3), np.uint8))
    found.save(tmp_path, "a")
    height, width, _ = cv2.imread(str(tmp_path / "a_hands.png")).shape
    assert (height, width) < (481, 4 * 480)


def test_the_overlay_covers_the_hands(result, truth):
    """Where the joints are the picture is painted, far from them it is as it was."""
    painted = result.overlay(opacity=1.0)
    before = result.photograph.pixels
    inside = (truth.keypoints[0] > 2).all(-1) & (truth.keypoints[0] < np.array(SIZE) - 3).all(-1)
    at = truth.keypoints[0][inside].round().astype(int)
    changed = (painted != before).any(-1)
    assert changed[at[:, 1], at[:, 0]].mean() > 0.9
    assert changed.mean() < 0.5
    assert result.overlay(longest_px=100).shape[:2] == (78, 100)


def test_keypoints_outside_the_picture_are_trusted_less(truth):
    (hand, _) = detected(truth)
    x = hand.keypoints_px[:, 0]
    width = int(np.median(x))
    sigma = _of_detector(hand, (width, 10_000)).keypoint_sigma_px
    inside = x < width - 0.5
    np.testing.assert_allclose(sigma[~inside], OUTSIDE_FACTOR * sigma[inside][0])
    assert OUTSIDE_FACTOR > 1
    assert 0 < inside.sum() < 21


@pytest.mark.parametrize("side", [0, 1])
def test_each_hands_keypoints_and_joints_of_the_network_are_its_own(side):
    random = np.random.default_rng(0)
    keypoints, joints = random.uniform(0, 300, (2, 21, 2)), random.normal(size=(2, 21, 3))
    said = SimpleNamespace(keypoints_px=keypoints, prediction=SimpleNamespace(joints=joints))
    seen = _of_network(said, side, error_m=0.02, share=0.5, depth_scale=1.0)
    np.testing.assert_allclose(seen.keypoints_px, keypoints[side], rtol=1e-12)
    np.testing.assert_array_equal(seen.joints_m, joints[side])
    np.testing.assert_array_equal(seen.joint_sigma_m, 0.01)


def test_what_is_doubtful_is_said(truth):
    def messages(hands, size=SIZE, focal=None):
        engine = Engine(load_hands(), detector=Known(hands))
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        return " | ".join(engine.many([picture], focal_px=focal)[0].messages)

    assert messages([]) == "no hand was found"
    assert "focal length assumed" in messages(detected(truth))
    assert messages(detected(truth), focal=600.0) == ""
    assert "may be the other side's (45%" in messages(detected(truth, side_probability=0.55))
    shuffled = truth.keypoints[0, 0][np.random.default_rng(1).permutation(21)]
    (wrong, _) = detected(truth)
    wrong = dataclasses.replace(wrong, keypoints_px=shuffled, joints_m=None)
    assert "no hand can lie as its keypoints say" in messages([wrong])
    (tiny, _) = detected(truth)
    shrunk = tiny.keypoints_px / 10
    box = np.concatenate([shrunk.min(0), np.ptp(shrunk, axis=0)])
    tiny = dataclasses.replace(tiny, keypoints_px=shrunk, box_px=box)
    assert "too small" in messages([tiny])


def test_several_persons_have_numbered_files(truth, tmp_path):
    right, left = detected(truth)
    moved = np.array([900.0, 0.0])
    box = np.concatenate([right.box_px[:2] + moved, right.box_px[2:]])
    far = dataclasses.replace(right, keypoints_px=right.keypoints_px + moved, box_px=box)
    picture = np.zeros((400, 1500, 3), np.uint8)
    engine = Engine(load_hands(), detector=Known([right, left, far]))
    found = engine(picture)
    assert len(found.persons) == 2
    assert found.persons[1].rel_trans is None
    names = {file.name for file in found.save(tmp_path, "a")}
    assert {"a_hands_1_right.obj", "a_hands_1_left.obj", "a_hands_2_right.obj"} <= names


def test_a_box_needs_a_network(result):
    engine = Engine(load_hands(), detector=None)
    picture = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ConfigError, match="give its weights too"):
        engine(picture, box=(0, 0, 5, 5))
    with pytest.raises(ConfigError, match="a box must be given"):
        engine(picture)
    for one in (picture, "a.jpg"):
        with pytest.raises(ConfigError, match="takes a list of pictures"):
            engine.many(one)


class SaidByNetwork:
    """A network that sees two drawn hands, and says how likely each is there."""

    def __init__(self, truth: Truth, presence: tuple[float, float] | None):
        wrists = truth.joints[0, :, :1]
        logit = None if presence is None else np.log(np.array(presence) / (1 - np.array(presence)))
        prediction = SimpleNamespace(
            joints=truth.joints[0] - wrists,
            pose=np.zeros((2, 48)),
            betas=np.zeros((2, 10)),
            rel_trans=(wrists[1] - wrists[0])[0],
            joint_spread=np.arange(42.0).reshape(2, 21),
        )
        self._said = SimpleNamespace(
            prediction=prediction,
            keypoints_px=truth.keypoints[0],
            presence=None if logit is None else 1 / (1 + np.exp(-logit)),
        )

    def many(self, images, boxes):
        return [self._said] * len(images)


@pytest.mark.parametrize(
    ("presence", "shown", "sides"),
    [
        (None, "present", ["right", "left"]),
        ((0.9, 0.8), "present", ["right", "left"]),
        ((0.9, 0.1), "present", ["right"]),
        ((0.2, 0.7), "present", ["left"]),
        ((0.2, 0.3), "present", []),
        ((0.2, 0.7), "both", ["right", "left"]),
        ((0.2, 0.3), "both", ["right", "left"]),
    ],
)
def test_hands_that_the_network_says_are_absent_are_shown_only_on_request(
    truth, presence, shown, sides, tmp_path
):
    network = SaidByNetwork(truth, presence)
    engine = Engine(load_hands(), detector=None, network=network, hands_shown=shown)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    found = engine(picture, box=(0, 0, *SIZE), focal_px=tuple(FOCAL))
    assert [hand.side for hand in found.hands] == sides
    for hand in found.hands:
        probability = None if presence is None else presence[HANDS.index(hand.side)]
        assert hand.score == pytest.approx(probability)
        assert hand.present == (probability is None or probability > 0.5)
        said = f"{hand.side} hand: the network says that it is not there"
        assert any(said in message for message in found.messages) != hand.present
    assert any("sees no hand in the box" in message for message in found.messages) == (not sides)
    files = {file.name for file in found.save(tmp_path, "a")}
    assert {side for side in HANDS if f"a_hands_{side}.obj" in files} == {*sides}


def test_a_picture_whose_box_is_empty_leaves_the_others_as_they_are(truth):
    nobody, somebody = (SaidByNetwork(truth, (p, p))._said for p in (0.1, 0.9))
    network = SimpleNamespace(many=lambda images, boxes: [nobody, somebody])
    engine = Engine(load_hands(), detector=None, network=network)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    first, second = engine.many([picture, picture], [(0, 0, *SIZE)] * 2)
    assert (len(first.hands), len(second.hands)) == (0, 2)
    assert "no hand was found" in first.messages
    assert not any("no hand" in message for message in second.messages)


def test_a_networks_hand_is_as_sure_as_its_heatmaps(truth):
    """Not as sure as a fit that was told to leave it as it is."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    network, box = SaidByNetwork(truth, (0.9, 0.9)), (0, 0, *SIZE)
    confidence = Calibration(tuple(range(21)), 1.0)
    engine = Engine(load_hands(), detector=None, network=network, confidence=confidence)
    for side, hand in enumerate(engine(picture, box=box).hands):
        spread = np.arange(21 * side, 21 * side + 21)
        np.testing.assert_allclose(hand.joint_sigma_m, np.arange(21) * (spread + 0.05) / 1000)
    plain = Engine(load_hands(), detector=None, network=network, network_error_m=0.03)
    for hand in plain(picture, box=box).hands:
        np.testing.assert_allclose(hand.joint_sigma_m, 0.03)


def test_the_network_s_hand_is_nearer_by_its_validation_s_factor(truth):
    """Of two, the distance between them has its say too."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    network, box = SaidByNetwork(truth, (0.9, 0.1)), (0, 0, *SIZE)
    wrists = []
    for scale in (1.0, 0.8):
        confidence = Calibration((1.0,) * 21, 1.0, scale)
        engine = Engine(load_hands(), detector=None, network=network, confidence=confidence)
        found = engine(picture, box=box, focal_px=tuple(FOCAL))
        wrists.append(found.hands[0].joints[0])
    assert wrists[1][2] / wrists[0][2] == pytest.approx(0.8, rel=0.02)


def test_hands_are_shown_in_one_of_two_ways():
    with pytest.raises(ConfigError, match="choose present or both"):
        Engine(load_hands(), detector=None, hands_shown="all")


# The commands


@pytest.fixture
def known_detector(truth, monkeypatch):
    """The commands find what the truth says."""
    monkeypatch.setattr(
        "er_jax.photographs.load.MediaPipeHands", lambda folder: Known(detected(truth))
    )


def test_the_command_does_what_it_can(known_detector, tmp_path, capsys):
    inside = tmp_path / "in"
    inside.mkdir()
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", SIZE, "grey").save(inside / name)
    (inside / "broken.jpg").write_text("no image")
    (inside / "notes.txt").write_text("not looked at")
    with pytest.raises(BadImageError, match=r"1 of 3 pictures were left out.*broken\.jpg"):
        run_photographs([inside], tmp_path / "out", focal_px=(600.0, 600.0))
    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"a_hands.json", "b_hands.json", "a_hands.png", "b_hands_left.obj"} <= made
    assert "broken_hands.json" not in made
    assert "a.jpg" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out/a_hands.json").read_text())["camera"]["focal_source"] == "given"
    )


def test_hands_that_another_detector_found(truth, tmp_path):
    Image.new("RGB", SIZE, "grey").save(tmp_path / "a.jpg")
    write_keypoints(tmp_path / "k.json", [ImageKeypoints("a.jpg", detected(truth))])
    out = tmp_path / "out"
    run_photographs([tmp_path / "a.jpg"], out, detections=tmp_path / "k.json")
    found = json.loads((out / "a_hands.json").read_text())["persons"][0]
    assert found["right"]["source"] == "fit"
    Image.new("RGB", SIZE, "grey").save(tmp_path / "unknown.jpg")
    pictures = [tmp_path / "unknown.jpg", tmp_path / "a.jpg"]
    with pytest.raises(BadImageError, match="1 of 2 pictures were left out"):
        run_photographs(pictures, tmp_path / "two", detections=tmp_path / "k.json")
    assert (tmp_path / "two/a_hands.json").exists()


def test_what_was_done_before_an_interruption_is_told(
    known_detector, truth, tmp_path, monkeypatch, caplog
):
    pictures = [tmp_path / f"{number}.png" for number in range(BATCH + 1)]
    for picture in pictures:
        Image.new("RGB", SIZE, "grey").save(picture)
    pictures[-1].unlink()

    def interrupted(path):
        if path == pictures[-1]:
            raise KeyboardInterrupt
        return read_photograph(path)

    monkeypatch.setattr("er_jax.commands.photographs.read_photograph", interrupted)
    with pytest.raises(SystemExit) as ended:
        run_photographs(pictures, tmp_path / "out")
    assert ended.value.code == 130
    assert f"{BATCH} pictures are done" in caplog.text


def test_keypoints_alone_become_hands(truth, tmp_path):
    """`python -m er_jax.fit`: no picture is read."""
    hands = [dataclasses.replace(hand, joints_m=None) for hand in detected(truth)]
    write_keypoints(tmp_path / "k.json", [ImageKeypoints("a.jpg", hands, SIZE, tuple(FOCAL))])
    out = tmp_path / "out"
    run_fit(read_keypoints(tmp_path / "k.json"), out)
    found = json.loads((out / "a_hands.json").read_text())["persons"][0]
    assert found["right"]["reprojection_px"] < 4
    write_keypoints(tmp_path / "k.json", [ImageKeypoints("a.jpg", hands)])
    with pytest.raises(ConfigError, match="--size WIDTH,HEIGHT"):
        run_fit(read_keypoints(tmp_path / "k.json"), out)
    run_fit(read_keypoints(tmp_path / "k.json"), out, size_px=SIZE)


def test_without_a_network_the_missing_detector_is_told(tmp_path, monkeypatch):
    def refuse(folder):
        raise DetectorError("pip could not fetch")

    monkeypatch.setattr("er_jax.photographs.load.MediaPipeHands", refuse)
    Image.new("RGB", SIZE, "grey").save(tmp_path / "a.jpg")
    with pytest.raises(DetectorError, match="could not fetch"):
        run_photographs([tmp_path / "a.jpg"], tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "no picture given"),
        (["a.jpg"], {"boxes": [[0, 0, 5, 5]]}, "--box is for a trained network"),
        (["a.jpg"], {"boxes": [[0, 0, 0, 5]], "weights": Path("x")}, "w and h above zero"),
        (["a.jpg", "b.jpg"], {"boxes": [[0, 0, 5, 5]], "weights": Path("x")}, "1 boxes for 2"),
        (["a.jpg"], {"visualize": True}, "give --weights too"),
        (["a.jpg"], {"boxes": [[0, 0, 5, 5]], "detections": Path("k")}, "give one of them"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, names, options, message):
    with pytest.raises(ConfigError, match=message):
        run_photographs([Path(name) for name in names], tmp_path, **options)


@pytest.mark.parametrize(("text", "count"), [("wide", None), ("1,2,3", None), ("1,2", 4), ("", 2)])
def test_numbers_that_are_none(text, count):
    assert numbers("--focal", None) is None
    assert numbers("--focal", "3,4.5") == [3, 4.5]
    with pytest.raises(ConfigError, match=f"--focal={text}: give"):
        numbers("--focal", text, count)


def test_folders_stand_for_their_pictures(tmp_path, caplog):
    for name in ("b.JPG", "a.png", "c.txt", "a_hands.png", "a_hands_1_attention.png"):
        (tmp_path / name).touch()
    (tmp_path / "a_hands.json").touch()  # so that those are this command's drawings
    assert [path.name for path in pictures_of([tmp_path])] == ["a.png", "b.JPG"]
    assert not caplog.text
    (tmp_path / "empty").mkdir()
    assert len(list(pictures_of([tmp_path]))) == 2
    assert "folders in it are left out: empty" in caplog.text
    with pytest.raises(NotFoundError, match="no picture in this folder"):
        list(pictures_of([tmp_path / "empty"]))


def test_images_of_one_name_are_numbered():
    names = output_names([Path("a/x.jpg"), Path("b/y.jpg"), Path("b/x.png")])
    assert names == ["x_1", "y", "x_2"]
    names = output_names([Path("a/x.jpg"), Path("b/x.jpg"), Path("c/x_1.jpg")])
    assert names == ["x_2", "x_3", "x_1"]


def test_the_command_and_the_package_say_what_they_are(tmp_path, capsys):
    failed = subprocess.run(
        [
            *(sys.executable, "-m", "er_jax", str(tmp_path / "no.jpg"), "--visualize"),
            f"--output={tmp_path / 'hands'}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == ConfigError.exit_code
    assert "give --weights too" in re.sub(r"\s+", " ", failed.stderr)
    assert (tmp_path / "hands/log.txt").exists()
    (tmp_path / "file").touch()
    failed = subprocess.run(
        [*(sys.executable, "-m", "er_jax", "a.jpg"), f"--output={tmp_path / 'file/out'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == DiskError.exit_code
    assert "Traceback" not in failed.stderr
    with pytest.raises(SystemExit) as ended:
        photographs_command(["--help"])
    assert not ended.value.code
    assert "--weights" in re.sub(r"\s+", " ", capsys.readouterr().out)
    assert callable(er_jax.reconstruct)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = er_jax.nothing


def test_a_photograph_is_taken_as_it_is(result):
    assert photograph_of(result.photograph) is result.photograph
    assert isinstance(photograph_of(Image.new("L", (3, 2))), Photograph)
