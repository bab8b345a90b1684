"""A run from start to images on the tiny config: training, stopping, going on, evaluation."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import jax
import numpy as np
import onnxruntime
import optax
import pytest
import safetensors.numpy
import trimesh
from ml_collections import ConfigDict
from official_files import write_official_folder

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.datasets import RecordSource
from er_jax.commands import demo
from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.export import run_export
from er_jax.commands.photographs import run_photographs
from er_jax.detection import DetectorError
from er_jax.evaluation.evaluate import HEADLINE
from er_jax.evaluation.network import evaluate_network
from er_jax.evaluation.predictions_file import read_predictions
from er_jax.evaluation.predictors import evaluate_predictors, file_predictor
from er_jax.evaluation.summary import headline, summarize
from er_jax.inference.attention_maps import draw_attention_maps, outputs_to_visualize
from er_jax.inference.pipeline import Pipeline
from er_jax.inference.reconstructor import Reconstructor
from er_jax.mano import load_hands
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.models import ERConfig
from er_jax.models.functional import network_of
from er_jax.models.weights.import_export import WeightError
from er_jax.photographs.load import load
from er_jax.photographs.photograph import read_photograph
from er_jax.report.sample_images import IMAGES_EACH
from er_jax.supervision.loaders import Split
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.initial_weights import with_initial_weights
from er_jax.training.load import load_trained, recorded_run
from er_jax.training.loop import train
from er_jax.training.metric_log import read_metric_log
from er_jax.training.monitor import Monitor
from er_jax.training.run_record import RunMismatchError, validation_error_mm
from er_jax.training.state import create_state
from er_jax.utils.errors import NotFoundError

PNG_SIGNATURE = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """An uninterrupted run of two epochs: its config and folder."""
    from er_jax.configs.tiny import get_config

    config = get_config()
    config.data_dir = str(data_dir)
    workdir = tmp_path_factory.mktemp("run")
    outcome = train(config, workdir, profile=(2, 3))
    assert outcome.finished
    assert outcome.skipped == 0
    assert outcome.speed.steps >= outcome.step - 3
    assert [step for step, _ in outcome.scores] == [outcome.step // 2, outcome.step]
    return config, workdir


def network_at(config, workdir):
    trained = load_trained(config, workdir, None, load_hands(config.mano_dir))
    return network_of(trained.config, trained.weights)


def training_lines(workdir: Path) -> list[dict]:
    return [entry for entry in read_metric_log(workdir / "metrics.jsonl") if "train/loss" in entry]


def test_every_step_and_every_validation_is_logged(run):
    _, workdir = run
    entries = training_lines(workdir)
    steps = entries[-1]["step"]
    assert [entry["step"] for entry in entries] == list(range(1, steps + 1))
    assert all(np.isfinite(list(entry.values())).all() for entry in entries)
    metric = "validation/scale_aligned/MPJPE/all"
    validations = [e for e in read_metric_log(workdir / "metrics.jsonl") if metric in e]
    assert [entry["step"] for entry in validations] == [steps // 2, steps]


def test_tensorboard_has_images_of_each_validation_and_the_trace(run):
    _, workdir = run
    events = b"".join(file.read_bytes() for file in workdir.glob("tensorboard/events*"))
    assert events.count(PNG_SIGNATURE) == 2
    assert len(list(workdir.glob("tensorboard/plugins/profile/*/*.xplane.pb"))) == 1


def test_a_stopped_run_goes_on_to_the_very_same_end(run, tmp_path, monkeypatch):
    config, workdir = run
    config = config.copy_and_resolve_references()
    config.log_every_steps = 1000
    add, save = Monitor.add, Checkpoints.save

    def add_and_signal(self, step, *rest):
        add(self, step, *rest)
        if step in (2, 7):
            os.kill(os.getpid(), signal.SIGTERM if step == 2 else signal.SIGINT)

    def save_after_the_log(self, state, *rest):
        assert training_lines(tmp_path)[-1]["step"] == state.step  # a kill now loses no line
        save(self, state, *rest)

    monkeypatch.setattr(Monitor, "add", add_and_signal)
    monkeypatch.setattr(Checkpoints, "save", save_after_the_log)
    outcomes = [train(config, tmp_path) for _ in range(3)]
    assert [(outcome.finished, outcome.step) for outcome in outcomes][:2] == [
        (False, 2),
        (False, 7),
    ]
    assert outcomes[2].finished
    assert training_lines(tmp_path) == training_lines(workdir)
    for ours, theirs in zip(
        jax.tree.leaves(load_trained(config, tmp_path, outcomes[2].step).weights),
        jax.tree.leaves(load_trained(config, workdir, outcomes[2].step).weights),
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
    assert load_trained(config, workdir, None).step == best


def test_a_run_starts_from_parts_of_another(run):
    config, workdir = run
    config = config.copy_and_resolve_references()
    trained = load_trained(config, workdir, None).weights
    fresh = create_state(ERConfig.from_dict(config.model), optax.sgd(1.0), seed=1, with_ema=True)
    config.init_from, config.init_parts = str(workdir), ("backbone", "pose.left")
    state = started(config, fresh)
    for part, of in (("backbone", trained), ("desim", fresh)):
        assert_equal(state.params[part], of.params[part])
    assert_equal(state.batch_stats["backbone"], trained.batch_stats["backbone"])
    assert_equal(state.params["pose"]["left"], trained.params["pose"]["left"])
    assert_equal(state.params["pose"]["right"], fresh.params["pose"]["right"])
    assert_equal(state.ema, (state.params, state.batch_stats))

    step = load_trained(config, workdir, None).step
    config.init_from, config.init_parts = str(workdir / "checkpoints" / str(step)), ("",)
    assert_equal(started(config, fresh).params, trained.params)


def test_parts_that_a_checkpoint_does_not_have(run, tmp_path):
    config, workdir = run
    config = config.copy_and_resolve_references()
    config.init_from, config.init_parts = str(workdir), ("hand_stream", "deocc", "hands_tream")
    config.model.feature_dim, config.model.deocc_depth = 32, 2
    net = ERConfig.from_dict(config.model)
    other = jax.eval_shape(lambda: create_state(net, optax.sgd(1.0), seed=1))
    with pytest.raises(ValueError) as error:
        started(config, other)
    assert "shape: hand_stream.right.bn.scale is (16,), not (32,)" in str(error.value)
    assert "missing: deocc.layers.1." in str(error.value)
    assert "no weight's name begins with 'hands_tream'" in str(error.value)
    assert "backbone" not in str(error.value)
    config.init_from = str(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a run's folder nor one of its checkpoi"):
        started(config, other)


def started(config, state):
    net_config = ERConfig.from_dict(config.model)
    return with_initial_weights(state, net_config, config.init_from, config.init_parts)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """The run evaluated: its results, its exported predictions, and the samples that were read."""
    config, workdir = run
    exported = tmp_path_factory.mktemp("evaluated") / "exported.npz"
    read = []
    get = RecordSource.__getitem__

    def counted(source, index):
        read.append((source.split, index))
        return get(source, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordSource, "__getitem__", counted)
        results = run_evaluation(config, workdir, step=None, split=None, predictions=exported)
    return results, exported, Counter(read)


def test_evaluation_names_its_numbers_and_draws(run, evaluated):
    config, _ = run
    results, exported, _ = evaluated
    content = json.loads(results.read_text())
    assert content["provenance"]["split"] == config.data.test_split
    assert len(content["provenance"]["hand_model_sha256"]) == 64
    for protocols in content["results"].values():
        error = protocols["scale_aligned"]["MPJPE"]["all"]
        assert error["count"] > 0
        assert error["value"] > 0
    split = AnnotatedSplit(config.data_dir, config.data.dataset, config.data.test_split)
    hands = load_hands(None)
    method = file_predictor(read_predictions(exported), split, hands, trust=True)
    again = summarize(evaluate_predictors([method], split, hands)[0].errors)
    here = headline(content["results"]["network"], HEADLINE)
    assert headline(again, HEADLINE) == pytest.approx(here, rel=1e-5)
    assert cv2.imread(str(results.with_suffix(".png"))).shape[1] == 5 * 224
    assert cv2.imread(str(results.parent / "loss.png")) is not None


def test_validations_score_is_evaluations_number(run):
    """Of the newest checkpoint, on the split that the config names for validation."""
    config, workdir = run
    assert (config.data.train_split, config.data.validation_split) == ("train", "test")
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.newest_step()
        newest = checkpoints.read_run(step)["validation"][-1]
    assert newest["step"] == step
    trained, split = load_trained(config, workdir, step), Split.of(config, "test")
    found = evaluate_network(trained, load_hands(None), split, f_scores=False)
    number = summarize(found.network.errors)["scale_aligned"]["MPJPE"]["all"]
    assert number["count"] > 0
    assert number["value"] == pytest.approx(newest["score"], rel=1e-5)


def test_evaluation_walks_once_over_the_split(evaluated):
    """Images are read once for all, and those drawn in the report once more; of train none."""
    results, _, counts = evaluated
    assert set(json.loads(results.read_text())["results"]) == {
        "network",
        "rest pose",
        "mean pose and shape",
    }
    assert {split for split, _ in counts} == {"test"}
    assert sorted(index for _, index in counts) == list(range(8))
    drawn = sum(counts.values()) - 8
    assert 0 < drawn <= 3 * IMAGES_EACH


def test_a_box_gives_the_networks_hands_where_it_sees_them(run, raw_dir, tmp_path):
    """Meshes are the network's to a millimetre, placed in the camera's metres; no detector runs."""
    _, workdir = run
    image = sorted((raw_dir / "images/test").rglob("*.jpg"))[0]
    box = [150.0, 50.0, 200.0, 220.0]
    run_photographs([image], tmp_path, weights=workdir, boxes=[box], hands="both", visualize=True)
    content = json.loads((tmp_path / f"{image.stem}_hands.json").read_text())["persons"][0]
    hands = load_hands(None)
    config = ConfigDict(recorded_run(workdir)["config"])
    pipeline = Pipeline(network_at(config, workdir), hands)
    said = pipeline(read_photograph(image).pixels, box).prediction
    for side, name in enumerate(("right", "left")):
        found = np.array(content[name]["joints_m"])
        relative = found - found[0] - np.asarray(said.joints)[side]
        assert 1000 * np.linalg.norm(relative, axis=-1).mean() < 3
        assert content[name]["source"] == "network"
        from_middle = np.mean(content[name]["keypoints_px"], 0) - [250, 160]
        assert np.abs(from_middle).max() < 110  # in the box
        assert found[:, 2].min() > 0.1
        mesh = trimesh.load(tmp_path / f"{image.stem}_hands_{name}.obj", process=False)
        assert mesh.faces.tolist() == np.asarray(hands.faces)[side].tolist()
        wrist = np.asarray(hands.joint_regressor)[side, :778, 0] @ mesh.vertices
        np.testing.assert_allclose(wrist, found[0], atol=1e-4)
    assert (tmp_path / f"{image.stem}_hands_attention.png").exists()


@pytest.mark.parametrize("use_deocc", [True, False])
def test_a_image_of_the_inside(tmp_path, use_deocc):
    config = ERConfig(input_size=64, depth_bins=4, use_deocc=use_deocc)
    random = np.random.default_rng(0)
    shapes = {"heatmaps": (2, 21, 4, 2, 2), "deocc_attention": (2, 1, 2, 4, 4)}
    prediction = SimpleNamespace(
        joint_img=random.uniform(0, 1, (2, 21, 3)),
        intermediates={
            name: random.uniform(size=shapes[name]) for name in outputs_to_visualize(config)
        },
    )
    draw_attention_maps(tmp_path / "inside.png", np.zeros((64, 64, 3), np.uint8), prediction)
    height, width, _ = cv2.imread(str(tmp_path / "inside.png")).shape
    rows = 4 if use_deocc else 2
    assert abs(height / width - rows / 6) < 0.05


@pytest.mark.usefixtures("detector_dir")
def test_the_readmes_python(run, raw_dir, tmp_path, monkeypatch, capsys):
    """The snippets under "In Python", on this run and one of its images."""
    _, workdir = run
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = text.split("## In Python")[1].split("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(snippets) == 2
    image = sorted((raw_dir / "images/test").rglob("*.jpg"))[0]
    shutil.copy(image, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for code in snippets:
        exec(compile(code.replace("outputs/demo/run", str(workdir)), "README.md", "exec"), {})
    assert "(778, 3)" in capsys.readouterr().out
    assert list((tmp_path / "hands").glob("*.json"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of the run's exported network."""
    config, workdir = run
    folder = tmp_path_factory.mktemp("exported")
    with redirect_stdout(io.StringIO()) as said:
        run_export(config, workdir, folder, step=None)
    assert f"for JAX {jax.__version__} and" in said.getvalue()
    return folder


