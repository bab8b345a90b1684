"""From which checkpoints a run may go on: another code may, another rate at each step may not."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from er_jax.configs.tiny import get_config
from er_jax.training.run_record import RunMismatchError, check_same_run, run_record
from er_jax.utils import provenance

CHECKPOINT = Path("run/checkpoints/7")
METRIC = "wrist_aligned/MPJPE/all on interhand26m/all, val"


def record(config=None, *, code="a", hands="h", validated_by=METRIC, scores=()):
    environment = {
        "code": {"sha256": code, "commit": f"commit {code}"},
        "hands": {"hand_model": "stand-in", "hand_model_sha256": hands},
        "data": {"interhand26m/all": {"version": "1"}},
    }
    made = run_record(config or get_config(), environment, validated_by)
    return {**made, "validation": list(scores)}


def records(**changes):
    """The record of a run of the tiny config, and of one in which fields differ, by dotted name."""
    other = get_config()
    for name, value in changes.items():
        parent = other
        *parts, last = name.split("__")
        for part in parts:
            parent = parent[part]
        parent[last] = value
    return record(), record(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_every_steps": 7},
        {"data__workers": 3},
        {"validation__images": 0},
        {"checkpoint__keep": 5},
    ],
)
def test_what_a_step_does_not_compute_may_change(changes):
    saved, now = records(**changes)
    check_same_run(saved, CHECKPOINT, now=now)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"batch_size": 8},
        {"depth_box_m": 0.3},
        {"loss__joint_cam": 1.0},
        {"data__augmentation__scale": 0.1},
        {"optimizer__gradient_clip": 2.0},
        {"model__heads": 4},
    ],
)
def test_what_a_step_computes_may_not(changes):
    saved, now = records(**changes)
    (name,) = changes
    with pytest.raises(RunMismatchError, match=rf"config\.{name.replace('__', '.')}: "):
        check_same_run(saved, CHECKPOINT, now=now)
    check_same_run(saved, CHECKPOINT, now=now, allow_changes=True)


@pytest.mark.parametrize(("schedule", "allowed"), [("step", True), ("cosine", False)])
def test_other_epochs_are_refused_where_the_rate_follows_from_them(schedule, allowed):
    config = get_config()
    config.optimizer.schedule = schedule
    longer = config.copy_and_resolve_references()
    longer.epochs = 2 * config.epochs
    saved, now = record(config), record(longer)
    if allowed:
        check_same_run(saved, CHECKPOINT, now=now)
        return
    with pytest.raises(RunMismatchError, match=rf"config\.epochs: {config.epochs} there"):
        check_same_run(saved, CHECKPOINT, now=now)
    check_same_run(saved, CHECKPOINT, now=now, allow_changes=True)


def test_another_code_is_only_told(caplog):
    with caplog.at_level(logging.WARNING):
        check_same_run(record(code="a"), CHECKPOINT, now=record(code="b"))
    assert "other code (commit commit a; now: commit b)" in caplog.text


def test_other_hands_are_refused():
    with pytest.raises(RunMismatchError, match="hand_model_sha256: 'h' there, 'i' now"):
        check_same_run(record(), CHECKPOINT, now=record(hands="i"))


def test_scores_of_another_metric_are_refused_where_there_are_any():
    other = record(validated_by="wrist_aligned/MRRPE/all on interhand26m/all, val")
    check_same_run(record(), CHECKPOINT, now=other)
    scored = record(scores=[{"step": 7, "score": 1.0}])
    with pytest.raises(RunMismatchError, match="validated by: wrist_aligned/MPJPE/all on"):
        check_same_run(scored, CHECKPOINT, now=other)


def test_an_environment_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    """There `git describe` would tell that repository's commit."""

    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    installed = tmp_path / "venv/er_jax/utils/provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    (tmp_path / "theirs.py").write_text("")
    git("init")
    git("add", "theirs.py")
    git("commit", "-m", "theirs")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.code_version()["commit"] is None
    git("add", "venv")
    assert provenance.code_version()["commit"] is not None


def test_hands_are_the_same_whatever_blas_computes():
    """Their identity is of files: a run goes on, and results compare, on other machines."""
    program = (
        "import numpy as np; from er_jax.mano import hand_model_identity, load_hands;"
        "print(hand_model_identity(load_hands())['hand_model_sha256'])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OPENBLAS_CORETYPE": kernel},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for kernel in ("Prescott", "Haswell")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64
