"""Own data by a JSON-lines file: what it says is what training is taught."""

import copy
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from own_data import (
    Entry,
    fits_alone,
    in_camera_axes,
    in_pixels,
    write_lines,
    write_noise,
    write_own_data,
)
from PIL import Image

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.build import __main__ as build
from data_pipeline.build.request import REPORT
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.loader import make_train_loader
from data_pipeline.records import BOX_SOURCES, HAND_TYPES
from er_jax.mano import HAND21, INTERHAND21, joint_order, load_hands
from er_jax.supervision.targets import Targets, compiled_targets

COUNT = 8


@pytest.fixture(scope="module")
def source(data_dir) -> RecordSource:
    return RecordSource(find_dataset(data_dir, "interhand26m"), "test")


def run(folder: Path, *options: str) -> Path:
    arguments = [f"--annotations={folder / 'annotations.jsonl'}", f"--data_dir={folder / 'ds'}"]
    assert build.main(["records", *arguments, "--workers=1", *options]) == 0
    return folder / "ds"


def targets_of(data_dir: Path, dataset: str, split: str) -> dict[int, Targets]:
    """The unvaried targets of a split by the record's place in the file that it is from."""
    samples = AnnotatedSplit(data_dir, dataset, split, batch_size=32)
    (batch,) = samples
    arrays = {k: v for k, v in batch.items() if k not in ("annotation_id", "sample_mask")}
    targets = jax.tree.map(np.asarray, compiled_targets(load_hands(None), arrays))
    ids = batch["annotation_id"][: samples.sample_count]
    return {int(i): jax.tree.map(lambda x, k=k: x[k], targets) for k, i in enumerate(ids)}


@pytest.fixture(scope="module")
def known(data_dir, source) -> list[Targets]:
    """The targets of the dataset's own records, in their order."""
    by_id = targets_of(data_dir, "interhand26m", "test")
    return [by_id[int(source[i]["annotation_id"])] for i in range(COUNT)]


def own_targets(source, folder, change, *options: str) -> list[Targets]:
    write_own_data(folder, source, COUNT, change)
    by_line = targets_of(run(folder, *options), "records", "train")
    return [by_line[line] for line in range(1, COUNT + 1)]


def assert_same(found: Targets, expected: Targets, names, tolerance=2e-5, mask=None) -> None:
    for name in names:
        own, true = getattr(found, name), getattr(expected, name)
        if mask is not None:
            where = np.broadcast_to(
                mask.reshape(*mask.shape, *[1] * (true.ndim - mask.ndim)), true.shape
            )
            own, true = own[where], true[where]
        np.testing.assert_allclose(own, true, atol=tolerance, err_msg=name)


MASKS = ("joint_valid", "joint_trunc", "joint_xy_valid", "joint_xy_trunc", "rel_trans_valid")


def test_everything_said_of_the_world_is_taught_as_the_dataset_does(source, known, tmp_path):
    for own, true in zip(own_targets(source, tmp_path, lambda e: e), known, strict=True):
        fits = ("mano_hand_valid", "mano_pose_valid", "mano_joint_trunc")
        assert_same(own, true, (*MASKS, *fits, "hand_present", "hand_present_valid"), 0)
        joints = ("joint_cam", "joint_img")
        assert_same(own, true, joints, 1e-3, true.joint_valid)
        assert_same(own, true, ("joint_cam",), mask=true.joint_valid)
        assert_same(own, true, ("wrist_cam",), mask=true.wrist_cam_valid)
        assert_same(
            own, true, ("mano_pose", "mano_shape", "mano_mesh_cam"), 1e-5, true.mano_hand_valid
        )
        assert_same(own, true, ("cells_to_rays",), 1e-5)


def test_joints_in_the_camera_s_axes_are_the_same_joints(source, known, tmp_path):
    for own, true in zip(own_targets(source, tmp_path, in_camera_axes), known, strict=True):
        assert_same(own, true, MASKS, 0)
        assert_same(own, true, ("joint_cam",), mask=true.joint_valid)
        assert_same(own, true, ("wrist_cam",), mask=true.wrist_cam_valid)
        assert_same(own, true, ("joint_img",), 1e-3, true.joint_valid)
        assert not own.mano_hand_valid.any()


