"""The rules from InterHand2.6M's annotation files to records."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tiny_tree import FOCAL, HEIGHT, PRINCPT, WIDTH, TinyTree, annotation_path, tiny_tree

from data_pipeline.boxes import joint_boxes
from data_pipeline.readers.interhand26m.reader import read_split, splits_of
from data_pipeline.records import BOX_SOURCES, HAND_TYPES, RecordTable
from er_jax.mano.joints import HAND21, INTERHAND21
from er_jax.utils.errors import DataError

SHARED = Path(__file__).parents[2] / "shared"
RIGHT_WRIST, LEFT_WRIST = 20, 41

needs_fixtures = pytest.mark.skipif(
    not (SHARED / "fixtures").exists(), reason="the shared fixtures are not beside the repository"
)


def read(tree: TinyTree, folder: Path, **options) -> RecordTable:
    return read_split(tree.write_annotations(folder), tree.split, **options).table


def column(table: RecordTable, name: str) -> np.ndarray:
    return np.stack([table.record(i)[name] for i in range(len(table))])


def test_a_record_holds_what_the_files_say(tmp_path):
    tree = tiny_tree()
    table = read(tree, tmp_path)
    assert len(table) == 8
    for i in range(8):
        record = table.record(i)
        image = tree.data["images"][i]
        assert record["file_name"] == image["file_name"]
        assert (record["annotation_id"], record["image_id"]) == (i, 100 + i)
        assert (record["capture"], record["camera"]) == (str(image["capture"]), image["camera"])
        assert (record["seq_name"], record["frame_idx"]) == ("ROM01", image["frame_idx"])
        assert record["image_size_px"].tolist() == [WIDTH, HEIGHT]
        assert HAND_TYPES[record["hand_type"]] == "interacting"
        fit = tree.mano[record["capture"]][str(image["frame_idx"])]
        for hand, side in enumerate(("right", "left")):
            np.testing.assert_allclose(record["mano_pose"][hand], fit[side]["pose"], rtol=1e-6)
            np.testing.assert_allclose(record["mano_betas"][hand], fit[side]["shape"], rtol=1e-6)
            np.testing.assert_allclose(record["mano_trans_m"][hand], fit[side]["trans"], rtol=1e-6)


def test_joints_are_reordered_by_name(tmp_path):
    tree = tiny_tree(frames=1, cameras=1)
    frame = tree.joint_3d["0"]["20000"]
    frame["world_coord"] = [[float(i), float(i), 0.0] for i in range(42)]
    frame["joint_valid"][INTERHAND21.index("Ring_3")] = [0]
    tree.data["annotations"][0]["joint_valid"][21 + INTERHAND21.index("Thumb_4")] = 0
    record = read(tree, tmp_path).record(0)
    for hand in range(2):
        for joint, name in enumerate(HAND21):
            assert record["joint_world_mm"][hand, joint, 0] == 21 * hand + INTERHAND21.index(name)
    assert np.argwhere(~record["joint_valid_world"]).tolist() == [[0, HAND21.index("Ring_3")]]
    assert np.argwhere(~record["joint_valid_view"]).tolist() == [[1, HAND21.index("Thumb_4")]]


def test_camera_translation_takes_the_camera_centre_to_the_origin(tmp_path):
    tree = tiny_tree()
    table = read(tree, tmp_path)
    for i in range(len(table)):
        record = table.record(i)
        position = tree.camera[record["capture"]]["campos"][record["camera"]]
        centre = record["camera_rotation"] @ position + record["camera_translation_mm"]
        np.testing.assert_allclose(centre, 0, atol=1e-3)


def test_keys_may_be_numbers_or_strings(tmp_path):
    tree = tiny_tree()
    expected = read(tree, tmp_path / "numbers")
    for image in tree.data["images"]:
        image.update({k: str(image[k]) for k in ("capture", "subject", "frame_idx")})
        image["camera"] = int(image["camera"])
    table = read(tree, tmp_path / "strings")
    for i in range(len(table)):
        for name, value in expected.record(i).items():
            np.testing.assert_array_equal(table.record(i)[name], value, err_msg=name)


def test_a_hand_whose_wrist_is_invalid_has_no_valid_joint(tmp_path):
    tree = tiny_tree(frames=1, cameras=1)
    tree.data["annotations"][0]["joint_valid"][RIGHT_WRIST] = 0
    tree.joint_3d["1"]["20000"]["joint_valid"] = [[int(i != LEFT_WRIST)] for i in range(42)]
    table = read(tree, tmp_path)
    view, world = column(table, "joint_valid_view"), column(table, "joint_valid_world")
    assert view.all(axis=-1).tolist() == view.any(axis=-1).tolist() == [[False, True], [True, True]]
    assert world.all(axis=-1).tolist() == [[False, True], [True, False]]
    assert world.any(axis=-1).tolist() == [[False, True], [True, False]]


def test_a_hand_without_a_visible_joint_is_absent_with_its_fit(tmp_path):
    tree = tiny_tree(frames=1, cameras=1)
    tree.data["annotations"][0]["joint_valid"] = [0] * 21 + [1] * 21
    record = read(tree, tmp_path).record(0)
    assert record["mano_valid"].tolist() == [False, True]
    assert not record["joint_valid_world"][0].any()
    assert record["joint_valid_world"][1].all()


def test_annotations_are_dropped_by_the_first_rule_that_applies(tmp_path):
    tree = tiny_tree(frames=2, cameras=2)
    annotations = tree.data["annotations"]
    annotations[0]["joint_valid"] = [0] * 42
    annotations[1]["joint_valid"] = [int(i not in (RIGHT_WRIST, LEFT_WRIST)) for i in range(42)]
    tree.joint_3d["0"]["20003"]["joint_valid"] = [[0]] * 42
    tree.joint_3d["1"]["20000"]["world_coord"] = [[900.0 + i, 900.0, 0.0] for i in range(42)]
    tree.camera["1"]["campos"]["400261"] = tree.camera["1"]["campos"]["400260"]
    tree.camera["1"]["camrot"]["400261"] = tree.camera["1"]["camrot"]["400260"]
    index = read_split(tree.write_annotations(tmp_path), "train")
    assert index.counts == {
        "annotations": 8,
        "dropped: no visible joint": 2,
        "dropped: no joint in 3D": 2,
        "dropped: box misses the image": 2,
        "usable": 2,
        "usable and interacting_mano, if not dark": 2,
        "not in subset all": 0,
    }
    assert column(index.table, "annotation_id").tolist() == [6, 7]


def test_fits_may_be_missing_by_hand_by_frame_and_by_capture(tmp_path):
    tree = tiny_tree(frames=3, cameras=1)
    tree.mano["0"]["20000"]["left"] = None
    del tree.mano["0"]["20003"]
    tree.mano["0"]["20006"] = None
    del tree.mano["1"]
    valid = column(read(tree, tmp_path), "mano_valid")
    assert valid.tolist() == [[True, False]] + [[False, False]] * 5


def reference_box(points: np.ndarray) -> list[float]:
    """The box of one hand's points, written out."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    grow_x, grow_y = 0.125 * (right - left), 0.125 * (bottom - top)
    left, right = max(left - grow_x, 0), min(right + grow_x, WIDTH - 1)
    top, bottom = max(top - grow_y, 0), min(bottom + grow_y, HEIGHT - 1)
    side = 1.25 * max(right - left, bottom - top)
    return [(left + right - side) / 2, (top + bottom - side) / 2, side, side]


