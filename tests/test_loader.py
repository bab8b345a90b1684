"""Batches: their content, their order, and going on after an interruption."""

import collections
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from tiny_tree import tiny_tree

from data_pipeline.augmentation import NO_AUGMENTATION, AugmentationRange, draw_augmentation
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.loader import (
    BatchLoader,
    LoaderOptions,
    make_eval_loader,
    make_train_loader,
)
from data_pipeline.samples import ANNOTATION_FIELDS, prepare_sample
from er_jax.mano import load_hands
from er_jax.supervision.loaders import HOST_FIELDS, shard_for_training
from er_jax.supervision.targets import make_targets
from er_jax.utils.errors import DataError, WorkerError

TRAIN, TEST = 20, 10
SIZE = 32
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`interhand26m/all` with 20 train and 10 test records, `…/interacting_mano` the same."""
    folder = tmp_path_factory.mktemp("datasets")
    tiny_tree("train", frames=5, cameras=2).write(folder / "raw")
    tiny_tree("test", frames=5, cameras=1, seed=1).write(folder / "raw")
    for subset in ("all", "interacting_mano"):
        arguments = [f"--raw_dir={folder / 'raw'}", f"--data_dir={folder}", f"--subset={subset}"]
        assert build.main(["interhand26m", *arguments, "--workers=1"]) == 0
    return folder


def train(built: Path, **options) -> BatchLoader:
    options = {"batch_size": 4, "seed": 3, "input_size": SIZE} | options
    return make_train_loader(built, options.pop("dataset", "interhand26m"), **options)


def ids(batches: list[dict]) -> np.ndarray:
    return np.concatenate([batch["annotation_id"] for batch in batches])


def take(loader: BatchLoader, count: int) -> list[dict]:
    batches = [next(loader) for _ in range(count)]
    loader.close()
    return batches


def assert_equal(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_batch_holds_numbers_of_three_types(built):
    (batch,) = take(train(built), 1)
    shapes = {name: (value.shape[1:], value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((SIZE, SIZE, 3), "uint8"),
        "img2bb": ((2, 3), "float32"),
        "augmentation": ((3,), "float32"),
        "sample_mask": ((), "bool"),
        "annotation_id": ((), "int32"),
        "hand_type": ((), "int32"),
        "hand_type_valid": ((), "bool"),
        "image_size_px": ((2,), "int32"),
        "camera_valid": ((), "bool"),
        "camera_rotation": ((3, 3), "float32"),
        "camera_translation_mm": ((3,), "float32"),
        "focal_px": ((2,), "float32"),
        "princpt_px": ((2,), "float32"),
        "joint_world_mm": ((2, 21, 3), "float32"),
        "joint_valid_world": ((2, 21), "bool"),
        "joint_valid_view": ((2, 21), "bool"),
        "joint_px": ((2, 21, 2), "float32"),
        "joint_px_valid": ((2, 21), "bool"),
        "label_confidence": ((2,), "float32"),
        "mano_valid": ((2,), "bool"),
        "mano_pose": ((2, 48), "float32"),
        "mano_betas": ((2, 10), "float32"),
        "mano_trans_m": ((2, 3), "float32"),
    }
    assert batch["sample_mask"].all()


class Reads(dict):
    """A batch that notes which of its fields are read."""

    def __init__(self, batch: dict):
        super().__init__(batch)
        self.names: set[str] = set()

    def __getitem__(self, name: str):
        self.names.add(name)
        return super().__getitem__(name)


def test_every_field_is_read_and_the_devices_get_what_they_read(built):
    (batch,) = take(train(built), 1)
    batch["mano_vertices_m"] = np.zeros((4, 2, 778, 3), np.float32)  # as of HIC
    batch["mano_vertices_valid"] = np.zeros((4, 2), bool)
    reads = Reads(batch)
    make_targets(load_hands(None), reads)
    sent = shard_for_training(batch)
    assert sent.keys() == reads.names | {"image"}
    assert batch.keys() - sent.keys() == {*HOST_FIELDS}
    assert {*ANNOTATION_FIELDS} <= batch.keys()


def test_every_record_once_an_epoch_in_another_order_each_time(built):
    loader = train(built)
    assert loader.samples_per_epoch == TRAIN
    seen = ids(take(loader, 15)).reshape(3, TRAIN)
    assert (np.sort(seen) == np.arange(TRAIN)).all()
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 3
    assert (ids(take(train(built, seed=4), 5)) != seen[0]).any()


@pytest.mark.parametrize(
    "weights", [{"interhand26m": 1}, {"interhand26m": 3, "interhand26m:test": 2}]
)
def test_the_order_is_that_of_grain(built, weights):
    """Runs that began before the order was asked for directly go on with the same samples."""
    sizes = [TEST if name.endswith("test") else TRAIN for name in weights]
    seed = 2**32 - 2  # of an epoch and of a dataset wrap around
    parts = [
        grain.MapDataset.range(size).shuffle(seed=(seed + number) % 2**32).repeat()
        for number, size in enumerate(sizes)
    ]
    expected = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, list(weights.values()))
    sources = [
        RecordSource(find_dataset(built, "interhand26m"), split)
        for split in ("train", "test")[: len(weights)]
    ]
    known = [
        [(source[i]["annotation_id"], source[i]["joint_world_mm"].tobytes()) for i in range(size)]
        for source, size in zip(sources, sizes, strict=True)
    ]
    batches = take(train(built, dataset=weights, seed=seed, batch_size=10), 10)
    joints = np.concatenate([batch["joint_world_mm"] for batch in batches])
    for position, sample in enumerate(
        zip(ids(batches).tolist(), map(np.ndarray.tobytes, joints), strict=True)
    ):
        assert any(records[expected[position] % len(records)] == sample for records in known)


def test_batches_go_on_over_the_end_of_an_epoch(built):
    seen = ids(take(train(built, batch_size=8), 5))
    assert sorted(seen[:TRAIN]) == sorted(seen[TRAIN:]) == list(range(TRAIN))


@pytest.mark.parametrize(
    "options",
    [
        LoaderOptions(threads=1, ahead=1),
        LoaderOptions(threads=4, ahead=8),
        LoaderOptions(worker_count=2),
        LoaderOptions(worker_count=3, ahead=1),
        LoaderOptions(worker_count=6, ahead=2),
    ],
)
def test_batches_do_not_depend_on_how_they_are_read(built, options):
    assert_equal(take(train(built, options=options), 7), take(train(built), 7))


def test_any_sample_can_be_made_again_alone(built):
    """From the seed, the epoch and the record's index."""
    source = RecordSource(find_dataset(built, "interhand26m"), "train")
    index_of = {source[i]["annotation_id"]: i for i in range(TRAIN)}
    batches = take(train(built, batch_size=5), 8)
    for position in (0, 7, 19, 20, 33, 39):
        batch, row = batches[position // 5], position % 5
        index = index_of[int(batch["annotation_id"][row])]
        epoch = position // TRAIN
        drawn = draw_augmentation(AugmentationRange(), seed=3, epoch=epoch, index=index)
        sample = prepare_sample(source[index], drawn, SIZE)
        for name, value in sample.items():
            np.testing.assert_array_equal(batch[name][row], value, err_msg=name)


def test_hosts_share_each_batch(built):
    whole = take(train(built, batch_size=6), 8)
    parts = [take(train(built, batch_size=6, shard_index=i, shard_count=3), 8) for i in range(3)]
    for step, batch in enumerate(whole):
        together = np.stack([part[step]["image"] for part in parts], axis=1)
        np.testing.assert_array_equal(together.reshape(batch["image"].shape), batch["image"])
    with pytest.raises(ValueError, match="batch_size 4 does not divide among 3 hosts"):
        train(built, shard_count=3)


def test_two_hosts_share_an_epoch(built):
    """No sample on both, none on neither."""
    parts = [ids(take(train(built, shard_index=i, shard_count=2), 5)) for i in range(2)]
    assert [len(part) for part in parts] == [TRAIN // 2, TRAIN // 2]
    assert sorted(np.concatenate(parts)) == list(range(TRAIN))


# Going on


@pytest.mark.parametrize("done", [0, 1, 5, 9])
def test_a_restored_loader_goes_on_with_the_next_sample(built, done):
    reference = take(train(built), 14)
    loader = train(built)
    for _ in range(done):
        next(loader)
    state = json.loads(json.dumps(loader.get_state()))
    next(loader)  # after the state was taken
    loader.close()
    restored = train(built)
    next(restored)
    restored.set_state(state)
    assert_equal(take(restored, 4), reference[done : done + 4])


def test_batch_size_hosts_and_workers_may_change_meanwhile(built):
    reference = ids(take(train(built), 14))
    loader = train(built)
    next(loader)
    restored = train(
        built, batch_size=10, shard_index=1, shard_count=2, options=LoaderOptions(worker_count=1)
    )
    restored.set_state(loader.get_state())
    assert ids(take(restored, 2)).tolist() == reference[4:24][1::2].tolist()


@pytest.mark.parametrize("change", [{"seed": 4}, {"split": "test"}, {"dataset": "mixture"}])
def test_a_state_of_other_data_is_refused(built, change):
    if change.get("dataset") == "mixture":
        change = {"dataset": {"interhand26m": 0.5, "interhand26m/interacting_mano": 0.5}}
    state = train(built).get_state()
    with pytest.raises(DataError, match="would repeat or skip samples"):
        train(built, **change).set_state(state)


_EPOCH = """
import hashlib, json, sys, time
from pathlib import Path
from data_pipeline.loader import LoaderOptions, make_train_loader
from er_jax.utils.atomic_write import write_json

def main(data_dir, place, batches, workers):
    options = LoaderOptions(worker_count=workers)
    loader = make_train_loader(
        data_dir, "interhand26m", batch_size=3, seed=3, input_size=8, options=options
    )
    kept = json.loads(place.read_text()) if place.exists() else {"seen": [], "state": None}
    if kept["state"]:
        loader.set_state(kept["state"])
    while len(kept["seen"]) < 3 * batches:
        batch = next(loader)
        pixels = [hashlib.sha256(image.tobytes()).hexdigest() for image in batch["image"]]
        kept["seen"] += zip(batch["annotation_id"].tolist(), pixels)
        kept["state"] = loader.get_state()
        write_json(place, kept)
        time.sleep(0.005)
    loader.close()

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
"""


def _kill_and_finish(
    built: Path, place: Path, delays: list[float], batches: int, workers: int
) -> None:
    """Ids and pixels are kept with the loader's state, which each next process goes on from."""
    expected = [
        [int(sample_id), hashlib.sha256(image.tobytes()).hexdigest()]
        for batch in take(train(built, batch_size=3, input_size=8), batches)
        for sample_id, image in zip(batch["annotation_id"], batch["image"], strict=True)
    ]

    def start() -> subprocess.Popen:
        arguments = [built, place, str(batches), str(workers)]
        return subprocess.Popen([sys.executable, "-c", _EPOCH, *arguments], cwd=REPOSITORY)

    for delay in delays:
        before = place.stat().st_mtime_ns if place.exists() else 0
        process = start()
        while process.poll() is None and (not place.exists() or place.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = json.loads(place.read_text())["seen"]
        assert kept == expected[: len(kept)]
    assert start().wait() == 0
    assert json.loads(place.read_text())["seen"] == expected


def test_a_killed_reader_repeats_and_skips_nothing(built, tmp_path):
    _kill_and_finish(built, tmp_path / "place.json", [0.02], batches=30, workers=0)


@pytest.mark.slow
def test_killed_at_ten_random_moments(built, tmp_path):
    delays = [random.uniform(0, 0.1) for _ in range(10)]
    print(f"killed after {delays}")  # shown where it fails
    _kill_and_finish(built, tmp_path / "place.json", delays, batches=200, workers=2)


@pytest.mark.parametrize("worker_count", [1, 3])
def test_a_killed_worker_is_an_error(built, worker_count):
    loader = train(built, options=LoaderOptions(worker_count=worker_count, ahead=1))
    next(loader)
    workers = multiprocessing.active_children()
    assert len(workers) == worker_count
    workers[-1].kill()
    with pytest.raises(WorkerError, match=r"was killed.*--config\.data\.workers"):
        take(loader, 4)
    assert not multiprocessing.active_children()


def test_a_closed_loader_leaves_no_process(built):
    loader = train(built, options=LoaderOptions(worker_count=2))
    batch, kept = next(loader), next(loader)["image"].copy()
    loader.close()
    assert not multiprocessing.active_children()
    again = train(built)
    assert_equal([batch], [next(again)])  # a batch outlives its loader
    np.testing.assert_array_equal(next(again)["image"], kept)


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def is_alive(pid: int) -> bool:
    """A zombie waits for nobody but its parent, and holds nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shared_memory() -> set[Path]:
    """What has a name, but for semaphores, which tests beside this one make and remove."""
    return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("victim", ["reader", "worker"])
def test_nothing_stays_behind_of_a_killed_process(built, tmp_path, victim):
    place = tmp_path / "place.json"
    names_before = shared_memory()
    arguments = [built, place, "1000000", "2"]
    reader = subprocess.Popen(
        [sys.executable, "-c", _EPOCH, *arguments], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    try:
        while reader.poll() is None and not place.exists():
            time.sleep(0.01)
        started = descendants(reader.pid)
        assert len(started) >= 2
        assert shared_memory() == names_before
        # The last of the tree: Python starts its server and tracker before the workers.
        os.kill(reader.pid if victim == "reader" else max(started), signal.SIGKILL)
        assert reader.wait() == (-signal.SIGKILL if victim == "reader" else 1)
        while any(is_alive(pid) for pid in started):
            time.sleep(0.01)
        assert shared_memory() == names_before
    finally:
        reader.kill()  # it would read for ever


def test_the_image_of_a_batch_stays_while_anything_refers_to_it(built):
    """Arrays of JAX on a CPU may be the host's memory itself, and views of one sample are kept."""
    options = LoaderOptions(worker_count=2, ahead=1)
    expected = take(train(built), 24)
    loader = train(built, options=options)
    held: list[collections.deque] = [collections.deque(maxlen=2), collections.deque(maxlen=1)]
    view = next(loader)["image"][2:3, ::2]
    for number in range(1, 24):
        batch = next(loader)
        held[0].append((number, jax.device_put(batch["image"])))
        held[1].append((number, batch["image"][1]))
        for index, image in held[0]:
            np.testing.assert_array_equal(image, expected[index]["image"])
        for index, image in held[1]:
            np.testing.assert_array_equal(image, expected[index]["image"][1])
    np.testing.assert_array_equal(view, expected[0]["image"][2:3, ::2])
    loader.close()


def test_images_are_handed_out_in_place_while_memory_lasts(built):
    loader = train(built, options=LoaderOptions(worker_count=2, ahead=2))
    addresses, annotations = set(), []
    for _ in range(20):
        batch = next(loader)
        image = batch.pop("image")
        annotations.append(batch)  # which callers keep for long
        assert not image.flags.owndata
        assert not image.flags.writeable
        addresses.add(image.ctypes.data)
        del image
    assert_equal(annotations, [{n: b[n] for n in annotations[0]} for b in take(train(built), 20)])
    assert len(addresses) <= 5  # ahead, and three that may be in use
    kept = [next(loader)["image"] for _ in range(8)]
    assert [image.flags.owndata for image in kept] == [False] * 3 + [True] * 5
    loader.close()


_UNGUARDED = """
import sys
print("executed")
from data_pipeline.loader import LoaderOptions, make_train_loader

loader = make_train_loader(
    sys.argv[1], "interhand26m", batch_size=4, seed=0, options=LoaderOptions(worker_count=3)
)
next(loader)
loader.close()
"""


def test_workers_do_not_execute_the_main_script(built, tmp_path):
    """It may import JAX, or lack its guard."""
    script = tmp_path / "script.py"
    script.write_text(_UNGUARDED)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script), str(built)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["executed"]


def test_workers_import_neither_jax_nor_tfds():
    """Else they start late."""
    code = "import sys, data_pipeline.workers; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ["jax", "grain", "tensorflow_datasets", "jaxtyping"]
    command = [sys.executable, "-c", code, *modules]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("worker_count", [0, 2])
def test_a_damaged_record_is_named_and_the_others_are_read(built, tmp_path, worker_count):
    copy = tmp_path / "datasets"
    shutil.copytree(built / "interhand26m/all", copy / "interhand26m/all")
    reference = [
        next(batches) for batches in [make_eval_loader(copy, "interhand26m", "test", batch_size=2)]
    ]
    (shard,) = copy.rglob("*-test.array_record-*")
    source = RecordSource(find_dataset(copy, "interhand26m"), "test")
    damaged = bytearray(shard.read_bytes())
    damaged[damaged.index(source[3]["image"]) + 100] ^= 0xFF
    shard.write_bytes(damaged)
    options = LoaderOptions(worker_count=worker_count)
    loader = make_eval_loader(copy, "interhand26m", "test", batch_size=2, options=options)
    assert_equal([next(loader)], reference)
    with pytest.raises(
        DataError, match=f"{re.escape(str(shard))} cannot be read at record 3 of test"
    ):
        next(loader)
    if worker_count:
        np.testing.assert_array_equal(
            next(loader)["annotation_id"], [source[4]["annotation_id"], source[5]["annotation_id"]]
        )
    loader.close()


# Mixtures


def test_a_mixture_keeps_its_shares_and_each_part_its_epochs(built):
    weights = {"interhand26m": 0.75, "interhand26m/interacting_mano:test": 0.25}
    loader = train(built, dataset=weights, batch_size=8)
    assert loader.samples_per_epoch == TRAIN + TEST
    batches = take(loader, 10)
    positions = ids(batches)
    # Test records differ from train records in their joints.
    source = RecordSource(find_dataset(built, "interhand26m/interacting_mano"), "test")
    known = {source[i]["joint_world_mm"].tobytes() for i in range(TEST)}
    joints = np.concatenate([batch["joint_world_mm"] for batch in batches])
    is_test = np.array([value.tobytes() in known for value in joints])
    assert is_test.sum() == 20
    assert all(batch_share == 2 for batch_share in is_test.reshape(10, 8).sum(axis=1))
    for part, size in ((positions[~is_test], TRAIN), (positions[is_test], TEST)):
        for start in range(0, len(part), size):
            assert sorted(part[start : start + size]) == list(range(size))
    state = train(built, dataset=weights, batch_size=8)
    next(state)
    restored = train(built, dataset=weights, batch_size=8)
    restored.set_state(json.loads(json.dumps(state.get_state())))
    assert_equal(take(restored, 2), batches[1:3])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "1"])
