"""From a raw tree to shards on disk: whole or absent, the same bytes every time."""

import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tiny_tree import annotation_path, jpeg, tiny_tree

from data_pipeline.build import __main__ as build
from data_pipeline.build import shards
from data_pipeline.build.request import REPORT
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.readers.interhand26m.reader import read_split
from data_pipeline.records import (
    BUILDER_VERSION,
    RecordCodec,
    RecordTable,
    record_features,
)
from er_jax.utils import locks
from er_jax.utils.errors import DataError

CAPTURE = "Capture0/ROM01/cam400260"


@pytest.fixture(scope="module")
def tree_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw tree of 24 train and 4 test images."""
    folder = tmp_path_factory.mktemp("raw")
    tiny_tree("train", frames=6, cameras=2).write(folder)
    tiny_tree("test", frames=1, cameras=2, seed=1).write(folder)
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of eight records, so that a tiny dataset has several."""
    monkeypatch.setattr(shards, "SMALL_SHARD_RECORDS", 8)


def run(raw_dir: Path, data_dir: Path, *options: str, workers: int = 1) -> Path:
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", f"--workers={workers}"]
    assert build.main(["interhand26m", *arguments, *options]) == 0
    return data_dir / "interhand26m" / "all" / BUILDER_VERSION


def fail(raw_dir: Path, data_dir: Path, capsys: pytest.CaptureFixture, *options: str) -> str:
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", "--workers=1"]
    assert build.main(["interhand26m", *arguments, *options]) == 1
    assert not (data_dir / "interhand26m" / "all" / BUILDER_VERSION).exists()
    return capsys.readouterr().err


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def report_of(folder: Path) -> dict:
    return json.loads((folder / REPORT).read_text())


def test_tfds_reads_back_every_record_with_its_own_bytes(tree_dir, tmp_path):
    folder = run(tree_dir, tmp_path)
    builder = tfds.builder_from_directory(folder)
    assert (builder.name, str(builder.version)) == ("interhand26m", BUILDER_VERSION)
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split in ("train", "test"):
        table = read_split(tree_dir, split).table
        source = builder.as_data_source(split, decoders=decoders)
        found = {record["annotation_id"]: record for record in source}
        assert len(source) == len(found) == len(table)
        for i in range(len(table)):
            expected = table.record(i)
            record = found[int(expected["annotation_id"])]
            assert record["image"] == table.image_path(i).read_bytes()
            for name, value in expected.items():
                value = value.encode() if isinstance(value, str) else value
                np.testing.assert_array_equal(record[name], value, err_msg=name)


@pytest.mark.parametrize("with_vertices", [False, True])
def test_codec_writes_and_reads_what_tfds_does(tree_dir, with_vertices):
    record = read_split(tree_dir, "train").table.record(0) | {"image": jpeg(0)}
    if with_vertices:
        vertices = np.random.default_rng(0).normal(size=(2, 778, 3)).astype(np.float32)
        record |= {"mano_vertices_m": vertices, "mano_vertices_valid": np.array([True, False])}
    features = record_features(record)
    serializer = ExampleSerializer(features.get_serialized_info())
    example = serializer.get_tf_example(features.encode_example(record))
    data = RecordCodec.of(features).encode(record)
    assert data == example.SerializeToString(deterministic=True)
    expected = features.deserialize_example_np(data, decoders={"image": tfds.decode.SkipDecoding()})
    decoded = RecordCodec.of(features).decode(data)
    assert decoded.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(decoded[name], value, err_msg=name)
        if isinstance(value, np.ndarray):
            assert decoded[name].dtype == value.dtype


def test_a_table_survives_saving(tree_dir, tmp_path):
    table = read_split(tree_dir, "train").table.select(np.array([5, 2]))
    table.save(tmp_path / "table")
    loaded = RecordTable.load(tmp_path / "table")
    assert len(loaded) == 2
    for i in range(2):
        assert loaded.image_path(i) == table.image_path(i)
        for name, value in table.record(i).items():
            np.testing.assert_array_equal(loaded.record(i)[name], value, err_msg=name)


def test_two_builds_are_the_same_byte_for_byte_whatever_the_workers(
    tree_dir, tmp_path, small_shards
):
    first = files_of(run(tree_dir, tmp_path / "one", workers=1))
    second = files_of(run(tree_dir, tmp_path / "two", workers=2))
    assert len([name for name in first if "train.array_record" in name]) == 3
    assert first == second
    assert not list((tmp_path / "two/interhand26m/all").glob("*.incomplete*"))


