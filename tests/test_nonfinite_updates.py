"""A run over a sample whose annotation is not a number."""

import json

import numpy as np
import pytest

from data_pipeline import samples
from data_pipeline.augmentation import Augmentation
from er_jax.supervision.loaders import steps_in_epoch, train_loader
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.loop import train
from er_jax.training.metric_log import read_metric_log


@pytest.fixture
def poisoned_id(tiny_config, monkeypatch):
    """The id of a training sample whose joints are not finite, whenever it is read."""
    poisoned = int(next(train_loader(tiny_config))["annotation_id"][2])
    prepare_sample = samples.prepare_sample

    def poison(record, augmentation, input_size):
        sample = prepare_sample(record, augmentation, input_size)
        if record["annotation_id"] == poisoned and augmentation != Augmentation():
            sample["joint_world_mm"][0, 5] = np.nan
        return sample

    monkeypatch.setattr(samples, "prepare_sample", poison)
    return poisoned


def test_a_poisoned_sample(tiny_config, poisoned_id, tmp_path):
    config, file = tiny_config, tmp_path / "nonfinite_updates_0.jsonl"
    epoch_steps = steps_in_epoch(train_loader(config))
    config.nonfinite_updates_limit = 0
    with pytest.raises(FloatingPointError, match=f"limit=0.*{poisoned_id}.*{file}.*Mend or leave"):
        train(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.newest_step() < epoch_steps  # at once, and saved
    config.nonfinite_updates_limit = 2
    outcome = train(config, tmp_path)
    assert outcome.finished
    assert outcome.skipped == 2

    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(entry["step"] - 1) // epoch_steps for entry in entries] == [0, 1]  # once an epoch
    for entry in entries:
        assert poisoned_id in entry["annotation_ids"]
        assert entry["not_finite"] == {"joint_world_mm": [poisoned_id]}
    skipped = [
        entry["step"]
        for entry in read_metric_log(tmp_path / "metrics.jsonl")
        if entry.get("train/skipped")
    ]
    assert skipped == [entry["step"] for entry in entries]
