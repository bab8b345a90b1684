"""Checkpoints: which are kept, what is done about damaged ones and a full disk."""

import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from er_jax.training.checkpoints import CheckpointError, Checkpoints, Saved
from er_jax.training.state import TrainState


def state(step: int) -> TrainState:
    weights = {"layer": {"kernel": jnp.arange(600.0).reshape(20, 30) * step, "bias": jnp.ones(3)}}
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=weights,
        batch_stats={"norm": {"mean": jnp.full(3, step)}},
        opt_state=({"count": jnp.asarray(step, jnp.int32)}, weights),
    )


LIKE = jax.tree.map(jnp.zeros_like, state(0))


def write(folder: Path, *steps: int) -> Path:
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state(step), {"next_sample": 4 * step}, {"saved_at": step})
    return folder


def restore(folder: Path) -> Saved | None:
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore_newest(LIKE, lambda run, folder: None)


def assert_holds(saved: Saved | None, step: int) -> None:
    assert saved is not None
    assert saved.run == {"saved_at": step}
    assert saved.data == {"next_sample": 4 * step}
    jax.tree.map(np.testing.assert_array_equal, saved.state, state(step))


def test_the_newest_is_restored_and_none_where_there_is_none(tmp_path):
    assert restore(tmp_path / "none") is None
    assert_holds(restore(write(tmp_path / "some", 3, 5)), 5)


def test_the_newest_and_the_best_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in enumerate([3.0, 1.0, 2.0, None, 4.0, None]):
            checkpoints.save(state(step), {}, {}, score)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 4, 5]
        assert checkpoints.best_step() == 1


def test_a_score_that_comes_later_is_added(tmp_path):
    with Checkpoints(write(tmp_path, 1, 2)) as checkpoints:
        assert checkpoints.best_step() == 2
        checkpoints.save(state(2), {}, {}, 1.0)
        checkpoints.save(state(3), {}, {}, 2.0)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 2
        assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_a_score_is_added_loses_nothing(tmp_path, monkeypatch, moment):
    """Before its successor is whole, or after; nothing but the old or the new one is left."""
    with Checkpoints(write(tmp_path, 2), keep=1) as checkpoints:
        if moment == "before":
            monkeypatch.setattr(checkpoints._manager, "save", Mock(side_effect=KeyboardInterrupt))
        else:
            monkeypatch.setattr(shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(state(2), {"next_sample": 8}, {"saved_at": 2}, 1.0)
        monkeypatch.undo()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"2.unscored"} if moment == "before" else {"2", "2.unscored"})
    assert_holds(restore(tmp_path), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def delete(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [delete, cut_short])
def test_whatever_file_is_damaged_a_whole_checkpoint_is_used(tmp_path, caplog, damage):
    whole = write(tmp_path / "whole", 3, 5)
    fell_back = set()
    for number, name in enumerate(files_of(whole / "5")):
        copy = shutil.copytree(whole, tmp_path / str(number))
        damage(copy / "5" / name)
        caplog.clear()
        saved = restore(copy)
        assert saved is not None
        step = int(saved.state.step)
        assert_holds(saved, step)
        if step == 3:
            assert re.search(
                r"checkpoint .*/5 cannot be read: .*\n.*going on from step 3", caplog.text
            )
            assert (copy / "5.damaged" / "run").is_dir()
            fell_back.add(name.parts[0])
            assert_holds(restore(write(copy, 5)), 5)
        else:
            assert "going on" not in caplog.text
    assert {"model", "optimizer", "data", "run"} <= fell_back


def test_where_all_are_damaged_nothing_is_touched(tmp_path):
    write(tmp_path, 3, 5)
    for step in "35":
        shutil.rmtree(tmp_path / step / "model")
    with pytest.raises(CheckpointError, match=r"(?s)/5 cannot be read: .*/3 cannot be read: "):
        restore(tmp_path)
    assert (tmp_path / "3/optimizer").is_dir()
    assert (tmp_path / "5/optimizer").is_dir()
