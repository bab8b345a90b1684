"""Photographs without annotations: what detection and fit say of them becomes their labels."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from drawn_hands import FOCAL, drawn
from PIL import Image
from test_photographs import SIZE, Known, detected

from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.readers import photographs, records
from er_jax.detection import DetectedHand
from er_jax.mano import load_hands
from er_jax.photographs.engine import EXPLAINED, Engine

TRUTH = drawn(1, (0, 1), seed=7)


class Scaled:
    """A detector that knows the hands of a picture of `SIZE`, and finds them at any other."""

    def __init__(self, hands: list[DetectedHand]):
        self.hands = hands
        self.calls = 0

    def __call__(self, image: np.ndarray) -> list[DetectedHand]:
        self.calls += 1
        scale = image.shape[1] / SIZE[0]
        return [
            dataclasses.replace(
                hand,
                keypoints_px=scale * (hand.keypoints_px + 0.5) - 0.5,
                box_px=scale * np.asarray(hand.box_px),
            )
            for hand in self.hands
        ]


@pytest.fixture
def detector(monkeypatch) -> Scaled:
    known = Scaled(detected(TRUTH))
    models = load_hands()
    monkeypatch.setattr(photographs, "load", lambda **_: Engine(models, detector=known))
    return known


def photograph(path: Path, scale: float = 1.0, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = tuple(round(scale * side) for side in SIZE)
    image = Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8))
    exif = Image.Exif()
    if orientation == 6:  # as a camera on its side stores it
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    image.save(path, exif=exif)


def run(raw: Path, data: Path, *options: str) -> int:
    arguments = [f"--raw_dir={raw}", f"--data_dir={data}", "--mano_dir=stand_in", "--workers=1"]
    return build.main(["photographs", *arguments, f"--focal={FOCAL[0]},{FOCAL[1]}", *options])


def test_labels_are_of_the_upright_image_as_it_is_stored(detector, tmp_path):
    photograph(tmp_path / "raw/plain.png")
    photograph(tmp_path / "raw/deep/down/turned.jpg", orientation=6)
    assert run(tmp_path / "raw", tmp_path / "ds") == 0
    source = RecordSource(find_dataset(tmp_path / "ds", "photographs"), "train")
    assert len(source) == 2
    for record in map(source.__getitem__, range(2)):
        assert record["image_size_px"].tolist() == list(SIZE)
        np.testing.assert_allclose(record["joint_px"], TRUTH.keypoints[0], atol=1e-3)
        assert record["joint_px_valid"].all() and record["mano_valid"].all()
        wrists = record["joint_world_mm"][:, 0] / 1000
        true = TRUTH.joints[0, :, 0]
        assert np.linalg.norm(wrists - true, axis=-1).max() < 0.05
        relative = record["joint_world_mm"] / 1000 - wrists[:, None]
        off = np.linalg.norm(relative - (TRUTH.joints[0] - true[:, None]), axis=-1)
        assert off.mean() < 0.01
        assert (record["hand_type"], record["hand_type_valid"]) == (2, True)
        assert (record["label_confidence"] > 0.5).all()


def test_a_large_photograph_is_stored_smaller_with_its_camera(detector, tmp_path):
    photograph(tmp_path / "raw/large.jpg", scale=6)
    focal = f"--focal={6 * FOCAL[0]},{6 * FOCAL[1]}"
    assert run(tmp_path / "raw", tmp_path / "ds", focal) == 0
    record = RecordSource(find_dataset(tmp_path / "ds", "photographs"), "train")[0]
    width = int(record["image_size_px"][0])
    assert width == photographs.LONGEST_PX
    scale = width / SIZE[0]
    np.testing.assert_allclose(record["focal_px"], scale * FOCAL, rtol=1e-4)
    expected = scale * (TRUTH.keypoints[0] + 0.5) - 0.5
    np.testing.assert_allclose(record["joint_px"], expected, atol=0.01)


def test_what_is_not_believed_is_left_out_and_counted(detector, tmp_path, caplog):
    right, left = detector.hands
    mixed = right.keypoints_px[np.random.default_rng(0).permutation(21)]
    detector.hands = [dataclasses.replace(right, keypoints_px=mixed), left]
    photograph(tmp_path / "raw/a.png")
    (tmp_path / "raw/cut.jpg").write_bytes(b"\xff\xd8\xff")
    with caplog.at_level("INFO"):
        assert run(tmp_path / "raw", tmp_path / "ds") == 0
    for line in (
        "hands labelled: 1",
        "hands left out: no hand can lie as its keypoints say: 1",
        "photographs that cannot be read: 1",
    ):
        assert line in caplog.text
    record = RecordSource(find_dataset(tmp_path / "ds", "photographs"), "train")[0]
    assert record["mano_valid"].tolist() == [False, True]
    assert not record["hand_type_valid"]  # the other one may be there


def test_small_hands_are_left_out(detector, tmp_path, capsys):
    photograph(tmp_path / "raw/a.png", scale=0.1)
    assert run(tmp_path / "raw", tmp_path / "ds") == 1
    assert "under 24 px" in capsys.readouterr().err


def test_no_hand_at_all(detector, tmp_path, capsys):
    detector.hands = []
    photograph(tmp_path / "raw/a.png")
    assert run(tmp_path / "raw", tmp_path / "ds") == 1
    assert "photographs without a hand" in capsys.readouterr().err


def test_confidence_falls_with_what_is_off():
    engine = Engine(load_hands(), detector=Known(detected(TRUTH)))
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    hand = engine.many([picture], focal_px=tuple(FOCAL))[0].hands[0]
    longer = float(hand.box_px[2:].max())
    for off, score, expected in ((0, 0.9, 0.9), (EXPLAINED / 2, 0.8, 0.4), (2 * EXPLAINED, 1, 0)):
        changed = dataclasses.replace(hand, reprojection_px=off * longer, score=score)
        assert photographs.confidence(changed) == pytest.approx(expected)


def test_labelling_goes_on_where_it_was(detector, tmp_path, monkeypatch):
    for name in "abc":
        photograph(tmp_path / f"raw/{name}.png")
    write, kept = photographs.write_json, []

    def ends_after_two(path, value):
        if path.parent.name == "notes":
            if len(kept) == 2:
                raise KeyboardInterrupt
            kept.append(path)
        write(path, value)

    monkeypatch.setattr(photographs, "write_json", ends_after_two)
    assert run(tmp_path / "raw", tmp_path / "ds") == 130
    monkeypatch.setattr(photographs, "write_json", write)
    assert detector.calls == 3
    assert run(tmp_path / "raw", tmp_path / "ds") == 0
    assert detector.calls == 4  # of `c` again
    assert run(tmp_path / "raw", tmp_path / "ds") == 0
    assert detector.calls == 4
    photograph(tmp_path / "raw/b.png", scale=1.1)
    os.utime(tmp_path / "raw/b.png", ns=(1, 1))
    assert run(tmp_path / "raw", tmp_path / "ds", "--overwrite") == 0
    assert detector.calls == 5
    source = RecordSource(find_dataset(tmp_path / "ds", "photographs"), "train")
    widths = sorted(int(source[i]["image_size_px"][0]) for i in range(len(source)))
    assert widths == [SIZE[0], SIZE[0], round(1.1 * SIZE[0])]


def test_labels_of_other_settings_are_not_mixed(detector, tmp_path, capsys):
    photograph(tmp_path / "raw/a.png")
    assert run(tmp_path / "raw", tmp_path / "ds") == 0
    assert run(tmp_path / "raw", tmp_path / "ds", "--focal=400") == 1
    error = capsys.readouterr().err
    assert "focal_px" in error and "--labels" in error


def test_corrected_labels_are_own_data(detector, tmp_path):
    for name in "ab":
        photograph(tmp_path / f"raw/{name}.png")
    assert run(tmp_path / "raw", tmp_path / "ds") == 0
    labels = tmp_path / "ds/photographs/all.labels"
    first, second = records.read_lines(labels / "labels.jsonl")
    assert first[1].right is not None
    copy = tmp_path / "copy.jsonl"
    copy.write_text((labels / "labels.jsonl").read_text().splitlines()[1] + "\n")
    arguments = [f"--annotations={copy}", f"--raw_dir={labels}", f"--data_dir={tmp_path / 'ds'}"]
    assert build.main(["records", *arguments, "--mano_dir=stand_in", "--workers=1"]) == 0
    source = RecordSource(find_dataset(tmp_path / "ds", "records"), "train")
    assert len(source) == 1
    assert source[0]["file_name"].decode() == second[1].image


def test_the_hand_model_has_to_be_named(tmp_path, capsys):
    photograph(tmp_path / "raw/a.png")
    arguments = [f"--raw_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'ds'}"]
    assert build.main(["photographs", *arguments]) == 1
    assert "--mano_dir=stand_in" in capsys.readouterr().err


def test_a_folder_without_photographs(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    assert run(tmp_path / "raw", tmp_path / "ds") == 1
    assert "no photograph here" in capsys.readouterr().err
