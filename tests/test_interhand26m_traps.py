"""What there is to stumble over in InterHand2.6M: found, reported, dropped or mended."""

import json
import math
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from exported import exported_truth
from made_up_errors import made_up
from test_absence import on_dataset
from tiny_tree import (
    HEIGHT,
    WIDTH,
    TinyTree,
    jpeg,
    squash,
    take_joints_of_fits,
    tiny_tree,
)

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.boxes import JOINT_FIELDS, joint_pixels
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import REPORT, dataset_versions, find_dataset
from data_pipeline.images import ImageFile, is_dark, mean_brightness, read_image_file
from data_pipeline.readers.interhand26m.downloaded import ImagesOnDisk
from data_pipeline.readers.interhand26m.files import Cameras, Images
from data_pipeline.readers.interhand26m.reader import SUBSETS, read_split
from data_pipeline.readers.interhand26m.squashed import squashed_cameras
from er_jax.commands.compare import report_on
from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.train import run_training
from er_jax.evaluation.predictions_file import write_predictions
from er_jax.evaluation.results import paired
from er_jax.evaluation.seeds import ablation
from er_jax.mano import HAND21, INTERHAND21, HandModel, load_hands
from er_jax.report.ablation import markdown
from er_jax.utils.errors import BadImageError, ConfigError, DataError

SQUASHED = "image's shape is not its calibration's"
TOO_FAR = "fit off its joints by more than 30 mm"


@pytest.fixture(scope="module")
def hands() -> HandModel:
    return load_hands(None)


def run(raw_dir: Path, data_dir: Path, *options: str) -> dict:
    """The report of a build of one split."""
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", "--workers=1", *options]
    assert build.main(["interhand26m", *arguments]) == 0
    (report,) = data_dir.glob(f"interhand26m/*/*/{REPORT}")
    return json.loads(report.read_text())["splits"]["train"]


def fail(raw_dir: Path, data_dir: Path, capsys: pytest.CaptureFixture, *options: str) -> str:
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", "--workers=1", *options]
    assert build.main(["interhand26m", *arguments]) == 1
    return " ".join(capsys.readouterr().err.split())


def image_path(raw_dir: Path, capture: str, camera: str, frame: int) -> Path:
    return raw_dir / f"images/train/Capture{capture}/ROM01/cam{camera}/image{frame}.jpg"


def bend_fingers(fit: dict, degrees: float) -> None:
    """Bends all joints of the four fingers."""
    pose = np.array(fit["pose"])
    pose.reshape(16, 3)[1:13, 2] += math.radians(degrees)
    fit["pose"] = pose.tolist()