def test_box_of_the_joints_of_the_hand_that_is_there(tmp_path):
    """Joints valid in 3D count, whether this view sees them or not."""
    tree = tiny_tree(frames=1, cameras=1)
    annotation, frame = tree.data["annotations"][0], tree.joint_3d["0"]["20000"]
    annotation["joint_valid"] = [1] * 21 + [0] * 21
    frame["world_coord"][2] = [-70.0, -50.0, 0.0]
    annotation["joint_valid"][2] = 0  # not seen here: counts all the same
    frame["world_coord"][5] = [80.0, 60.0, 0.0]
    frame["joint_valid"][5] = [0]  # its place is unknown
    record = read(tree, tmp_path).record(0)
    world = np.array(frame["world_coord"])[:21]
    counted = np.delete(world, 5, axis=0) + np.array([0, 0, 1000])
    pixels = counted[:, :2] / counted[:, 2:] * FOCAL + PRINCPT
    np.testing.assert_allclose(record["bbox_px"], reference_box(pixels), rtol=1e-5)
    assert BOX_SOURCES[record["bbox_source"]] == "joints"


def test_box_of_two_hands_is_the_union_of_their_enlarged_boxes():
    points = np.zeros((1, 2, 2, 2))
    points[0, 0] = [[100, 100], [140, 120]]  # enlarged: 95..145, 97.5..122.5
    points[0, 1] = [[200, 150], [240, 190]]  # enlarged: 195..245, 145..195
    box, usable = joint_boxes(points, np.ones((1, 2, 2), bool), np.array([[512, 334]]))
    # The union is 95..245 by 97.5..195: 150 wide, made square about (170, 146.25), times 1.25.
    np.testing.assert_allclose(box, [[170 - 93.75, 146.25 - 93.75, 187.5, 187.5]])
    assert usable.all()


