"""The forms in which real annotation files of InterHand2.6M come, and the nonsense among them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tree import HEIGHT, WIDTH, TinyTree, annotation_path, jpeg, tiny_tree

from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.images import decode_image, mean_brightness, read_image_file
from data_pipeline.readers.interhand26m.reader import read_split
from data_pipeline.records import RecordTable
from er_jax.utils.errors import BadImageError, DataError

SHARED = Path(__file__).parents[2] / "shared"


def read(tree: TinyTree, folder: Path, **options) -> RecordTable:
    return read_split(tree.write_annotations(folder), tree.split, **options).table


def assert_same(found: RecordTable, expected: RecordTable) -> None:
    assert len(found) == len(expected)
    for i in range(len(expected)):
        for name, value in expected.record(i).items():
            np.testing.assert_array_equal(found.record(i)[name], value, err_msg=f"{i}, {name}")


# One value in the ways in which it may be written


def flag_forms(values: list[int]) -> list[Any]:
    """Validity as numbers or booleans, flat or one list a joint, or as text."""
    return [
        values,
        [[value] for value in values],
        [bool(value) for value in values],
        [[bool(value)] for value in values],
        [float(value) for value in values],
        [str(value) for value in values],
        [values[:21], values[21:]],
        [bool(value) if place % 2 else value for place, value in enumerate(values)],
    ]


def array_forms(values: Any) -> list[Any]:
    array = np.array(values)
    return [values, array.ravel().tolist(), [array.tolist()], array.astype(str).tolist()]


def number_forms(value: int) -> list[Any]:
    return [value, str(value), float(value)]


TREE = tiny_tree(frames=2, cameras=2)
for _joint in (1, 8, 30):
    TREE.joint_3d["0"]["20000"]["joint_valid"][_joint] = [0]
    TREE.data["annotations"][1]["joint_valid"][_joint + 1] = 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_numpy_reads_is_read(tmp_path_factory, data):
    tree = tiny_tree(frames=2, cameras=2)
    tree.joint_3d, tree.data = (json.loads(json.dumps(x)) for x in (TREE.joint_3d, TREE.data))
    folder = tmp_path_factory.mktemp("tree")
    expected = read(TREE, folder)

    def pick(forms: list[Any]) -> Any:
        return data.draw(st.sampled_from(forms))

    for image in tree.data["images"]:
        for name in ("id", "width", "height", "capture", "subject", "frame_idx"):
            image[name] = pick(number_forms(image[name])[: 2 if name == "subject" else 3])
        image["camera"] = pick([image["camera"], int(image["camera"])])
        image["license"] = {"nobody": ["knows", None]}
    for annotation in tree.data["annotations"]:
        annotation["id"] = pick(number_forms(annotation["id"]))
        annotation["image_id"] = pick(number_forms(annotation["image_id"]))
        annotation["joint_valid"] = pick(flag_forms(annotation["joint_valid"]))
        annotation["hand_type_valid"] = pick([1, True, 1.0, [1], [True], [[1.0]]])
        annotation["bbox"] = pick([None, "unused", [1, 2]])
    for frames in tree.joint_3d.values():
        for frame in frames.values():
            frame["world_coord"] = pick(array_forms(frame["world_coord"]))
            frame["joint_valid"] = pick(flag_forms([flag for (flag,) in frame["joint_valid"]]))
            frame["hand_type_valid"] = pick([1, True, [True]])
            frame["focal"] = None
    for cameras in tree.camera.values():
        for field in cameras.values():
            for name, value in field.items():
                field[name] = pick(array_forms(value))
        cameras["distortion"] = {}
    for frames in tree.mano.values():
        for frame in frames.values():
            for fit in frame.values():
                fit["pose"] = pick([fit["pose"], np.reshape(fit["pose"], (16, 3)).tolist()])
                fit["shape"] = pick(array_forms(fit["shape"]))
                fit["trans"] = pick(array_forms(fit["trans"]))
            frame["object"] = {"pose": []}
    assert_same(read(tree, folder), expected)


def test_the_types_of_the_published_files(tmp_path):
    """Booleans in joint_3d, numbers in data, each in a list: as in the real files."""
    tree = tiny_tree()
    expected = read(tree, tmp_path)
    for annotation in tree.data["annotations"]:
        annotation["joint_valid"] = [[1] for _ in annotation["joint_valid"]]
    for frames in tree.joint_3d.values():
        for frame in frames.values():
            frame["joint_valid"] = [[True] for _ in frame["joint_valid"]]
            frame["hand_type_valid"] = True
    assert_same(read(tree, tmp_path), expected)


def test_padded_keys_mean_the_same_frame(tmp_path):
    tree = tiny_tree()
    expected = read(tree, tmp_path)
    tree.joint_3d = {f"0{c}": {f"0{k}": v for k, v in f.items()} for c, f in tree.joint_3d.items()}
    tree.mano = {f"0{c}": f for c, f in tree.mano.items()}
    assert_same(read(tree, tmp_path), expected)


NONSENSE: list[tuple[str, str, Callable[[TinyTree], Any]]] = [
    (
        "a joint without its third coordinate",
        "_joint_3d.json: 0/20000/world_coord is ragged",
        lambda t: t.joint_3d["0"]["20000"]["world_coord"][7].pop(),
    ),
    (
        "coordinates before joints",
        "_joint_3d.json: 0/20000/world_coord is of shape (3, 42) instead of (42, 3)",
        lambda t: t.joint_3d["0"]["20000"].update(
            world_coord=np.transpose(t.joint_3d["0"]["20000"]["world_coord"]).tolist()
        ),
    ),
    (
        "not a number",
        "_joint_3d.json: no valid JSON",
        lambda t: t.joint_3d["0"]["20000"]["world_coord"][7].__setitem__(0, float("nan")),
    ),
    (
        "null for a number",
        "_joint_3d.json: 0/20000/world_coord has values that are null or not finite",
        lambda t: t.joint_3d["0"]["20000"]["world_coord"][7].__setitem__(0, None),
    ),
    (
        "text for numbers",
        "_data.json: annotations[2].joint_valid is ragged or has text",
        lambda t: t.data["annotations"][2].update(joint_valid=["yes"] * 42),
    ),
    (
        "no validity",
        "_data.json: annotations[2].hand_type_valid has values that are null",
        lambda t: t.data["annotations"][2].update(hand_type_valid=None),
    ),
    (
        "an id in words",
        "_data.json: annotations[1].id is 'first' instead of a whole number",
        lambda t: t.data["annotations"][1].update(id="first"),
    ),
    (
        "half a frame",
        "_data.json: images[1].frame_idx is 20000.5 instead of a whole number",
        lambda t: t.data["images"][1].update(frame_idx=20000.5),
    ),
    (
        "a fit without a shape",
        "_MANO_NeuralAnnot.json: Object missing required field `shape`",
        lambda t: t.mano["0"]["20000"]["left"].pop("shape"),
    ),
    (
        "an object for a camera's place",
        "_camera.json: 0/400260 is ragged or has text",
        lambda t: t.camera["0"]["campos"].update({"400260": {"x": 1}}),
    ),
]


@pytest.mark.parametrize(
    ("message", "spoil"), [n[1:] for n in NONSENSE], ids=[n[0] for n in NONSENSE]
)
def test_nonsense_is_refused_with_its_place(tmp_path, message, spoil):
    tree = tiny_tree()
    spoil(tree)
    with pytest.raises(DataError) as raised:
        read(tree, tmp_path)
    assert message in str(raised.value)


# What real trees have


def test_a_split_without_fits(tmp_path):
    tree = tiny_tree()
    tree.mano = {}
    table = read(tree, tmp_path)
    assert len(table) == 8
    assert not np.stack([table.record(i)["mano_valid"] for i in range(8)]).any()
    annotation_path(tmp_path, "MANO_NeuralAnnot").unlink()
    with pytest.raises(DataError, match=r"is missing.*without fits, let this file hold \{\}"):
        read_split(tmp_path, "train")


def test_null_for_a_hand_a_frame_and_a_capture(tmp_path):
    tree = tiny_tree(frames=2, cameras=1)
    tree.mano["0"]["20000"]["left"] = None
    tree.mano["0"]["20003"] = None
    tree.mano["1"] = None
    table = read(tree, tmp_path)
    valid = [table.record(i)["mano_valid"].tolist() for i in range(len(table))]
    assert valid == [[True, False], [False, False], [False, False], [False, False]]


def test_rootnet_with_other_ids(tmp_path, caplog):
    tree = tiny_tree("test", frames=1, cameras=1)
    boxes = {0: [1.0, 2.0, 30.0, 30.0], 77: [5.0, 5.0, 9.0, 9.0]}
    tree.write_rootnet(
        tmp_path,
        [{"annot_id": str(i), "bbox": b, "abs_depth": ["900", 950]} for i, b in boxes.items()],
    )
    table = read(tree, tmp_path)
    assert table.record(0)["bbox_px"].tolist() == boxes[0]
    assert table.record(0)["abs_depth_mm"].tolist() == [900, 950]
    assert table.record(1)["abs_depth_valid"] == False  # noqa: E712
    assert "1 annotations are not in the RootNet file" in caplog.text


def test_no_val(tmp_path, capsys):
    for split in ("train", "test"):
        tiny_tree(split).write(tmp_path / "raw")
    arguments = [f"--raw_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'ds'}", "--workers=1"]
    assert build.main(["interhand26m", *arguments]) == 0
    folder = find_dataset(tmp_path / "ds", "interhand26m")
    assert {split: len(RecordSource(folder, split)) for split in ("train", "test")} == {
        "train": 8,
        "test": 8,
    }
    with pytest.raises(DataError, match="has no split 'val', only train, test"):
        RecordSource(folder, "val")


def encoded(kind: str) -> bytes:
    """An image of `jpeg(3)` as a file of another kind of JPEG."""
    pixels = simplejpeg.decode_jpeg(jpeg(3))
    bgr = pixels[..., ::-1]
    if kind == "grey":
        grey = np.ascontiguousarray(pixels[..., :1])
        return simplejpeg.encode_jpeg(grey, colorspace="GRAY", colorsubsampling="Gray")
    if kind == "progressive":
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    data = cv2.imencode(".jpg", bgr)[1].tobytes()
    if kind == "with an ICC profile":
        body = b"ICC_PROFILE\0\x01\x01" + bytes(3000)
        return data[:2] + b"\xff\xe2" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    return data


@pytest.mark.parametrize("kind", ["plain", "grey", "progressive", "with an ICC profile"])
def test_kinds_of_jpeg(tmp_path, kind):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(kind))
    data = read_image_file(path, (WIDTH, HEIGHT)).data
    image = decode_image(data)
    assert image.shape == (HEIGHT, WIDTH, 3)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(image.astype(int) - reference).max() <= 3
    assert abs(mean_brightness(data) - reference.mean()) < 1
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(BadImageError, match="unreadable or cut short"):
            read_image_file(path, (WIDTH, HEIGHT))


def test_a_tree_of_such_files_is_built(tmp_path):
    tree = tiny_tree(frames=2, cameras=1)
    tree.mano = {}
    raw = tree.write(tmp_path / "raw")
    kinds = ("plain", "grey", "progressive", "with an ICC profile")
    for kind, image in zip(kinds, tree.data["images"], strict=True):
        (raw / "images" / "train" / image["file_name"]).write_bytes(encoded(kind))
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path / 'ds'}", "--workers=1"]
    assert build.main(["interhand26m", *arguments]) == 0
    source = RecordSource(find_dataset(tmp_path / "ds", "interhand26m"), "train")
    shapes = {decode_image(source[i]["image"]).shape for i in range(len(source))}
    assert (len(source), shapes) == (4, {(HEIGHT, WIDTH, 3)})


@pytest.mark.skipif(not (SHARED / "fixtures/ih26m_real").exists(), reason="no shared fixtures")
def test_the_real_files():
    table = read_split(SHARED / "fixtures" / "ih26m_real", "test").table
    assert len(table) == 4
    assert [table.record(i)["joint_valid_world"].sum() for i in range(4)] == [42, 42, 21, 21]
    raw = json.loads(
        annotation_path(SHARED / "fixtures" / "ih26m_real", "data", "test").read_text()
    )
    given = {a["id"]: np.array(a["bbox"]) for a in raw["annotations"]}
    for i in range(4):  # the file's own tight box lies in the enlarged one
        record = table.record(i)
        low, high = record["bbox_px"][:2], record["bbox_px"][:2] + record["bbox_px"][2:]
        tight = given[record["annotation_id"]]
        assert (tight[:2] >= low).all()
        assert (tight[:2] + tight[2:] <= high).all()
