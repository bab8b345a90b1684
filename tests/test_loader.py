"""Batches: their content, their order, and going on after an interruption."""

import hashlib
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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
from data_pipeline.samples import prepare_sample
from er_jax.utils.errors import DataError

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
        "image_size_px": ((2,), "int32"),
        "camera_rotation": ((3, 3), "float32"),
        "camera_translation_mm": ((3,), "float32"),
        "focal_px": ((2,), "float32"),
        "princpt_px": ((2,), "float32"),
        "joint_world_mm": ((2, 21, 3), "float32"),
        "joint_valid_world": ((2, 21), "bool"),
        "joint_valid_view": ((2, 21), "bool"),
        "mano_valid": ((2,), "bool"),
        "mano_pose": ((2, 48), "float32"),
        "mano_betas": ((2, 10), "float32"),
        "mano_trans_m": ((2, 3), "float32"),
    }
    assert batch["sample_mask"].all()


def test_every_record_once_an_epoch_in_another_order_each_time(built):
    loader = train(built)
    assert loader.samples_per_epoch == TRAIN
    seen = ids(take(loader, 15)).reshape(3, TRAIN)
    assert (np.sort(seen) == np.arange(TRAIN)).all()
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 3
    assert (ids(take(train(built, seed=4), 5)) != seen[0]).any()


def test_batches_go_on_over_the_end_of_an_epoch(built):
    seen = ids(take(train(built, batch_size=8), 5))
    assert sorted(seen[:TRAIN]) == sorted(seen[TRAIN:]) == list(range(TRAIN))


@pytest.mark.parametrize(
    "options",
    [
        LoaderOptions(threads=1, ahead=1),
        LoaderOptions(threads=4, ahead=8),
        LoaderOptions(worker_count=2),
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


def test_a_killed_worker_is_an_error(built):
    loader = train(built, options=LoaderOptions(worker_count=1, ahead=1))
    next(loader)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(DataError, match=r"was killed.*--config\.data\.workers"):
        take(loader, 4)


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