def test_an_exported_network_is_the_checkpoints(run, exported):
    config, workdir = run
    net = network_at(config, workdir)
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype(np.float32)
    program = jax.export.deserialize(bytearray((exported / "er.stablehlo").read_bytes()))
    expected = Reconstructor(net, load_hands(None), batch_sizes=(2,))(images)
    for name, array in program.call(images).items():
        np.testing.assert_allclose(array, getattr(expected, name), atol=1e-5, err_msg=name)
    session = onnxruntime.InferenceSession(exported / "er.onnx")
    (vertices,) = session.run(["vertices"], {"images": images})
    np.testing.assert_allclose(vertices, expected.vertices, atol=1e-5)


def test_exported_weights_stand_for_the_checkpoint(run, evaluated, exported, tmp_path):
    """They are evaluated and fine-tuned from as the checkpoint is."""
    config, workdir = run
    file = exported / "er.safetensors"
    of_file, of_run = (validation_error_mm(recorded_run(one)) for one in (file, workdir))
    assert of_file == of_run > 0
    trained, read = load_trained(config, workdir, None), load_trained(config, file, None)
    assert (read.step, read.depth_box_m) == (trained.step, trained.depth_box_m)
    assert_equal(read.weights, trained.weights)

    of_file = run_evaluation(config, tmp_path / "w", step=None, split="test", weights=file)
    assert of_file.name == "interhand26m-all-test-er.json"
    assert json.loads(of_file.read_text()) == json.loads(evaluated[0].read_text())

    config = config.copy_and_resolve_references()
    config.init_from = str(file)
    fresh = create_state(ERConfig.from_dict(config.model), optax.sgd(1.0), seed=1)
    assert_equal(started(config, fresh).params, trained.weights.params)