def test_box_is_clipped_before_it_is_made_square():
    points = np.zeros((1, 2, 2, 2))
    points[0, 0] = [[-80, 100], [80, 180]]  # enlarged: -100..100, 90..190; clipped: 0..100
    valid = np.array([[[True, True], [False, False]]])
    box, _ = joint_boxes(points, valid, np.array([[512, 334]]))
    np.testing.assert_allclose(box, [[50 - 62.5, 140 - 62.5, 125, 125]])
    points[0, 0, :, 0] -= 200
    assert not joint_boxes(points, valid, np.array([[512, 334]]))[1].any()
    assert not joint_boxes(points, np.zeros_like(valid), np.array([[512, 334]]))[1].any()


@pytest.mark.parametrize("folder", ["rootnet", "rootnet_output"])
def test_rootnet_boxes_and_depths_for_test(tmp_path, folder):
    tree = tiny_tree("test", frames=1, cameras=1)
    boxes = [[-3.5, 2.0, 50.0, 50.0], [500.0, 2.0, 50.0, 50.0]]
    tree.write_rootnet(
        tmp_path,
        [{"annot_id": i, "bbox": boxes[i], "abs_depth": [900.0 + i, 950.0]} for i in (1, 0)],
        folder,
    )
    index = read_split(tree.write_annotations(tmp_path), "test")
    assert index.counts["dropped: box misses the image"] == 1
    record = index.table.record(0)
    assert record["bbox_px"].tolist() == boxes[0]
    assert record["abs_depth_mm"].tolist() == [900.0, 950.0]
    assert record["abs_depth_valid"]
    joints = read_split(tmp_path, "test", box_choice="joints").table.record(0)
    assert BOX_SOURCES[joints["bbox_source"]] == "joints"
    assert joints["abs_depth_valid"]


def test_without_rootnet_the_joints_boxes_are_taken_and_the_log_says_so(tmp_path, caplog):
    tree = tiny_tree("test", frames=1, cameras=1)
    with caplog.at_level(logging.WARNING):
        table = read(tree, tmp_path)
    assert "test: there is no RootNet file for it" in caplog.text
    assert {BOX_SOURCES[s] for s in column(table, "bbox_source")} == {"joints"}
    assert not column(table, "abs_depth_valid").any()
    caplog.clear()
    tree.write_rootnet(tmp_path, [{"annot_id": 1, "bbox": [1, 2, 9, 9], "abs_depth": [1, 2]}])
    table = read(tree, tmp_path)
    assert "1 annotations are not in the RootNet file" in caplog.text
    assert [BOX_SOURCES[s] for s in column(table, "bbox_source")] == ["joints", "rootnet"]


def test_rootnet_asked_for_and_absent(tmp_path):
    with pytest.raises(DataError, match=r"there is no rootnet_output/ .* give --boxes=joints"):
        read(tiny_tree(), tmp_path, box_choice="rootnet")


def test_interacting_mano_needs_the_type_its_validity_and_both_fits(tmp_path):
    tree = tiny_tree(frames=2, cameras=1)
    annotations = tree.data["annotations"]
    annotations[0]["hand_type"] = "right"
    annotations[1]["hand_type_valid"] = 0
    tree.mano["1"]["20000"]["right"] = None
    index = read_split(tree.write_annotations(tmp_path), "train", subset="interacting_mano")
    assert column(index.table, "annotation_id").tolist() == [3]
    assert index.counts["not in subset interacting_mano"] == 3
    assert index.drop_dark


def test_subset_by_a_list_of_ids(tmp_path):
    table = read(tiny_tree(), tmp_path, subset="human_annot", annotation_ids=np.array([5, 2]))
    assert column(table, "annotation_id").tolist() == [2, 5]


# Errors


def test_missing_file(tmp_path):
    tree = tiny_tree()
    for name in ("data", "camera", "joint_3d", "MANO_NeuralAnnot"):
        tree.write_annotations(tmp_path)
        annotation_path(tmp_path, name).unlink()
        with pytest.raises(DataError, match=rf"_{name}\.json is missing\. Lay the dataset out"):
            read_split(tmp_path, "train")


def test_missing_split(tmp_path):
    tiny_tree().write_annotations(tmp_path)
    assert splits_of(tmp_path) == ("train",)
    with pytest.raises(DataError, match="has no split 'val', only train"):
        read_split(tmp_path, "val")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_download_cut_short(tmp_path, share):
    tree = tiny_tree()
    for name in ("data", "camera", "joint_3d", "MANO_NeuralAnnot"):
        path = annotation_path(tree.write_annotations(tmp_path), name)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=rf"{name}\.json: no valid JSON .* cut short"):
            read_split(tmp_path, "train")