def test_joints_in_another_order_are_put_right(source, known, tmp_path):
    order = joint_order(HAND21, INTERHAND21)

    def reordered(entry: Entry) -> Entry:
        entry = {**in_camera_axes(entry), "joint_order": "interhand26m"}
        for side in ("right", "left"):
            if side in entry:
                entry[side] = {k: [v[i] for i in order] for k, v in entry[side].items()}
        return entry

    for own, true in zip(own_targets(source, tmp_path, reordered), known, strict=True):
        assert_same(own, true, MASKS, 0)
        assert_same(own, true, ("joint_cam",), mask=true.joint_valid)


def test_joints_in_the_image_alone_teach_their_place_in_it_alone(source, known, tmp_path):
    for own, true in zip(own_targets(source, tmp_path, in_pixels), known, strict=True):
        both = own.joint_xy_valid & true.joint_xy_valid
        assert both.any()
        np.testing.assert_allclose(
            own.joint_img[..., :2][both], true.joint_img[..., :2][both], atol=1e-3
        )
        assert not (own.joint_valid.any() or own.joint_trunc.any() or own.wrist_cam_valid.any())
        assert not (own.mano_hand_valid.any() or own.rel_trans_valid)
    record = RecordSource(find_dataset(tmp_path / "ds", "records"), "train")
    features = (record.folder / "features.json").read_text()
    for absent in ("joint_world_mm", "mano_pose", "focal_px", "camera_rotation", "capture"):
        assert absent not in features


def test_fits_alone_give_joints_too(source, known, tmp_path):
    found = own_targets(source, tmp_path, fits_alone, "--mano_dir=stand_in")
    for own, true in zip(found, known, strict=True):
        fitted = true.mano_hand_valid
        assert_same(own, true, ("mano_mesh_cam", "mano_joint_cam"), 1e-5, fitted)
        np.testing.assert_allclose(own.joint_cam[fitted], true.mano_joint_cam[fitted], atol=2e-5)
        assert own.joint_valid[fitted].all()


def test_the_mean_pose_is_taken_out(source, known, tmp_path):
    mean = np.asarray(load_hands(None).mean_pose)

    def with_mean(entry: Entry) -> Entry:
        entry = copy.deepcopy(fits_alone(entry))
        for index, side in enumerate(("right", "left")):
            if "mano" in entry.get(side, {}):
                fit = entry[side]["mano"]
                fit["pose"] = (np.array(fit["pose"]) + np.pad(mean[index], (3, 0))).tolist()
                fit["mean_pose_included"] = True
        return entry

    assert np.abs(mean).max() > 0.05
    found = own_targets(source, tmp_path, with_mean, "--mano_dir=stand_in")
    for own, true in zip(found, known, strict=True):
        assert_same(own, true, ("mano_pose", "mano_mesh_cam"), 1e-5, true.mano_hand_valid)


def test_a_box_is_drawn_around_what_is_known_where_none_is_given(source, tmp_path):
    def without_box(entry: Entry) -> Entry:
        return {k: v for k, v in in_pixels(entry).items() if k != "box_px"}

    entries = write_own_data(tmp_path, source, COUNT, without_box)
    records = RecordSource(find_dataset(run(tmp_path), "records"), "train")
    for record in map(records.__getitem__, range(COUNT)):
        entry = entries[record["annotation_id"] - 1]
        assert BOX_SOURCES[record["bbox_source"]] == "joints"
        size = record["image_size_px"]
        joints = [j for s in ("right", "left") for j in entry.get(s, {}).get("joints_px", [])]
        points = np.array([joint for joint in joints if joint is not None])
        inside = points[((points >= 0) & (points < size)).all(axis=1)]
        x, y, width, height = record["bbox_px"]
        assert width == height
        assert (inside > [x, y]).all() and (inside < [x + width, y + height]).all()


def test_a_given_box_is_made_square_about_its_middle(tmp_path):
    write_noise(tmp_path / "a.png")
    write_lines(tmp_path / "annotations.jsonl", [changed(GOOD, box_px=[10, 20, 30, 16])])
    record = RecordSource(find_dataset(run(tmp_path), "records"), "train")[0]
    assert record["bbox_px"].tolist() == [10, 13, 30, 30]
    assert BOX_SOURCES[record["bbox_source"]] == "given"