def test_weights_that_do_not_fit(run, exported, tmp_path):
    config, _ = run
    other = config.copy_and_resolve_references()
    whole = (exported / "er.safetensors").read_bytes()
    other.model.feature_dim = 32
    with pytest.raises(RunMismatchError, match="feature_dim: 16 there, 32 now"):
        load_trained(other, exported / "er.safetensors", None)
    with pytest.raises(NotFoundError, match=r"none\.safetensors: there is no such file"):
        load_trained(config, tmp_path / "none.safetensors", None)
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightError, match=r"half\.safetensors is no .safetensors file, or is cut"):
        load_trained(config, tmp_path / "half.safetensors", None)
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightError, match="has format None"):
        load_trained(config, tmp_path / "foreign.safetensors", None)


@pytest.mark.slow
def test_a_second_start_compiles_nothing(run, raw_dir, tmp_path):
    _, workdir = run
    image = sorted((raw_dir / "images/test").rglob("*.jpg"))[0]
    shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
    compiled = []
    for _ in range(2):
        subprocess.run(
            [
                *(sys.executable, "-m", "er_jax.main", "--config=configs/tiny.py"),
                *("--mode=predict", f"--workdir={tmp_path}", str(image)),
            ],
            check=True,
        )
        compiled.append({path.name for path in (tmp_path / "compiled").glob("*-cache")})
    assert compiled[0]
    assert compiled[1] == compiled[0]