def _another_version(tree: TinyTree, case: str) -> str:
    """Spoils one file and returns what the message must name."""
    if case == "annotation without a key":
        del tree.data["annotations"][3]["hand_type_valid"]
        return r"_data\.json: .*hand_type_valid.*annotations\[3\]"
    if case == "unknown hand type":
        tree.data["annotations"][2]["hand_type"] = "both"
        return r"_data\.json: annotations\[2\]\.hand_type is 'both', not one of right, left, inter"
    if case == "another number of joints":
        tree.data["annotations"][1]["joint_valid"] = [1] * 21
        return r"annotations\[1\]\.joint_valid is of shape \(21,\) instead of \(42,\)"
    if case == "joints of one hand":
        tree.joint_3d["1"]["20000"]["world_coord"] = [[0.0, 0.0, 0.0]] * 21
        return r"_joint_3d\.json: 1/20000/world_coord is of shape \(21, 3\)"
    if case == "pose in components":
        tree.mano["0"]["20003"]["left"]["pose"] = [0.0] * 9
        return r"0/20003/left/pose is of shape \(9,\) instead of \(48,\)"
    if case == "ragged joints":
        tree.joint_3d["0"]["20000"]["world_coord"][7] = [1.0]
        return "0/20000/world_coord is ragged"
    if case == "camera without focal":
        del tree.camera["0"]["focal"]["400261"]
        return "camera 400261 of capture 0 is incomplete"
    if case == "an id twice":
        tree.data["annotations"][1]["id"] = 0
        return r"id 0 occurs twice in annotations\[\]"
    if case == "list instead of object":
        tree.camera = []
        return "_camera.json: Expected `object`, got `array`"
    tree.data["annotations"] = []
    return r"images\[\] or annotations\[\] is empty"


@pytest.mark.parametrize(
    "case",
    [
        "annotation without a key",
        "unknown hand type",
        "another number of joints",
        "joints of one hand",
        "pose in components",
        "ragged joints",
        "camera without focal",
        "an id twice",
        "list instead of object",
        "no annotation",
    ],
)
def test_json_of_another_version(tmp_path, case):
    tree = tiny_tree()
    message = _another_version(tree, case)
    with pytest.raises(DataError, match=message) as raised:
        read(tree, tmp_path)
    assert "knows InterHand2.6M v1.0" in str(raised.value)


def test_files_that_contradict_each_other(tmp_path):
    tree = tiny_tree()
    del tree.camera["1"]
    with pytest.raises(DataError, match=r"_camera\.json: camera 400260 of capture 1 is absent"):
        read(tree, tmp_path)
    tree = tiny_tree()
    del tree.joint_3d["1"]["20003"]
    with pytest.raises(DataError, match=r"_joint_3d\.json: frame 20003 of capture 1 is absent"):
        read(tree, tmp_path)
    tree = tiny_tree()
    del tree.data["images"][2]
    with pytest.raises(DataError, match=r"annotation 2 names image 102, which images\[\]"):
        read(tree, tmp_path)


def test_empty_selection(tmp_path):
    tree = tiny_tree()
    for annotation in tree.data["annotations"]:
        annotation["hand_type"] = "right"
    with pytest.raises(DataError, match="no annotation of split 'train' is left for subset 'inter"):
        read(tree, tmp_path, subset="interacting_mano")
    tree.data["annotations"][3]["joint_valid"] = [0] * 42
    with pytest.raises(DataError, match="not in subset machine_annot: 7"):
        read(tree, tmp_path, subset="machine_annot", annotation_ids=np.array([3]))


def test_ids_of_another_split(tmp_path):
    ids = np.array([5, 2, 77, 78])
    with pytest.raises(DataError, match=r"2 of the 4 ids .* such as 77\. .* another split"):
        read(tiny_tree(), tmp_path, subset="human_annot", annotation_ids=ids)


# The fixtures


@needs_fixtures
def test_fixture_validities():
    """The rules of the field as the reference code applies them."""
    expected = np.load(SHARED / "fixtures/expected/targets_expected.npz")
    table = read_split(SHARED / "fixtures/ih26m", "train").table
    rows = {int(a): i for i, a in enumerate(column(table, "annotation_id"))}
    for i in np.flatnonzero(expected["augmentations"][expected["augmentation_index"], 2] == 0):
        record = table.record(rows[int(expected["annotation_id"][i])])
        valid = expected["joint_valid"][i].reshape(2, 21) > 0
        np.testing.assert_array_equal(record["joint_valid_world"], valid)
        np.testing.assert_array_equal(record["mano_valid"], expected["mano_hand_valid"][i] > 0)


@needs_fixtures
def test_fixture_rootnet_boxes_are_taken_as_they_are():
    entries = json.loads(
        (SHARED / "fixtures/ih26m/rootnet/rootnet_interhand2.6m_output_test.json").read_text()
    )
    table = read_split(SHARED / "fixtures/ih26m", "test").table
    given = {entry["annot_id"]: entry["bbox"] for entry in entries}
    for i in range(len(table)):
        record = table.record(i)
        np.testing.assert_allclose(
            record["bbox_px"], given[int(record["annotation_id"])], rtol=1e-6
        )
