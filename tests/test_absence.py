"""What a dataset or a run does not have ends no job: it is said once, and the rest is done."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from data_pipeline.build import __main__ as build
from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.train import run_training
from er_jax.configs.tiny import get_config
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import Split
from er_jax.training.loss_curve import draw_loss_curve
from er_jax.training.validation import AUTO_METRICS, Validation
from er_jax.utils.errors import DataError
from er_jax.utils.watchdog import Watchdog

HIC = Path(__file__).parents[2] / "shared" / "fixtures" / "hic"


def edited(raw_dir: Path, folder: Path, edit) -> ConfigDict:
    """The tiny config on the stand-in dataset, each split's annotations edited first."""
    raw = shutil.copytree(raw_dir, folder / "raw")
    for split in ("train", "val", "test"):
        names = ("data", "MANO_NeuralAnnot")
        files = [raw / f"annotations/{split}/InterHand2.6M_{split}_{name}.json" for name in names]
        contents = [json.loads(file.read_text()) for file in files]
        for file, content in zip(files, edit(*contents), strict=True):
            file.write_text(json.dumps(content))
    assert build.main(["interhand26m", f"--raw_dir={raw}", f"--data_dir={folder / 'ds'}"]) == 0
    return on_dataset(folder / "ds", "interhand26m/all")


def on_dataset(data_dir: Path, name: str) -> ConfigDict:
    config = get_config()
    config.data_dir, config.data.dataset = str(data_dir), name
    config.epochs = 1
    return config


def without_fits(data, mano):
    return data, {}


def right_hands_alone(data, mano):
    data["annotations"] = [a for a in data["annotations"] if a["hand_type"] == "right"]
    return data, mano


def train_and_evaluate(config: ConfigDict, workdir: Path) -> tuple[str, dict]:
    """The metric of the validation, and every number of the evaluation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No artists|constrained_layout")
        outcome = run_training(config, workdir)
        assert outcome.finished
        results = run_evaluation(config, workdir, step=None, split=None)
    assert results.with_suffix(".png").exists()
    assert (results.parent / "loss.png").exists()
    assert (results.parent / results.stem / "report.html").exists()
    return outcome.metric, json.loads(results.read_text())["results"]


def value(results: dict, path: str) -> float | None:
    protocol, metric, subset = path.split("/")
    return results["network"][protocol][metric][subset]["value"]


@pytest.mark.slow
def test_joints_without_fits(raw_dir, tmp_path, caplog):
    config = edited(raw_dir, tmp_path, without_fits)
    metric, results = train_and_evaluate(config, tmp_path / "run")
    assert metric == "wrist_aligned/MPJPE/all"
    assert value(results, metric) > 0
    assert value(results, "scale_aligned/MPJPE/all") is None
    assert results["network"]["scale_aligned"]["MPVPE"]["all"]["count"] == 0
    assert set(results) == {"network", "rest pose"}
    assert caplog.text.count("No baseline of the training set's mean hands") == 1

    # A metric that these annotations do not allow is refused before the first step.
    config.validation.metric = "scale_aligned/MPJPE/all"
    with pytest.raises(ValueError, match="do not allow it; they allow wrist_aligned/MPJPE/single"):
        run_training(config, tmp_path / "other")
    assert not list((tmp_path / "other" / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_right_hands_alone(raw_dir, tmp_path):
    config = edited(raw_dir, tmp_path, right_hands_alone)
    metric, results = train_and_evaluate(config, tmp_path / "run")
    assert metric == "scale_aligned/MPJPE/all"
    assert value(results, metric) > 0
    assert value(results, "wrist_aligned/MRRPE/all") is None
    assert value(results, "wrist_aligned/MPJPE/interacting") is None
    assert set(results) == {"network", "rest pose", "mean pose and shape"}


@pytest.mark.slow
@pytest.mark.skipif(not HIC.exists(), reason="the shared fixtures are not beside the repository")
def test_hic_alone(tmp_path):
    assert build.main(["hic", f"--raw_dir={HIC}", f"--data_dir={tmp_path / 'ds'}"]) == 0
    config = on_dataset(tmp_path / "ds", "hic")
    config.data.train_split = "test"
    metric, results = train_and_evaluate(config, tmp_path / "run")
    assert metric == "scale_aligned/MPJPE/all"
    assert value(results, metric) > 0
    assert value(results, "wrist_aligned/RRVE/interacting") > 0
    assert "mean pose and shape" not in results  # meshes have no pose to take the mean of


def validation_of(config: ConfigDict) -> Validation:
    return Validation(
        config.validation,
        ERConfig.from_dict(config.model),
        config.depth_box_m,
        Split.of(config, config.data.validation_split),
        load_hands(None),
        epoch_steps=1,
        last_step=1,
        log=None,  # type: ignore[arg-type]
        stop=None,  # type: ignore[arg-type]
        watchdog=Watchdog(0),
    )


@pytest.mark.parametrize("metric", ["auto", "wrist_aligned/MRRPE/all"])
def test_metrics_that_exist(tiny_config, metric):
    tiny_config.validation.metric = metric
    expected = AUTO_METRICS[0] if metric == "auto" else metric
    assert validation_of(tiny_config).metric == expected


def test_a_validation_split_that_is_not_there(tiny_config):
    tiny_config.data.validation_split = "validation"
    with pytest.raises(DataError, match=r"config\.data\.validation_split='validation'.*only train"):
        validation_of(tiny_config)


def test_no_curve_without_a_step(tmp_path):
    assert not draw_loss_curve(tmp_path / "metrics.jsonl", tmp_path / "loss.png", {})
    assert not (tmp_path / "loss.png").exists()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_loss_curve(tmp_path / "metrics.jsonl", tmp_path / "loss.png", {})
    assert (tmp_path / "loss.png").exists()
