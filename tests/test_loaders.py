"""The loaders that a config asks for."""

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from data_pipeline.datasets import RecordSource, find_dataset
from er_jax.supervision.loaders import train_loader
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
