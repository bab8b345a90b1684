"""The loaders that a config asks for."""

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from data_pipeline.datasets import RecordSource, find_dataset
from er_jax.supervision.loaders import Split, train_loader
from er_jax.utils.errors import DataError


@pytest.fixture
def config_of(data_dir):
    """`configs/tiny.py` as options of the command line change it."""

    def config_of(*options):
        arguments = ["main", f"--config.data_dir={data_dir}", *options]
        values = flags.FlagValues()
        config = config_flags.DEFINE_config_file(
            "config",
            "configs/tiny.py",
            lock_config=True,
            flag_values=values,
            sys_argv=arguments,
        )
        values(arguments)
        return config.value

    return config_of


def splits_seen(data_dir, batches):
    """The split of each sample; the images of two splits differ."""
    known = {}
    for split in ("train", "test"):
        source = RecordSource(find_dataset(data_dir, "interhand26m"), split)
        known |= {source[i]["joint_world_mm"].tobytes(): split for i in range(len(source))}
    joints = np.concatenate([batch["joint_world_mm"] for batch in batches])
    return [known[value.tobytes()] for value in joints]


def test_one_dataset(data_dir, config_of):
    loader = train_loader(config_of())
    assert set(splits_seen(data_dir, [next(loader) for _ in range(4)])) == {"train"}


def augmentations(loader, batches=5):
    """Scale, rotation and flip of samples of a training loader, a row each."""
    found = np.concatenate([next(loader)["augmentation"] for _ in range(batches)])
    loader.close()
    return found.T


def test_the_configs_augmentation(config_of):
    scale, degrees, flip = augmentations(train_loader(config_of()))
    assert scale.std() > 0.05
    assert abs(degrees).max() <= 30  # twice the demo's 15
    assert {*flip.tolist()} == {0, 1}
    part = "--config.data.augmentation."
    options = ("scale=0.01", "rotation_degrees=5.0", "rotation_probability=1.0")
    options += ("flip_probability=1.0",)
    scale, degrees, flip = augmentations(train_loader(config_of(*(part + o for o in options))))
    assert 0 < abs(scale - 1).max() <= 0.0101
    assert (degrees != 0).all()
    assert abs(degrees).max() <= 10
    assert flip.all()


def test_training_and_evaluation_crop_the_same(config_of):
    """Without augmentation both give one image of a record; with colours another of its crop."""
    names = ("scale", "rotation_degrees", "flip_probability", "colour")
    still = [f"--config.data.augmentation.{name}=0.0" for name in names]
    config = config_of(*still, "--config.data.train_split=test")
    trained = train_loader(config)
    evaluated = {
        int(batch["annotation_id"][i]): {name: value[i] for name, value in batch.items()}
        for batch in Split.of(config, "test")
        for i in range(config.batch_size)
    }
    batch = next(trained)
    trained.close()
    for i, number in enumerate(batch["annotation_id"].tolist()):
        for name, value in batch.items():
            np.testing.assert_array_equal(value[i], evaluated[number][name], err_msg=name)
    coloured = train_loader(config_of(*still[:-1], "--config.data.train_split=test"))
    other = next(coloured)
    coloured.close()
    np.testing.assert_array_equal(other["img2bb"], batch["img2bb"])
    assert np.abs(other["image"].astype(int) - batch["image"]).mean() > 2


def test_the_configs_sizes_seed_and_splits(data_dir, config_of):
    def first(*options):
        loader = train_loader(config_of(*options))
        batch = next(loader)
        loader.close()
        return batch

    plain, other = first(), first("--config.seed=1")
    assert plain["annotation_id"].tolist() != other["annotation_id"].tolist()
    again = first("--config.seed=1", "--config.batch_size=6", "--config.model.input_size=96")
    assert again["image"].shape == (6, 96, 96, 3)
    assert again["annotation_id"][:4].tolist() == other["annotation_id"].tolist()
    np.testing.assert_array_equal(again["augmentation"][:4], other["augmentation"])
    for split in ("train", "test"):
        loader = train_loader(config_of(f"--config.data.train_split={split}"))
        assert set(splits_seen(data_dir, [next(loader) for _ in range(2)])) == {split}
        loader.close()
        config = config_of("--config.batch_size=3", "--config.model.input_size=96")
        batches = list(Split.of(config, split))
        assert batches[0]["image"].shape == (3, 96, 96, 3)
        assert set(splits_seen(data_dir, batches)) == {split}
        assert len(batches) == len(Split.of(config, split))
        assert (np.concatenate([batch["augmentation"] for batch in batches]) == [1, 0, 0]).all()


def test_a_mixture_from_the_command_line(data_dir, config_of):
    mixture = "(('interhand26m', 3), ('interhand26m/all:test', 1))"
    loader = train_loader(config_of(f"--config.data.mixture={mixture}"))
    seen = splits_seen(data_dir, [next(loader) for _ in range(5)])
    assert (seen.count("train"), seen.count("test")) == (15, 5)
    parts = ("train", "test")
    sizes = [len(RecordSource(find_dataset(data_dir, "interhand26m"), part)) for part in parts]
    assert loader.samples_per_epoch == sum(sizes)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ("('interhand26m', 1)", "must be pairs of a dataset and its weight"),
        ("(('interhand26m',),)", "must be pairs"),
        ("((1, 'interhand26m'),)", "must be pairs"),
        ("(('interhand26m', 1), ('interhand26m', 2))", "each dataset once"),
        ("(('interhand26m', 1), ('interhand26m:test', 0))", "finite numbers above zero"),
    ],
)
def test_mixtures_that_mean_nothing(config_of, mixture, message):
    config = config_of(f"--config.data.mixture={mixture}")
    with pytest.raises(ValueError, match=message):
        train_loader(config)


def test_a_mixture_with_a_dataset_that_is_not_there(config_of):
    mixture = "(('interhand26m', 1), ('hic:test', 1))"
    config = config_of(f"--config.data.mixture={mixture}")
    with pytest.raises(DataError, match="has no dataset hic/all"):
        train_loader(config)


def test_without_a_data_dir(tiny_config):
    with tiny_config.unlocked():
        tiny_config.data_dir = None
    with pytest.raises(ValueError, match=r"config\.data_dir is not set"):
        train_loader(tiny_config)