def test_weights_that_share_nothing(built, weight):
    weights = {"interhand26m": 1, "interhand26m:test": weight}
    with pytest.raises(ValueError, match=r"finite numbers above zero: \{'interhand26m:test'"):
        train(built, dataset=weights)


def test_a_mixture_of_nothing(built):
    with pytest.raises(ValueError, match="there is none"):
        train(built, dataset={})


# Evaluation


def test_evaluation_is_one_pass_in_order_filled_up_and_masked(built):
    source = RecordSource(find_dataset(built, "interhand26m"), "test")
    expected = [source[i]["annotation_id"] for i in range(TEST)]
    loader = make_eval_loader(built, "interhand26m", "test", batch_size=4, input_size=SIZE)
    batches = list(loader)
    assert [batch["sample_mask"].tolist() for batch in batches] == [
        [True] * 4,
        [True] * 4,
        [True, True, False, False],
    ]
    assert ids(batches)[:TEST].tolist() == expected
    for batch in batches:
        np.testing.assert_array_equal(batch["augmentation"], [[1, 0, 0]] * 4)
    drawn = draw_augmentation(NO_AUGMENTATION, seed=0, epoch=0, index=0)
    np.testing.assert_array_equal(
        batches[0]["image"][0], prepare_sample(source[0], drawn, SIZE)["image"]
    )


def test_all_hosts_evaluate_the_same_number_of_batches(built):
    parts = [
        list(
            make_eval_loader(
                built,
                "interhand26m",
                "test",
                batch_size=4,
                input_size=SIZE,
                shard_index=i,
                shard_count=2,
            )
        )
        for i in range(2)
    ]
    assert [len(part) for part in parts] == [3, 3]
    real = [ids(part)[np.concatenate([b["sample_mask"] for b in part])] for part in parts]
    assert sorted(np.concatenate(real)) == list(range(TEST))


def test_unknown_split_and_dataset(built):
    with pytest.raises(DataError, match="has no split 'val', only train, test"):
        make_eval_loader(built, "interhand26m", "val", batch_size=4)
    with pytest.raises(DataError, match="has no dataset freihand/all"):
        train(built, dataset="freihand")