def test_a_hand_without_its_wrist_has_no_joint_in_3d(tmp_path):
    """Its place is not known; joints in the image need no wrist."""
    write_noise(tmp_path / "a.png")
    placed: list = [[0.01 * i, 0.01 * i, 0.5] for i in range(21)]
    marked: list = [[10.0 + i, 20.0 + i] for i in range(21)]
    placed[0] = marked[0] = None
    line = changed(PLACED, right={"joints_m": placed, "joints_px": marked})
    write_lines(tmp_path / "annotations.jsonl", [line])
    record = RecordSource(find_dataset(run(tmp_path), "records"), "train")[0]
    assert not record["joint_valid_world"].any()
    assert record["joint_px_valid"].sum() == record["joint_valid_view"].sum() == 20


def test_what_differs_from_line_to_line(tmp_path):
    write_noise(tmp_path / "a.png")
    marked = [[20.0 + i, 30.0 + i] for i in range(21)]
    placed = [[0.01 * i, 0.01 * i, 0.5] for i in range(21)]
    camera = {"focal_px": [100.0, 100.0], "princpt_px": [48.0, 32.0]}
    lines: list[Entry] = [
        {"image": "a.png", "right": {"joints_px": marked, "confidence": 0.25}},
        {"image": "a.png", "left": {"joints_m": placed}, "camera": camera, "hand_type": "unknown"},
        {"image": "a.png", "right": {"joints_px": marked}, "left": {"joints_px": marked}},
        {"image": "a.png", "right": {"joints_px": marked}, "split": "test", "sequence": "walk"},
        {"image": "a.png", "right": {"joints_px": marked}},
    ]
    write_lines(tmp_path / "annotations.jsonl", lines)
    folder = find_dataset(run(tmp_path, "--val_every=2"), "records")
    records = {}
    for split in ("train", "val", "test"):
        source = RecordSource(folder, split)
        records |= {
            int(r["annotation_id"]): (split, r) for r in map(source.__getitem__, range(len(source)))
        }
    assert [records[i][0] for i in range(1, 6)] == ["train", "val", "train", "test", "val"]
    first, second, third, fourth = (records[i][1] for i in range(1, 5))
    assert first["label_confidence"].tolist() == [0.25, 1.0]
    assert [r["camera_valid"].item() for r in (first, second)] == [False, True]
    assert [bool(r["hand_type_valid"]) for r in (first, second, third)] == [True, False, True]
    assert [HAND_TYPES[r["hand_type"]] for r in (first, second, third)] == [
        "right",
        "left",
        "interacting",
    ]
    assert (first["seq_name"], fourth["seq_name"]) == (b"", b"walk")
    # And what has no camera mixes with what has.
    loader = make_train_loader(
        tmp_path / "ds",
        "records",
        "train",
        batch_size=2,
        input_size=32,
        seed=0,
    )
    batch = next(iter(loader))
    targets = compiled_targets(
        load_hands(None),
        {k: v for k, v in batch.items() if k not in ("annotation_id", "sample_mask", "image")},
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(targets))
    loader.close()


GOOD: Entry = {"image": "a.png", "right": {"joints_px": [[10.0 + i, 20.0 + i] for i in range(21)]}}
PLACED: Entry = {
    "image": "a.png",
    "right": {"joints_m": [[0.01 * i, 0.01 * i, 0.5] for i in range(21)]},
    "camera": {"focal_px": [100, 100], "princpt_px": [48, 32]},
}
MIRROR = [[1, 0, 0], [0, 1, 0], [0, 0, -1]]
FIT: Entry = {"pose": [0.0] * 48, "betas": [0.0] * 10, "translation_m": [0, 0, 0.5]}