def test_a_run_asks_for_its_pretrained_backbone(tiny_config, tmp_path):
    tiny_config.model.backbone_weights = str(tmp_path / "backbone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"backbone\.safetensors"):
        train(tiny_config, tmp_path)


def test_a_checkpoint_that_is_not_there(run, tmp_path):
    config, workdir = run
    with pytest.raises(FileNotFoundError, match="no checkpoint 5; there are"):
        load_trained(config, workdir, 5)
    with pytest.raises(FileNotFoundError, match="Train first"):
        load_trained(config, tmp_path, None)


JOBS = {
    "eval": lambda config, run, output: run_evaluation(config, run, step=None, split=None),
    "predict": lambda config, run, output: load(
        weights=run, mano_dir=config.mano_dir, detect=False
    ),
    "export": lambda config, run, output: run_export(config, run, output, step=None),
}


@pytest.mark.parametrize("job", JOBS)
def test_other_hands_than_a_run_was_trained_with_are_told(run, tmp_path, monkeypatch, caplog, job):
    class Loaded(Exception):
        """A checkpoint's weights would be read now."""

    config, workdir = run
    other = config.copy_and_resolve_references()
    larger = stand_in_arrays("left")
    larger["v_template"] *= 1.01
    other.mano_dir = str(write_official_folder(tmp_path, larger))
    monkeypatch.setattr(Checkpoints, "restore_weights", Mock(side_effect=Loaded))
    for used in (config, other):
        assert "other hands" not in caplog.text
        with pytest.raises(Loaded):
            JOBS[job](used, workdir, tmp_path)
    trained, now = (load_hands(used.mano_dir).sha256[:12] for used in (config, other))
    assert (
        f"other hands: stand-in (SHA-256 {trained}…) there, MANO files (SHA-256 {now}…) now"
        in caplog.text
    )


def test_a_validation_metric_that_does_not_exist(run, tmp_path):
    config, _ = run
    other = config.copy_and_resolve_references()
    other.validation.metric = "MPJPE"
    with pytest.raises(
        ValueError, match=r"metric='MPJPE': choose one of auto, wrist_aligned/MPJPE/s"
    ):
        train(other, tmp_path)


def test_a_batch_larger_than_the_split(run, tmp_path):
    config, _ = run
    other = config.copy_and_resolve_references()
    other.batch_size = 1000
    with pytest.raises(ValueError, match=r"fewer than config.batch_size=1000"):
        train(other, tmp_path)


@pytest.mark.parametrize("found", [True, False])
def test_the_demo_ends_well_with_and_without_a_detector(
    run, raw_dir, monkeypatch, capsys, caplog, request, found
):
    """What comes after the training: whole images, or boxes where nothing can be fetched."""
    config, workdir = run
    if found:
        request.getfixturevalue("detector_dir")
    else:
        refuse = Mock(side_effect=DetectorError("pip could not fetch it"))
        monkeypatch.setattr(demo, "MediaPipeHands", refuse)
    results = workdir / "evaluation/interhand26m-all-test.json"
    monkeypatch.setattr(demo, "get_config", config.copy_and_resolve_references)
    monkeypatch.setattr(demo, "prepare", Mock())
    monkeypatch.setattr(demo, "run_training", Mock(return_value=Mock(finished=True)))
    monkeypatch.setattr(demo, "run_evaluation", Mock(return_value=results))
    monkeypatch.setattr(demo, "summary", lambda results, workdir, whole: "\n".join(whole))
    monkeypatch.setattr(demo, "WHOLE_IMAGES", 4)
    assert demo.run_demo(raw_dir, Path(config.data_dir), workdir) == 0
    printed = capsys.readouterr().out
    assert ("whole images, no box" in printed) == found
    assert ("Detection is left out" in caplog.text) != found
    made = {path.suffix for path in (workdir / "predictions").iterdir()}
    assert {".json", ".png"} <= made
