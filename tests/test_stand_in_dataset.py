"""The drawn raw dataset: InterHand2.6M's layout, agreement of images and annotations."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import simplejpeg

from data_pipeline.synthetic import SPLITS, Settings, dataset, write_dataset
from data_pipeline.synthetic.__main__ import main
from data_pipeline.synthetic.picture import draw_view
from data_pipeline.synthetic.recording import SIZE_PX, Recording, hand_surfaces, record
from er_jax.mano import HAND21, HANDS, INTERHAND21, joint_order, load_hands, mano_forward
from er_jax.utils.errors import DataError


def annotations(raw_dir: Path, split: str, name: str):
    path = raw_dir / "annotations" / split / f"InterHand2.6M_{split}_{name}.json"
    return json.loads(path.read_text())


def samples(raw_dir: Path) -> Iterator[tuple[dict, dict, dict, np.ndarray]]:
    """Of each image of the dataset: its entry, annotation, frame, joints (42, 2) in pixels."""
    for split in SPLITS:
        data = annotations(raw_dir, split, "data")
        cameras, joints = (
            annotations(raw_dir, split, "camera"),
            annotations(raw_dir, split, "joint_3d"),
        )
        for image, annotation in zip(data["images"], data["annotations"], strict=True):
            assert annotation["image_id"] == image["id"]
            frame = joints[str(image["capture"])][str(image["frame_idx"])]
            camera = {
                key: np.array(values[image["camera"]])
                for key, values in cameras[str(image["capture"])].items()
            }
            rotation = camera["camrot"]
            in_camera = np.array(frame["world_coord"]) @ rotation.T - rotation @ camera["campos"]
            pixels = in_camera[:, :2] / in_camera[:, 2:] * camera["focal"] + camera["princpt"]
            yield image | {"split": split}, annotation, frame, pixels


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record(load_hands(None), "train", 40, 0, (7, 0))


def test_layout(raw_dir):
    for image, annotation, frame, _ in samples(raw_dir):
        folder = f"Capture{image['capture']}/{image['seq_name']}/cam{image['camera']}"
        assert image["file_name"] == f"{folder}/image{image['frame_idx']}.jpg"
        path = raw_dir / "images" / image["split"] / image["file_name"]
        height, width, colours, _ = simplejpeg.decode_jpeg_header(path.read_bytes())
        assert (width, height) == (image["width"], image["height"]) == SIZE_PX
        assert (colours == "Gray") == image["camera"].startswith("41")
        assert len(annotation["bbox"]) == 4 and len(annotation["joint_valid"]) == 42
        assert np.shape(frame["world_coord"]) == (42, 3)
        assert np.shape(frame["joint_valid"]) == (42, 1)
        assert annotation["hand_type"] == frame["hand_type"] in {"right", "left", "interacting"}
        assert annotation["hand_type_valid"] == frame["hand_type_valid"] in (0, 1)


def test_grey_and_colour_cameras_occur(raw_dir):
    kinds = {image["camera"][:2] for image, *_ in samples(raw_dir)}
    assert kinds == {"40", "41"}


def test_detector_boxes_of_val_and_test(raw_dir):
    name = "rootnet_output/rootnet_interhand2.6m_output_{}.json"
    assert not (raw_dir / name.format("train")).exists()
    for split in ("val", "test"):
        data = annotations(raw_dir, split, "data")
        boxes = json.loads((raw_dir / name.format(split)).read_text())
        assert [b["annot_id"] for b in boxes] == [a["id"] for a in data["annotations"]]
        assert all(b["bbox"][2] == b["bbox"][3] and len(b["abs_depth"]) == 2 for b in boxes)


def test_captures_belong_to_one_split(raw_dir):
    captures = [{i["capture"] for i in annotations(raw_dir, s, "data")["images"]} for s in SPLITS]
    assert all(captures)
    assert len(set.union(*captures)) == sum(map(len, captures))


def test_joints_are_those_of_the_fits(raw_dir):
    """World joints, in InterHand2.6M's order and millimetres, from pose, shape and translation."""
    hands, order = load_hands(None), joint_order(HAND21, INTERHAND21)
    forward, compared = jax.jit(mano_forward), 0
    for split in SPLITS:
        joints, fits = (
            annotations(raw_dir, split, "joint_3d"),
            annotations(raw_dir, split, "MANO_NeuralAnnot"),
        )
        for capture, frames in fits.items():
            for frame_idx, fit in frames.items():
                frame = joints[capture][frame_idx]
                world_mm = np.array(frame["world_coord"]).reshape(2, 21, 3)
                given = {
                    key: np.array(
                        [fit[s][key] if fit[s] else np.zeros(n) for s in HANDS], np.float32
                    )
                    for key, n in (("shape", 10), ("pose", 48), ("trans", 3))
                }
                mesh = forward(hands, given["shape"], given["pose"], given["trans"])
                for hand, side in enumerate(HANDS):
                    if fit[side] is not None:
                        found = 1e3 * np.asarray(mesh.joints[hand])[order]
                        np.testing.assert_allclose(found, world_mm[hand], atol=0.01)
                        assert frame["hand_type"] in (side, "interacting")
                        compared += 1
    assert compared > 30