def test_records_are_shuffled_globally(tree_dir, tmp_path, small_shards):
    source = RecordSource(run(tree_dir, tmp_path), "train")
    ids = [source[i]["annotation_id"] for i in range(len(source))]
    assert sorted(ids) == list(range(24))
    assert all(sorted(ids[i : i + 8]) != list(range(i, i + 8)) for i in (0, 8, 16))
    # The order is part of the format: it may not change with numpy.
    assert shards.shuffled_order(8).tolist() == [4, 3, 1, 6, 7, 2, 5, 0]


def test_shards_are_of_a_sane_size():
    bounds = shards.shard_bounds(1_361_062, 47_000)
    sizes = np.array([stop - start for start, stop in bounds])
    assert sizes.sum() == 1_361_062
    assert 200 << 20 < sizes.mean() * 47_000 <= 256 << 20
    assert sizes.max() - sizes.min() <= 1
    assert shards.shard_bounds(3, 47_000) == [(0, 3)]


def test_report(tree_dir, tmp_path, capsys):
    folder = run(tree_dir, tmp_path)
    report = report_of(folder)
    assert report["request"]["config"] == "all"
    assert report["request"]["box_rule"] == "joints valid in 3D, seen or not"
    assert report["splits"]["train"]["counts"]["records"] == 24
    assert report["splits"]["test"]["hand_types"] == {"right": 0, "left": 0, "interacting": 4}
    printed = capsys.readouterr().out
    assert "dropped: box misses the image" in printed
    assert str(folder) in printed


# Bad images


def _spoiled(case: str) -> bytes | None:
    if case == "missing":
        return None
    if case == "empty":
        return b""
    if case == "cut short":
        return jpeg(0)[:-200]
    if case == "no image":
        return b"<html>404</html>"
    return jpeg(0, width=48)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "missing"),
        ("empty", "empty"),
        ("cut short", "unreadable or cut short"),
        ("no image", "unreadable or cut short"),
        ("another size", "48×64 pixels, annotated as 96×64"),
    ],
)
def test_bad_images_are_named_and_counted_up_to_a_limit(tree_dir, tmp_path, capsys, case, message):
    raw_dir = tmp_path / "raw"
    shutil.copytree(tree_dir, raw_dir)
    spoiled = raw_dir / "images/train" / CAPTURE / "image20003.jpg"
    content = _spoiled(case)
    spoiled.unlink()
    if content is not None:
        spoiled.write_bytes(content)
    error = " ".join(fail(raw_dir, tmp_path / "data", capsys).split())
    assert "1 bad images, 0 allowed" in error
    assert f"image20003.jpg: {message}" in error
    assert "--max_bad_images" in error

    folder = run(raw_dir, tmp_path / "data", "--max_bad_images=1")
    report = report_of(folder)["splits"]["train"]
    assert report["counts"]["records"] == 23
    assert report["counts"]["dropped: bad image"] == 1
    assert message in report["bad_images"][0]
    assert f"image20003.jpg: {message}" in " ".join(capsys.readouterr().out.split())


def test_restored_images_are_taken_by_the_next_run(tree_dir, tmp_path, capsys, small_shards):
    raw_dir = tmp_path / "raw"
    shutil.copytree(tree_dir, raw_dir)
    spoiled = sorted((raw_dir / "images/train").rglob("*.jpg"))[::6]
    contents = [path.read_bytes() for path in spoiled]
    for path in spoiled:
        path.write_bytes(b"")
    assert "bad images, 2 allowed" in fail(raw_dir, tmp_path / "a", capsys, "--max_bad_images=2")
    for path, content in zip(spoiled, contents, strict=True):
        path.write_bytes(content)
    assert files_of(run(raw_dir, tmp_path / "a")) == files_of(run(tree_dir, tmp_path / "b"))


def test_what_is_gone_on_with_is_told(tree_dir, tmp_path, caplog, capsys):
    """A run that ended before it kept anything leaves nothing to go on with."""
    raw_dir = shutil.copytree(tree_dir, tmp_path / "raw")
    joints = annotation_path(raw_dir, "joint_3d")
    content = joints.read_text()
    joints.write_text("{}")
    fail(raw_dir, tmp_path / "a", capsys)
    with caplog.at_level(logging.INFO):
        fail(raw_dir, tmp_path / "a", capsys)
    assert "going on" not in caplog.text
    joints.write_text(content)
    image = next((raw_dir / "images/train").rglob("*.jpg"))
    data = image.read_bytes()
    image.write_bytes(b"")
    fail(raw_dir, tmp_path / "a", capsys)
    image.write_bytes(data)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run(raw_dir, tmp_path / "a")
    assert "going on with what an earlier run left in" in caplog.text
    assert "interrupted" not in caplog.text