def changed(entry: Entry, **values) -> Entry:
    """A copy with values by keys that are paths, `right__joints_m`."""
    entry = copy.deepcopy(entry)
    for path, value in values.items():
        *folders, name = path.split("__")
        place = entry
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return entry


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (changed(GOOD, joint="x"), ("line 2", "unknown field `joint`", "own_data.md")),
        (changed(GOOD, right__joints_px=[[1.0, 2.0]] * 20), ("line 2: right", "(20, 2)", "null")),
        (changed(GOOD, right__joints_px=[[1, 2]] * 20 + [[1]]), ("right: joints_px", "length")),
        (changed(GOOD, joint_order="smpl"), ("line 2", "'smpl' is not known", "interhand26m")),
        (changed(GOOD, joint_order=["Wrist"] * 21), ("line 2: joint_order", "twice")),
        (changed(GOOD, hand_type="left"), ("line 2", "hand_type is left", "right hand")),
        (changed(GOOD, hand_type="both"), ("line 2", "hand_type")),
        (changed(GOOD, right={}), ("line 2: right", "nothing is known of this hand")),
        ({"image": "a.png"}, ("line 2", "nothing is said of any hand")),
        (changed(GOOD, image="b.png"), ("b.png: no such file", "--raw_dir")),
        (changed(GOOD, image="turned.jpg"), ("turned.jpg", "orientation 6", "save it upright")),
        (changed(GOOD, image="notes.txt"), ("notes.txt", "no readable image")),
        (changed(GOOD, box_px=[1, 2, 0, 5]), ("line 2", "no area", "width")),
        (changed(GOOD, box_px=[1, 2, 5]), ("line 2", "box", "(3,)")),
        (changed(GOOD, right__confidence=1.5), ("line 2", "confidence 1.5")),
        (changed(GOOD, split="training"), ("line 2", "training")),
        (changed(PLACED, right__joints_m=[[10, 0, 500]] * 21), ("line 2", "look like millimetres")),
        (changed(PLACED, camera=None), ("line 2", "nothing says where in the image", "box")),
        (changed(PLACED, camera__focal_px=1000), ("line 2", "focal_px")),
        (changed(PLACED, camera__focal_px=[100]), ("line 2", "focal length", "(1,)")),
        (changed(PLACED, camera__rotation=MIRROR), ("line 2", "no rotation", "z forward")),
        (changed(PLACED, right__mano={**FIT, "pose": [0.0] * 45}), ("line 2", "pose", "(45,)")),
        (changed(GOOD, right={"mano": FIT}), ("line 2", "--mano_dir=MANO", "stand_in")),
        (changed(GOOD, right__vertices_m=[[0, 0, 0.5]] * 777), ("line 2", "vertices", "777")),
        ([GOOD], ("line 2",)),
        (3, ("line 2",)),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_remedy(tmp_path, capsys, line, said):
    write_noise(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(tmp_path / "turned.jpg", exif=exif)
    path = write_lines(tmp_path / "annotations.jsonl", [GOOD, line])
    assert build.main(["records", f"--annotations={path}", f"--data_dir={tmp_path / 'ds'}"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for part in said:
        assert part in error, error
    assert not list((tmp_path / "ds").rglob("dataset_info.json"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no line"),
        (b"\n\n", "no line"),
        (json.dumps([GOOD], indent=1).encode(), "line 1"),
        (b"\xff\xfe\x00", "line 1"),
        (json.dumps(GOOD).encode()[:-3], "line 1"),
    ],
)
def test_files_that_are_no_json_lines(tmp_path, capsys, content, said):
    write_noise(tmp_path / "a.png")
    path = tmp_path / "annotations.jsonl"
    path.write_bytes(content)
    assert build.main(["records", f"--annotations={path}", f"--data_dir={tmp_path / 'ds'}"]) == 1
    assert said in capsys.readouterr().err


def test_a_changed_file_is_another_dataset(tmp_path, capsys):
    write_noise(tmp_path / "a.png")
    write_lines(tmp_path / "annotations.jsonl", [GOOD, PLACED])
    folder = find_dataset(run(tmp_path), "records")
    report = json.loads((folder / REPORT).read_text())
    assert report["splits"]["train"]["counts"]["records"] == 2
    write_lines(tmp_path / "annotations.jsonl", [GOOD])
    path = tmp_path / "annotations.jsonl"
    assert build.main(["records", f"--annotations={path}", f"--data_dir={tmp_path / 'ds'}"]) == 1
    assert "SHA-256 of annotations.jsonl" in capsys.readouterr().err


def test_a_byte_order_mark_and_windows_ends_of_lines_are_no_obstacle(tmp_path):
    write_noise(tmp_path / "a.png")
    text = json.dumps(GOOD) + "\r\n\r\n" + json.dumps(PLACED) + "\r\n"
    (tmp_path / "annotations.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    source = RecordSource(find_dataset(run(tmp_path), "records"), "train")
    assert sorted(int(source[i]["annotation_id"]) for i in range(2)) == [1, 3]
