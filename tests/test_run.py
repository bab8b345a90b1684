"""A run from start to pictures on the tiny config: training, stopping, going on, evaluation."""

import json
import os
import signal
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import trimesh

from er_jax.jobs import load_trained, run_evaluation, run_prediction
from er_jax.mano import load_hands
from er_jax.prediction import output_names
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.loop import train
from er_jax.training.metric_log import MetricLog, read_metric_log


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """An uninterrupted run of two epochs: its config and folder."""
    from configs.tiny import get_config

    config = get_config()
    config.data_dir = str(data_dir)
    workdir = tmp_path_factory.mktemp("run")
    outcome = train(config, workdir)
    assert outcome.finished
    return config, workdir


def training_lines(workdir: Path) -> list[dict]:
    return [entry for entry in read_metric_log(workdir / "metrics.jsonl") if "train/loss" in entry]


def test_every_step_and_every_validation_is_logged(run):
    _, workdir = run
    entries = training_lines(workdir)
    steps = entries[-1]["step"]
    assert [entry["step"] for entry in entries] == list(range(1, steps + 1))
    assert all(np.isfinite(list(entry.values())).all() for entry in entries)
    validations = [e for e in read_metric_log(workdir / "metrics.jsonl") if "train/loss" not in e]
    assert [entry["step"] for entry in validations] == [steps // 2, steps]
    assert list((workdir / "tensorboard").glob("events*"))


def test_a_stopped_run_goes_on_to_the_very_same_end(run, tmp_path, monkeypatch):
    config, workdir = run
    config = config.copy_and_resolve_references()
    config.log_every_steps = 1000
    add, save = MetricLog.add, Checkpoints.save

    def add_and_signal(self, step, metrics):
        add(self, step, metrics)
        if step in (2, 7):
            os.kill(os.getpid(), signal.SIGTERM if step == 2 else signal.SIGINT)

    def save_after_the_log(self, state, *rest):
        assert training_lines(tmp_path)[-1]["step"] == state.step  # a kill now loses no line
        save(self, state, *rest)

    monkeypatch.setattr(MetricLog, "add", add_and_signal)
    monkeypatch.setattr(Checkpoints, "save", save_after_the_log)
    outcomes = [train(config, tmp_path) for _ in range(3)]
    assert [(outcome.finished, outcome.step) for outcome in outcomes][:2] == [
        (False, 2),
        (False, 7),
    ]
    assert outcomes[2].finished
    assert training_lines(tmp_path) == training_lines(workdir)
    for ours, theirs in zip(
        jax.tree.leaves(load_trained(config, tmp_path, outcomes[2].step)),
        jax.tree.leaves(load_trained(config, workdir, outcomes[2].step)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_finished_run_is_left_as_it_is(run):
    config, workdir = run
    before = (workdir / "metrics.jsonl").read_text()
    assert train(config, workdir).finished
    assert (workdir / "metrics.jsonl").read_text() == before


def test_a_run_does_not_go_on_with_another_config(run):
    config, workdir = run
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    other.model.feature_dim = 32
    with pytest.raises(ValueError) as error:
        train(other, workdir)
    saved = config.optimizer.learning_rate
    assert f"config.optimizer.learning_rate: {saved} there, 0.5 now" in str(error.value)
    assert "config.model.feature_dim: 16 there, 32 now" in str(error.value)


def test_the_best_checkpoint_is_kept_and_found(run):
    config, workdir = run
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        history = checkpoints.read_run(checkpoints.newest_step())["validation"]
        best = min(history, key=lambda entry: entry["score"])["step"]
        assert checkpoints.best_step() == best
    assert int(load_trained(config, workdir, None).step) == best


def test_evaluation_names_its_numbers_and_draws(run):
    config, workdir = run
    results = run_evaluation(config, workdir, step=None, split=None)
    content = json.loads(results.read_text())
    assert content["provenance"]["split"] == config.data.test_split
    assert len(content["provenance"]["hand_model_sha256"]) == 64
    for protocols in content["results"].values():
        error = protocols["scale_aligned"]["MPJPE"]["all"]
        assert error["count"] > 0
        assert error["value"] > 0
    assert cv2.imread(str(results.with_suffix(".png"))).shape[1] == 5 * 224
    assert cv2.imread(str(results.parent / "loss.png")) is not None


def test_a_picture_becomes_meshes_that_agree_with_its_parameters(run, raw_dir, tmp_path):
    config, workdir = run
    picture = sorted((raw_dir / "images/test").rglob("*.jpg"))[0]
    run_prediction(config, workdir, [picture], [[150, 50, 200, 220]], tmp_path, step=None)
    content = json.loads((tmp_path / f"{picture.stem}.json").read_text())
    hands = load_hands(None)
    offset = np.array(content["left_wrist_minus_right_wrist_m"])
    scene = trimesh.load(tmp_path / f"{picture.stem}.glb")
    for hand, name in enumerate(("right", "left")):
        mesh = trimesh.load(tmp_path / f"{picture.stem}_{name}.obj", process=False)
        assert mesh.faces.tolist() == np.asarray(hands.faces)[hand].tolist()
        wrist = np.asarray(hands.joint_regressor)[hand, 0] @ mesh.vertices
        np.testing.assert_allclose(wrist, offset * hand, atol=1e-5)
        turned = scene.geometry[name].vertices @ scene.graph[name][0][:3, :3].T
        np.testing.assert_allclose(turned * [1, -1, -1], mesh.vertices, atol=1e-6)
    drawn = cv2.imread(str(tmp_path / f"{picture.stem}.png"))
    assert drawn.shape[0] == 384


def test_pictures_of_one_name_are_numbered():
    names = output_names([Path("a/x.jpg"), Path("b/y.jpg"), Path("b/x.png")])
    assert names == ["x_1", "y", "x_3"]


@pytest.mark.parametrize(
    ("pictures", "boxes", "message"),
    [
        ([], None, "no picture given"),
        (["nowhere.jpg"], None, "nowhere.jpg: no such picture"),
        (["nowhere.jpg"], [[0, 0, 1, 1]] * 2, "2 boxes for 1 pictures"),
        (["nowhere.jpg"], [[0, 0, 0, 5]], "w and h above zero"),
        (["text.jpg"], None, "not a picture that OpenCV can read"),
    ],
)
def test_pictures_that_cannot_be_predicted(run, tmp_path, monkeypatch, pictures, boxes, message):
    config, workdir = run
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("no picture")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_prediction(
            config, workdir, [Path(p) for p in pictures], boxes, tmp_path / "out", step=None
        )


def test_a_checkpoint_that_is_not_there(run, tmp_path):
    config, workdir = run
    with pytest.raises(FileNotFoundError, match="no checkpoint 5; there are"):
        load_trained(config, workdir, 5)
    with pytest.raises(FileNotFoundError, match="Train first"):
        load_trained(config, tmp_path, None)


def test_a_batch_larger_than_the_split(run, tmp_path):
    config, _ = run
    other = config.copy_and_resolve_references()
    other.batch_size = 1000
    with pytest.raises(ValueError, match=r"fewer than config.batch_size=1000"):
        train(other, tmp_path)