def test_dark_images_are_left_out_of_interacting_mano_only(tmp_path):
    tree = tiny_tree(frames=2, cameras=1)
    tree.brightness = {f"{CAPTURE}/image20000.jpg": 4, f"{CAPTURE}/image20003.jpg": 16}
    raw_dir = tree.write(tmp_path / "raw")
    assert report_of(run(raw_dir, tmp_path))["splits"]["train"]["counts"]["records"] == 4
    run(raw_dir, tmp_path, "--subset=interacting_mano")
    folder = find_dataset(tmp_path, "interhand26m/interacting_mano")
    counts = report_of(folder)["splits"]["train"]["counts"]
    assert (counts["records"], counts["dropped: dark image"]) == (3, 1)


def test_subset_by_a_list_of_ids(tree_dir, tmp_path, capsys):
    (tmp_path / "ids_train.txt").write_text("3\n17\n")
    (tmp_path / "ids_test.txt").write_text("0\n")
    options = ["--subset=human_annot", f"--annotation_ids={tmp_path}/ids_{{split}}.txt"]
    run(tree_dir, tmp_path, *options)
    source = RecordSource(find_dataset(tmp_path, "interhand26m/human_annot"), "train")
    assert sorted(source[i]["annotation_id"] for i in range(len(source))) == [3, 17]

    (tmp_path / "ids_train.txt").write_text("3\n")  # another list is another dataset
    arguments = [f"--raw_dir={tree_dir}", f"--data_dir={tmp_path}", *options]
    assert build.main(["interhand26m", *arguments]) == 1
    assert "was built from other files" in capsys.readouterr().err
    assert "--annotation_ids=" in fail(tree_dir, tmp_path, capsys, "--subset=machine_annot")
    (tmp_path / "ids_train.txt").unlink()
    assert "ids_train.txt, given by --annotation_ids" in fail(tree_dir, tmp_path, capsys, *options)
    (tmp_path / "ids_train.txt").write_text("three")
    assert "not a list of annotation ids" in fail(tree_dir, tmp_path, capsys, *options)
    one_list = ["--subset=human_annot", f"--annotation_ids={tmp_path}/ids_test.txt"]
    assert "is one list for train, test" in fail(tree_dir, tmp_path, capsys, *one_list)
    assert "takes no list of ids" in fail(tree_dir, tmp_path, capsys, one_list[1])


def test_lists_of_one_name_in_two_folders_are_told_apart(tree_dir, tmp_path, capsys):
    for split, ids in (("train", "3"), ("test", "0")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "ids.txt").write_text(ids)
    options = ["--subset=machine_annot", f"--annotation_ids={tmp_path}/{{split}}/ids.txt"]
    run(tree_dir, tmp_path, *options)
    (tmp_path / "train/ids.txt").write_text("4")
    arguments = [f"--raw_dir={tree_dir}", f"--data_dir={tmp_path}", *options]
    assert build.main(["interhand26m", *arguments]) == 1
    error = capsys.readouterr().err
    assert "SHA-256 of train, ids.txt" in error
    assert "test, ids.txt" not in error


def test_both_frame_rates_have_their_place(tree_dir, tmp_path):
    slow = run(tree_dir, tmp_path)
    run(tree_dir, tmp_path, "--fps=30")
    fast = find_dataset(tmp_path, "interhand26m/all_30fps")
    assert slow != fast
    shards_of = [{p.name: p.read_bytes() for p in f.glob("*array_record*")} for f in (slow, fast)]
    assert shards_of[0] == shards_of[1]


# What is there already