@pytest.fixture
def traps(hands, tmp_path) -> Path:
    """A raw tree of four captures, four frames and three cameras, with every trap."""
    tree = tiny_tree(frames=4, cameras=3, captures=("0", "1", "2", "3"))
    take_joints_of_fits(tree, hands, noise_mm=3.0)
    tree.mano["0"]["20003"]["left"]["trans"][0] += 0.05
    bend_fingers(tree.mano["1"]["20006"]["right"], 60)
    tree.brightness = {"Capture0/ROM01/cam400260/image20000.jpg": 0}
    raw_dir = tree.write(tmp_path / "traps")
    squash(tree, raw_dir, "Capture1/ROM01/cam400262")
    for capture in ("2", "3"):
        shutil.rmtree(raw_dir / f"images/train/Capture{capture}")
    cut_short = image_path(raw_dir, "0", "400261", 20009)
    cut_short.write_bytes(cut_short.read_bytes()[: cut_short.stat().st_size // 2])
    image_path(raw_dir, "1", "400260", 20009).write_bytes(b"")
    return raw_dir


def test_every_trap_is_in_the_report(traps, tmp_path, capsys):
    options = ["--existing_only", "--mano_dir=stand_in", "--max_bad_images=2"]
    report = run(traps, tmp_path / "ds", *options)
    assert report["counts"] == {
        "annotations": 48,
        "dropped: not downloaded": 24,
        f"dropped: {SQUASHED}": 4,
        "dropped: no visible joint": 0,
        "dropped: no joint in 3D": 0,
        "dropped: box misses the image": 0,
        "usable": 20,
        "usable and interacting_mano, if not dark": 20,
        "not in subset all": 0,
        "dropped: dark image": 0,
        "dropped: bad image": 2,
        "records": 18,
        "of these dark": 1,
    }
    assert report["part"] == "captures 0, 1; 24 of 48 annotations"
    assert [one["there"] for one in report["captures"]] == [12, 12, 0, 0]
    (squashed,) = report["squashed_cameras"]
    assert "squashed_cameras" not in run(traps, tmp_path / "0", *options, "--captures=0")
    assert squashed == {
        "capture": "1",
        "camera": "400262",
        "size_px": [HEIGHT, WIDTH],
        "calibrated_px": [WIDTH, HEIGHT],
        "annotations": 4,
        "done": "dropped",
    }
    fits = report["fit_errors_mm"]
    assert fits["hands"] == 16
    assert fits["percentiles"]["50"] < 6
    shifted, bent, good = fits["worst"][:3]
    assert (shifted["capture"], shifted["frame"], shifted["hand"]) == ("0", "20003", "left")
    assert abs(shifted["mm"] - 50) < 1
    assert (bent["capture"], bent["frame"], bent["hand"]) == ("1", "20006", "right")
    assert bent["mm"] > 30 > 7 > good["mm"]

    printed = " ".join(capsys.readouterr().out.split())
    for line in (
        "train: capture 1: 12 of 12 images there train: capture 2: 0 of 12 images there",
        "train: camera 400262 of capture 1: images of 64×96, calibrated for 96×64 as the capture's "
        "others: 4 annotations, dropped (--squashed)",
        "train: fits off their annotated joints, means of 16 hands, mm: 50 %: 4.",
        f"farthest off: capture 0, frame 20003, left hand: {shifted['mm']:.1f} mm",
        "image20009.jpg: unreadable or cut short",
        "image20009.jpg: empty",
        "train: part of the split: captures 0, 1; 24 of 48 annotations",
    ):
        assert line in printed

    report = run(traps, tmp_path / "near", *options, "--max_fit_error_mm=30")
    assert report["counts"][f"dropped: {TOO_FAR}"] == 5  # 3 cameras, and 2 of capture 1
    assert report["counts"]["records"] == 13
    assert report["part"] == f"captures 0, 1; 24 of 48 annotations; without 5: {TOO_FAR}"
    assert report["fit_errors_mm"] == fits


# A squashed camera


def squashed_tree(folder: Path) -> tuple[TinyTree, Path]:
    tree = tiny_tree(frames=1, cameras=3)
    raw_dir = tree.write(folder)
    squash(tree, raw_dir, "Capture0/ROM01/cam400260")
    return tree, raw_dir


def pixels_of(index: int, **options) -> np.ndarray:
    record = read_split(**options).table.record(index)
    return joint_pixels({name: np.asarray(record[name])[None] for name in JOINT_FIELDS})[0][0]


def test_mended_intrinsics_put_the_joints_on_the_squashed_hand(tmp_path):
    _, raw_dir = squashed_tree(tmp_path / "squashed")
    whole = tiny_tree(frames=1, cameras=3).write(tmp_path / "whole")
    expected = pixels_of(0, raw_dir=whole, split="train") * [HEIGHT / WIDTH, WIDTH / HEIGHT]
    found = pixels_of(0, raw_dir=raw_dir, split="train", squashed="mend")
    np.testing.assert_allclose(found, expected, atol=1e-3)
    table = read_split(raw_dir, "train", squashed="mend").table
    assert len(table) == 6
    x, y, side, _ = table.record(0)["bbox_px"]
    low, high = expected.min(axis=(0, 1)), expected.max(axis=(0, 1))
    assert (low >= [x, y]).all() and (high <= [x + side, y + side]).all()
    others = read_split(whole, "train").table
    for i in range(1, 6):
        for name, value in others.record(i).items():
            np.testing.assert_array_equal(table.record(i)[name], value, err_msg=name)


def test_what_is_done_with_it_is_part_of_the_identity(tmp_path, capsys):
    _, raw_dir = squashed_tree(tmp_path / "raw")
    assert run(raw_dir, tmp_path / "ds")["counts"][f"dropped: {SQUASHED}"] == 1
    error = fail(raw_dir, tmp_path / "ds", capsys, "--squashed=mend")
    assert "squashed: drop there, mend asked for" in error
    report = run(raw_dir, tmp_path / "mended", "--squashed=mend")
    assert (report["counts"]["records"], report["part"]) == (6, None)
    assert "1 annotations, intrinsics mended (--squashed)" in report["notes"][0]


def test_a_turned_camera_with_its_own_calibration_is_kept(tmp_path):
    tree = tiny_tree(frames=1, cameras=3)
    image = tree.data["images"][0]
    image["width"], image["height"] = HEIGHT, WIDTH
    tree.camera["0"]["princpt"]["400260"] = [HEIGHT / 2 + 3, WIDTH / 2 - 2]
    split = read_split(tree.write_annotations(tmp_path), "train")
    assert len(split.table) == 6
    assert not split.findings


def made_of(sizes: list[tuple[int, int]], points: list[tuple[float, float]]):
    """One image of each camera of one capture; sizes and principal points in pixels."""
    count = len(sizes)
    cameras = np.arange(count)
    images = Images(
        id=cameras,
        file_name=np.array([b""] * count),
        size_px=np.array(sizes),
        text={"capture": np.full(count, count), "camera": cameras},
        names=np.array([str(i).encode() for i in range(count + 1)]),
        frame_idx=cameras,
    )
    rows = {(str(count), str(camera)): camera for camera in range(count)}
    turns = np.tile(np.eye(3), (count, 1, 1))
    return images, Cameras(
        rows, turns, np.zeros((count, 3)), np.full((count, 2), 1300.0), np.array(points)
    )


PUBLISHED = [(196.3, 240.4), (155.8, 258.8), (187.2, 243.6), (167.0, 256.0)]
"""Principal points of 334×512 images, three of them the dataset's own."""


@pytest.mark.parametrize("point", PUBLISHED)
def test_shapes_and_calibrations_as_published(point):
    """The 512×334 images' middle half would hold some of these points of the other shape."""
    usual = [(334, 512)] * 2
    images, cameras = made_of([*usual, (512, 334)], [*PUBLISHED[:2], point])
    (found,) = squashed_cameras(images, cameras)
    assert (found.camera, found.calibrated_px) == ("2", (334, 512))
    turned = (512 - point[1], point[0])
    assert not squashed_cameras(*made_of([*usual, (512, 334)], [*PUBLISHED[:2], turned]))
    (found,) = squashed_cameras(*made_of([(334, 512), (512, 334)], [PUBLISHED[0], point]))
    assert found.camera == "1"  # of two cameras neither shape is the usual one


# A part of the images


def test_captures_are_a_choice(tmp_path, capsys):
    tree = tiny_tree(frames=2, captures=("0", "1", "10"))
    raw_dir = tree.write(tmp_path / "raw")
    report = run(raw_dir, tmp_path / "ds", "--captures=10,0")
    assert report["counts"]["dropped: not in captures 0, 10"] == 4
    assert report["counts"]["records"] == 8
    assert report["part"] == "captures 0, 10; 8 of 12 annotations"
    assert report["notes"][:3] == [
        "capture 0: 4 images",
        "capture 1: not asked for, 4 images",
        "capture 10: 4 images",
    ]
    assert "captures: ['0', '10'] there, ['0'] asked for" in fail(
        raw_dir, tmp_path / "ds", capsys, "--captures=0"
    )
    assert run(raw_dir, tmp_path / "all", "--captures=0,1,10")["part"] is None
    error = fail(raw_dir, tmp_path / "b", capsys, "--captures=0,7")
    assert "--captures names 7, which no split of" in error and "there are 0, 1, 10" in error
    tiny_tree("test", captures=("4",)).write(raw_dir)
    error = fail(raw_dir, tmp_path / "b", capsys, "--captures=0")
    assert "test has none of --captures=0, only 4" in error and "--splits" in error
    with pytest.raises(SystemExit):
        run(raw_dir, tmp_path / "b", "--captures=0,,1")


def test_images_downloaded_later_make_another_dataset(tmp_path, capsys):
    tree = tiny_tree(frames=2)
    raw_dir = tree.write(tmp_path / "raw")
    moved = shutil.move(raw_dir / "images/train/Capture1", tmp_path / "later")
    (image_path(raw_dir, "0", "400260", 20003)).unlink()
    report = run(raw_dir, tmp_path / "ds", "--existing_only")
    assert report["counts"]["dropped: not downloaded"] == 5
    assert (report["counts"]["dropped: bad image"], report["counts"]["records"]) == (0, 3)
    assert report["part"] == "captures 0; 3 of 8 annotations"
    assert report["notes"][:2] == [
        "capture 0: 3 of 4 images there",
        "capture 1: 0 of 4 images there",
    ]
    assert run(raw_dir, tmp_path / "ds", "--existing_only") == report
    shutil.move(moved, raw_dir / "images/train/Capture1")
    error = fail(raw_dir, tmp_path / "ds", capsys, "--existing_only")
    assert "existing_only: {'train': '3 files," in error and "{'train': '7 files," in error
    chosen = ["--existing_only", "--captures=0"]
    report = run(raw_dir, tmp_path / "chosen", *chosen)
    shutil.rmtree(raw_dir / "images/train/Capture1")  # is not looked at
    assert run(raw_dir, tmp_path / "chosen", *chosen) == report
    assert report["counts"]["dropped: not downloaded"] == 1


def test_existing_only_of_a_whole_tree_is_no_part(tmp_path):
    report = run(tiny_tree().write(tmp_path / "raw"), tmp_path / "ds", "--existing_only")
    assert (report["part"], report["counts"]["records"]) == (None, 8)


def test_each_folder_is_listed_once_and_no_image_looked_at(tmp_path, monkeypatch):
    tree = tiny_tree(frames=20)
    raw_dir = tree.write(tmp_path / "raw")
    image_dir = raw_dir / "images/train"
    folders = [image_dir, *(path for path in image_dir.rglob("*") if path.is_dir())]
    listed, looked_at = [], []
    scandir, stat = os.scandir, os.stat

    def counted_scandir(path):
        listed.append(Path(path))
        return scandir(path)

    def counted_stat(path, *arguments, **options):
        looked_at.append(str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", counted_scandir)
    monkeypatch.setattr(os, "stat", counted_stat)
    on_disk = ImagesOnDisk(image_dir)
    on_disk.identity()
    assert len(read_split(raw_dir, "train", on_disk=on_disk).table) == 80
    assert sorted(listed) == sorted(folders)
    assert not [path for path in looked_at if path.endswith(".jpg")]


def test_free_space_counts_what_is_there(tmp_path, monkeypatch, capsys):
    tree = tiny_tree(frames=20)
    raw_dir = tree.write(tmp_path / "raw")
    for path in sorted((raw_dir / "images/train").rglob("*.jpg")):
        path.write_bytes(jpeg(0) + bytes(50_000))
    usage = shutil.disk_usage(tmp_path)._replace(free=40 * 60_000)  # of 80 records
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "Make room" in fail(raw_dir, tmp_path / "ds", capsys)
    shutil.rmtree(raw_dir / "images/train/Capture1")
    assert run(raw_dir, tmp_path / "ds", "--existing_only")["counts"]["records"] == 40
    report = run(raw_dir, tmp_path / "bad", "--max_bad_images=40")
    assert report["counts"]["dropped: bad image"] == 40


def test_many_bad_images_are_few_lines(tmp_path, capsys):
    tree = tiny_tree(frames=20)
    raw_dir = tree.write(tmp_path / "raw")
    for path in sorted((raw_dir / "images/train").rglob("*.jpg"))[:25]:
        path.write_bytes(b"")
    report = run(raw_dir, tmp_path / "ds", "--max_bad_images=25")
    assert len(report["bad_images"]) == 25
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(": empty") == 20
    assert f"train: left out 5 more; {REPORT} names them" in printed


# Where such a dataset is told


@pytest.fixture(scope="module")
def part_dir(raw_dir, tmp_path_factory) -> Path:
    """The drawn dataset, whose test split lacks an image."""
    folder = tmp_path_factory.mktemp("part")
    raw = shutil.copytree(raw_dir, folder / "raw")
    next((raw / "images/test").rglob("*.jpg")).unlink()
    arguments = [f"--raw_dir={raw}", f"--data_dir={folder / 'ds'}", "--existing_only"]
    assert build.main(["interhand26m", *arguments]) == 0
    return folder / "ds"


def part_title(data_dir: Path) -> str:
    report = json.loads((find_dataset(data_dir, "interhand26m") / REPORT).read_text())
    part = report["splits"]["test"]["part"]
    assert part.endswith("; 7 of 8 annotations")
    return f"interhand26m/all, test: part of the split: {part}"


def test_a_part_is_named_by_who_reads_it(part_dir, data_dir):
    split = AnnotatedSplit(part_dir, "interhand26m/all", "test")
    assert split.title == part_title(part_dir)
    versions = dataset_versions(part_dir, "interhand26m")["interhand26m"]
    assert versions["test"]["part"] in split.title
    assert "part" not in versions["train"]
    assert AnnotatedSplit(part_dir, "interhand26m/all", "train").title == "interhand26m/all, train"
    assert AnnotatedSplit(data_dir, "interhand26m/all", "test").provenance == {
        "dataset": "interhand26m/all",
        "split": "test",
    }


def test_reports_on_predictions_name_the_part(part_dir, hands, tmp_path):
    split, train = (AnnotatedSplit(part_dir, "interhand26m/all", s, 8) for s in ("test", "train"))
    ids, arrays = exported_truth(split, hands)
    content = {name: arrays[name] for name in ("vertices", "rel_trans")}
    write_predictions(tmp_path / "truth.npz", ids, content, metadata={"method": "truth"})
    page = report_on([str(tmp_path / "truth.npz")], split, train, hands, tmp_path / "report")
    title = part_title(part_dir)
    text = " ".join(page.read_text().split())
    assert f"<h1>truth on {title}</h1>" in text
    assert f'<p class="note">{title}; 7 samples;' in text
    assert f"<!-- {title}, " in (page.parent / "row.md").read_text()
    numbers = json.loads((page.parent / "numbers.json").read_text())
    for name in ("truth", "mean pose and shape"):
        assert title.endswith(numbers["provenance"][name]["part"])


@pytest.mark.slow
def test_the_evaluation_names_the_part(part_dir, tmp_path, capsys):
    config = on_dataset(part_dir, "interhand26m/all")
    assert run_training(config, tmp_path).finished
    capsys.readouterr()
    results = run_evaluation(config, tmp_path, step=None, split=None)
    title = part_title(part_dir)
    assert f"{title}; checkpoint " in " ".join(capsys.readouterr().out.split())
    assert title.endswith(json.loads(results.read_text())["provenance"]["part"])
    assert title in (results.parent / results.stem / "report.html").read_text()


def of_part(name: str, part: str | None, seed: int = 0):
    result = made_up(name, count=200, seed=seed)
    result.provenance.update({"checkpoint_step": 5, "parameters": 7, "device": "cpu"})
    result.provenance.update({"part": part} if part else {})
    return result


def test_a_part_is_not_compared_with_the_whole():
    whole, some = of_part("a", None), of_part("b", "captures 0; 3 of 9 annotations")
    with pytest.raises(ConfigError, match=r"their part differs: .*captures 0; 3 of 9"):
        paired([whole, some])
    assert len(paired([some, of_part("a", "captures 0; 3 of 9 annotations")])) == 2


def test_the_ablations_table_names_the_part():
    runs = [[of_part(name, "captures 0; 3 of 9 annotations") for name in "ab"] for _ in range(2)]
    text = markdown(ablation(("a", "b"), range(2), runs), "constant", None)
    assert "made up, test: part of the split: captures 0; 3 of 9 annotations; trained" in text


# Fits that are far off


def fits_of(tree: TinyTree, folder: Path, hands: HandModel, **options):
    return read_split(tree.write_annotations(folder), "train", hands=hands, **options)


def test_fits_are_compared_by_the_valid_joints_of_the_dataset(hands, tmp_path):
    tree = tiny_tree(frames=2, cameras=2)
    take_joints_of_fits(tree, hands)
    frame = tree.joint_3d["0"]["20003"]
    thumb, wrist = INTERHAND21.index("Thumb_4"), INTERHAND21.index("Wrist")
    frame["world_coord"][thumb][1] += 42  # of 21 joints: 2 mm
    frame["world_coord"][thumb + 1][1] += 900
    frame["joint_valid"][thumb + 1] = [0]
    tree.joint_3d["0"]["20000"]["joint_valid"][wrist] = [0]  # the hand has no place
    tree.mano["1"]["20000"]["left"] = None
    tree.mano["1"]["20003"]["left"]["trans"][2] += 0.012
    found = fits_of(tree, tmp_path, hands).findings["fit_errors_mm"]
    assert found["hands"] == 6
    (first, second, third) = found["worst"][:3]
    assert first == {"capture": "1", "frame": "20003", "hand": "left", "mm": 12.0}
    assert (second["frame"], second["hand"]) == ("20003", "right")
    assert second["mm"] == pytest.approx(42 / 20, abs=0.01)
    assert third["mm"] < 0.01
    assert found["max"] == 12.0
    values = [12.0, 2.1, 0, 0, 0, 0]
    assert found["percentiles"]["90"] == pytest.approx(np.percentile(values, 90), abs=0.02)
    assert HAND21.index("Wrist") == 0


def test_only_records_that_show_the_hand_are_dropped(hands, tmp_path):
    tree = tiny_tree(frames=1, cameras=2)
    take_joints_of_fits(tree, hands)
    tree.mano["0"]["20000"]["left"]["trans"][0] += 0.04
    tree.data["annotations"][0]["joint_valid"] = [1] * 21 + [0] * 21
    split = fits_of(tree, tmp_path, hands, max_fit_error_mm=30)
    assert split.counts[f"dropped: {TOO_FAR}"] == 1
    assert split.table.columns["annotation_id"][:].tolist() == [0, 2, 3]
    assert split.counts["usable"] == 4
    assert fits_of(tree, tmp_path, hands, max_fit_error_mm=50).part is None
    with pytest.raises(DataError, match=r"no annotation of split 'train' is left .*30 mm: 4"):
        for fits in (fit for frames in tree.mano.values() for fit in frames.values()):
            fits["right"]["trans"][0] += 0.04
        fits_of(tree, tmp_path, hands, max_fit_error_mm=30)


def test_without_a_hand_model_the_report_says_that_fits_were_not_compared(tmp_path, capsys):
    raw_dir = tiny_tree().write(tmp_path / "raw")
    report = run(raw_dir, tmp_path / "ds")
    assert "fit_errors_mm" not in report
    assert "train: the fits were not compared with the annotated joints: --mano_dir=MANO" in (
        " ".join(capsys.readouterr().out.split())
    )
    error = fail(raw_dir, tmp_path / "b", capsys, "--max_fit_error_mm=30")
    assert "--max_fit_error_mm=30 needs the hand model" in error and "--mano_dir=MANO" in error
    assert f"{tmp_path}: no MANO_RIGHT" in fail(
        raw_dir, tmp_path / "b", capsys, f"--mano_dir={tmp_path}"
    )
    assert "fits_compared_with: None there, " in fail(
        raw_dir, tmp_path / "ds", capsys, "--mano_dir=stand_in"
    )


# Black images


@pytest.mark.parametrize("subset", SUBSETS)
def test_black_images_are_counted_for_every_subset(tmp_path, subset):
    tree = tiny_tree(frames=2, cameras=2)
    tree.brightness = {tree.data["images"][i]["file_name"]: b for i, b in ((0, 0), (3, 8), (5, 14))}
    raw_dir = tree.write(tmp_path / "raw")
    (tmp_path / "ids.txt").write_text("0 1 5")
    options = [f"--subset={subset}", "--splits=train"]
    if subset in ("human_annot", "machine_annot"):
        options += [f"--annotation_ids={tmp_path}/ids.txt"]
    counts = run(raw_dir, tmp_path / "ds", *options)["counts"]
    dropped, kept, records = {
        "all": (0, 2, 8),
        "human_annot": (0, 1, 3),
        "machine_annot": (0, 1, 3),
        "interacting_mano": (2, 0, 6),
    }[subset]
    assert counts["dropped: dark image"] == dropped
    assert (counts["of these dark"], counts["records"]) == (kept, records)


@pytest.mark.parametrize("subset", ["all", "interacting_mano"])
def test_a_black_image_cut_short_is_bad(tmp_path, subset):
    tree = tiny_tree(frames=1, cameras=2)
    tree.brightness = {image["file_name"]: 0 for image in tree.data["images"][:2]}
    raw_dir = tree.write(tmp_path / "raw")
    first, second = (raw_dir / "images/train" / i["file_name"] for i in tree.data["images"][:2])
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    second.write_bytes(b"")
    counts = run(raw_dir, tmp_path / "ds", f"--subset={subset}", "--max_bad_images=2")["counts"]
    assert (counts["dropped: bad image"], counts["dropped: dark image"]) == (2, 0)
    assert counts["of these dark"] == 0
    with pytest.raises(BadImageError, match="cut short"):
        read_image_file(first, (WIDTH, HEIGHT))


def test_an_image_is_dark_by_its_whole_mean(tmp_path):
    """Whatever its colour, and where a coarse decoding in grey says otherwise."""
    random = np.random.default_rng(0)
    path = tmp_path / "image.jpg"
    dark = 0
    for number in range(300):
        colour = random.dirichlet([0.3] * 3) * 3 * random.uniform(1, 13)
        noise = random.uniform(0, 1) * random.normal(0, 30, (HEIGHT, WIDTH, 1))
        pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
        if number % 3 == 0:
            cv2.circle(pixels, (40, 30), 9, tuple(random.uniform(0, 255, 3).tolist()), -1)
        path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=85))
        image = read_image_file(path, (WIDTH, HEIGHT))
        assert is_dark(image) == (mean_brightness(image.data) < 10), number
        dark += is_dark(image)
    assert 50 < dark < 250
    green = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    green[..., 1] = 29  # of all colours the brightest in grey
    path.write_bytes(simplejpeg.encode_jpeg(green))
    assert is_dark(read_image_file(path, (WIDTH, HEIGHT)))


def test_a_bright_image_is_not_decoded_in_full(monkeypatch):
    monkeypatch.setattr("data_pipeline.images.mean_brightness", lambda data: pytest.fail("decoded"))
    assert not is_dark(ImageFile(b"", 20.0))