def test_annotations_hold_together(raw_dir):
    for _, annotation, frame, pixels in samples(raw_dir):
        seen = np.array(annotation["joint_valid"], bool)
        known = np.array(frame["joint_valid"], bool)[:, 0]
        assert not (seen & ~known).any()
        assert ((pixels[seen] >= 0) & (pixels[seen] < SIZE_PX)).all()
        x, y, width, height = annotation["bbox"]
        inside = (pixels[seen] >= (x, y)) & (pixels[seen] <= (x + width, y + height))
        assert inside.all()
        for hand, side in enumerate(HANDS):
            if frame["hand_type"] not in (side, "interacting"):
                assert not known[21 * hand : 21 * hand + 21].any()


def test_joints_lie_in_the_hands_seen(recording):
    """A joint is inside its hand: where it projects there is that hand, or one before it."""
    surfaces = hand_surfaces(load_hands(None))
    for image in recording.images[:12]:
        view, frame = recording.view(image), recording.frames[image.frame]
        capture = recording.captures[image.capture]
        labels = draw_view(view, surfaces, capture.subject, SIZE_PX).labels
        camera = capture.cameras[image.camera]
        pixels = camera.projection.project(camera.to_camera(frame.joints))
        pixels = np.rint(pixels[frame.present]).astype(int).reshape(-1, 2)
        pixels = pixels[((pixels >= 0) & (pixels < SIZE_PX)).all(axis=1)]
        near = cv2.dilate((labels >= 0).astype(np.uint8), np.ones((5, 5)))
        assert near[pixels[:, 1], pixels[:, 0]].all()
        assert set(np.unique(labels)) <= {-1, *np.flatnonzero(frame.present)}


def test_hands_meet_without_running_into_each_other(recording):
    """The distance of two hands' vertices: close in most frames, and few of them inside."""
    both = [frame.vertices for frame in recording.frames if frame.present.all()]
    gaps = [
        np.linalg.norm(right[::4, None] - left[None, ::4], axis=-1).min() for right, left in both
    ]
    assert np.median(gaps) < 0.02
    assert np.mean(np.array(gaps) < 0.001) < 0.1


@pytest.mark.slow
def test_same_bytes_from_any_number_of_processes(tmp_path):
    settings = Settings(train=14, val=1, test=2, seed=3)
    for name, workers in (("one", 1), ("two", 2)):
        assert write_dataset(tmp_path / name, settings, workers)
    one, two = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) == 17 + 3 * 4 + 2 + 1


def test_interrupted_work_is_taken_up(tmp_path, monkeypatch):
    settings = Settings(train=3, val=1, test=1)
    write_dataset(tmp_path / "whole", settings, 1)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "annotation_files", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "taken_up", settings, 1)
    assert not (tmp_path / "taken_up" / "annotations").exists()
    images = sorted((tmp_path / "taken_up" / "images").rglob("*.jpg"))
    images[0].unlink()
    kept = images[1].stat().st_mtime_ns
    assert write_dataset(tmp_path / "taken_up", settings, 1)
    assert images[1].stat().st_mtime_ns == kept
    for path in (tmp_path / "whole").rglob("*.*"):
        same = tmp_path / "taken_up" / path.relative_to(tmp_path / "whole")
        assert same.read_bytes() == path.read_bytes()


def test_a_complete_dataset_is_recognised(raw_dir):
    state = json.loads((raw_dir / "stand_in_dataset.json").read_text())
    settings = Settings(**state["settings"])
    before = {path: path.stat().st_mtime_ns for path in raw_dir.rglob("*")}
    assert not write_dataset(raw_dir, settings, 1)
    assert before == {path: path.stat().st_mtime_ns for path in raw_dir.rglob("*")}


def test_another_dataset_is_not_touched(raw_dir, tmp_path, capsys):
    with pytest.raises(DataError, match=r"asked for.*seed.*raw_dir"):
        write_dataset(raw_dir, Settings(seed=99), 1)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, Settings(), 1)
    assert main([f"--raw_dir={tmp_path}"]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