def test_a_finished_build_is_left_alone_and_never_replaced_unasked(tree_dir, tmp_path, capsys):
    folder = run(tree_dir, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(tree_dir, tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    arguments = [f"--raw_dir={tree_dir}", f"--data_dir={tmp_path}", "--boxes=joints"]
    assert build.main(["interhand26m", *arguments]) == 1
    error = capsys.readouterr().err
    assert "  boxes: auto there, joints asked for\nGive another --data_dir, or --overwrite" in error
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(tree_dir, tmp_path, "--boxes=joints", "--overwrite")
    assert report_of(folder)["request"]["boxes"] == "joints"
    assert not list(folder.parent.glob("*.incomplete*"))


def test_a_build_of_another_version_is_refused(tree_dir, tmp_path):
    folder = run(tree_dir, tmp_path)
    folder.rename(folder.with_name("0.9.0"))
    with pytest.raises(DataError, match=r"was built by version 0\.9\.0 .* Build it again"):
        find_dataset(tmp_path, "interhand26m")


def test_an_unfinished_an_unknown_and_an_empty_dataset_are_told_apart(tree_dir, tmp_path):
    with pytest.raises(DataError, match=r"has no dataset hic/all, only none\. Build it with"):
        find_dataset(tmp_path, "hic")
    folder = run(tree_dir, tmp_path)
    with pytest.raises(DataError, match=r"has no dataset hic/all, only interhand26m/all\."):
        find_dataset(tmp_path, "hic")
    with pytest.raises(DataError, match="has no split 'val', only train, test"):
        RecordSource(folder, "val")
    folder.rename(folder.with_name(folder.name + ".incomplete"))
    with pytest.raises(DataError, match="is not finished: its build was interrupted"):
        find_dataset(tmp_path, "interhand26m")


def test_one_build_at_a_time(tree_dir, tmp_path, capsys):
    folder = tmp_path / "interhand26m" / "all"
    folder.mkdir(parents=True)
    with locks.locked(folder / f"{BUILDER_VERSION}.lock", ""):
        assert "Another process is building" in fail(tree_dir, tmp_path, capsys)


def test_a_lock_on_a_removed_file_is_none(tmp_path, monkeypatch):
    """Its holder removed it after this process opened it, and a third one may have a new one."""
    path = tmp_path / "1.lock"
    lock = locks.fcntl.flock

    def lock_after_another(file, how):
        path.unlink()
        path.touch()
        lock(file, how)

    monkeypatch.setattr(locks.fcntl, "flock", lock_after_another)
    with (
        pytest.raises(DataError, match="Another one has it"),
        locks.locked(path, "Another one has it"),
    ):
        pass


def test_a_raw_tree_may_move_before_its_build_goes_on(tree_dir, tmp_path, capsys, small_shards):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(tree_dir, first)
    sorted((first / "images/train").rglob("*.jpg"))[-1].unlink()
    assert "1 bad images" in fail(first, tmp_path / "a", capsys)
    shutil.rmtree(first)
    shutil.copytree(tree_dir, second)
    assert files_of(run(second, tmp_path / "a")) == files_of(run(tree_dir, tmp_path / "b"))


def test_wrong_raw_dir_and_split(tree_dir, tmp_path, capsys):
    assert "--raw_dir must be the folder" in fail(tmp_path, tmp_path, capsys)
    assert "has no split 'val'" in fail(tree_dir, tmp_path, capsys, "--splits=train,val")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--splits=train,train", "not some of train,val,test, each once"),
        ("--splits=", "not some of train,val,test"),
        ("--subset=human", "invalid choice: 'human'"),
        ("--workers=0", "0 is less than 1"),
        ("--max_bad_images=few", "invalid whole number value: 'few'"),
    ],
)
def test_options_that_say_nothing(tree_dir, tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        run(tree_dir, tmp_path, option)
    assert message in capsys.readouterr().err


# Disks


def test_too_small_a_disk_is_noticed_before_writing(tree_dir, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    error = fail(tree_dir, tmp_path, capsys)
    assert "GiB more and the disk has 0.0 GiB. Make room" in error


@pytest.mark.parametrize("size", [100, 2_000, 20_000])  # less than a note, a column, a shard
def test_a_disk_that_fills_up_leaves_nothing_that_looks_whole(tree_dir, tmp_path, capsys, size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        error = fail(tree_dir, tmp_path, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in error
    assert "If the disk is full, make room and run the same command again" in error
    assert not list(tmp_path.rglob("*.array_record-*"))
    folder = run(tree_dir, tmp_path)
    assert report_of(folder)["splits"]["train"]["counts"]["records"] == 24


def test_a_data_dir_that_cannot_be_written(tree_dir, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "cannot be written ([Errno 20] Not a directory" in fail(
        tree_dir, tmp_path / "file", capsys
    )


# Interruptions

_SLOW_BUILD = """
import sys, time
from data_pipeline.build import __main__ as build
from data_pipeline.build import shards
shards.SMALL_SHARD_RECORDS = 8
write = shards._write_record
def slowly(*arguments):
    time.sleep(0.02)
    write(*arguments)
shards._write_record = slowly
if __name__ == "__main__":
    sys.exit(build.main(sys.argv[1:]))
"""


def _start_build(
    raw_dir: Path, data_dir: Path, workers: int, seconds_a_record: float = 0.02
) -> subprocess.Popen:
    """A build of shards of eight records; its worker processes import the same script."""
    script = data_dir.with_name("slow_build.py")
    script.write_text(_SLOW_BUILD.replace("0.02", str(seconds_a_record)))
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", f"--workers={workers}"]
    return subprocess.Popen(
        [sys.executable, script, "interhand26m", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill_and_finish(tree_dir: Path, folder: Path, seconds: list[float], workers: int) -> None:
    """Kills a build after so many seconds of writing, again and again; then lets it end."""
    reference = files_of(run(tree_dir, folder / "whole"))
    data_dir = folder / "killed"
    final = data_dir / "interhand26m" / "all" / BUILDER_VERSION
    for delay in seconds:
        process = _start_build(tree_dir, data_dir, workers)
        request = final.with_name(final.name + ".incomplete") / "request.json"
        while process.poll() is None and not request.exists():
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate()
        if final.exists():
            assert files_of(final) == reference
        else:
            with pytest.raises(DataError, match=r"interrupted|has no dataset"):
                find_dataset(data_dir, "interhand26m")
    process = _start_build(tree_dir, data_dir, workers)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert files_of(final) == reference
    assert [path.name for path in final.parent.iterdir()] == [final.name]


@pytest.mark.slow
def test_killed_twice(tree_dir, tmp_path, small_shards):
    _kill_and_finish(tree_dir, tmp_path, [0.05, 0.35], workers=1)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "longest"), [(1, 0.8), (2, 3.0)])
def test_killed_at_ten_random_moments(tree_dir, tmp_path, small_shards, workers, longest):
    delays = [random.uniform(0, longest) for _ in range(10)]
    print(f"killed after {delays}")  # shown where it fails
    _kill_and_finish(tree_dir, tmp_path, delays, workers)


@pytest.mark.parametrize("step", ["before the rename", "between the renames", "after the rename"])
def test_interrupted_as_it_is_put_in_place(tree_dir, tmp_path, monkeypatch, step):
    """An overwriting build: the old dataset or the new one, or a build to go on with."""
    old = files_of(run(tree_dir, tmp_path))
    new = files_of(run(tree_dir, tmp_path / "reference", "--boxes=joints"))
    rename = Path.rename

    class KilledError(BaseException):
        pass

    def killed_rename(path: Path, target: Path) -> Path:
        if step == "before the rename" and Path(target).name == "replaced":
            raise KilledError
        if step == "between the renames" and path.name == "dataset":
            raise KilledError
        result = rename(path, target)
        if step == "after the rename" and path.name == "dataset":
            raise KilledError
        return result

    monkeypatch.setattr(Path, "rename", killed_rename)
    with pytest.raises(KilledError):
        run(tree_dir, tmp_path, "--boxes=joints", "--overwrite")
    monkeypatch.undo()
    final = tmp_path / "interhand26m" / "all" / BUILDER_VERSION
    assert not final.exists() or files_of(final) in (old, new)
    folder = run(tree_dir, tmp_path, "--boxes=joints", "--overwrite")
    assert files_of(folder) == new
    assert [path.name for path in final.parent.iterdir()] == [final.name]


def _workers_of(process: subprocess.Popen, data_dir: Path) -> list[int]:
    """Ids of a build's two worker processes, once both write."""
    pattern = "*.unfinished"
    while process.poll() is None and len(list(data_dir.rglob(pattern))) < 2:
        time.sleep(0.05)
    workers = {int(path.name.split(".")[-2]) for path in data_dir.rglob(pattern)}
    assert len(workers) == 2
    return sorted(workers)


def _wait_for_end(workers: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_workers_end_with_a_killed_build(tree_dir, tmp_path):
    """Orphans would write into the next run's folder."""
    process = _start_build(tree_dir, tmp_path / "data", workers=2, seconds_a_record=30)
    workers = _workers_of(process, tmp_path / "data")
    process.kill()
    process.communicate()
    _wait_for_end(workers)


def test_a_build_ends_with_a_killed_worker_and_goes_on(tree_dir, tmp_path, small_shards):
    data_dir = tmp_path / "data"
    process = _start_build(tree_dir, data_dir, workers=2, seconds_a_record=1)
    workers = _workers_of(process, data_dir)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "A process that writes records was killed" in errors
    _wait_for_end(workers)
    assert files_of(run(tree_dir, data_dir)) == files_of(run(tree_dir, tmp_path / "whole"))
