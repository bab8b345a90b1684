"""The command that evaluates a checkpoint, and beside it constant baselines."""

import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.evaluation import freihand
from er_jax.evaluation.evaluate import print_table
from er_jax.evaluation.mean_pose import MEAN_HANDS, baselines
from er_jax.evaluation.network import NetworkEvaluation, TrainedNetwork, evaluate_network
from er_jax.evaluation.predictions_file import write_predictions
from er_jax.evaluation.sample_grid import SampleGrid
from er_jax.evaluation.summary import summarize, unit_of
from er_jax.mano import HandModel, hand_model_identity, load_hands
from er_jax.rendering.overlays import write_image
from er_jax.report.checkpoint import report_on_checkpoint
from er_jax.supervision.loaders import Split
from er_jax.training.load import load_trained
from er_jax.training.loss_curve import draw_loss_curve
from er_jax.utils import distributed
from er_jax.utils.atomic_write import write_json


def run_evaluation(
    config: ConfigDict,
    workdir: Path,
    *,
    step: int | None,
    split: str | None,
    predictions: Path | None = None,
    weights: Path | None = None,
    submission: Path | None = None,
) -> Path:
    """Evaluates a checkpoint, and beside it the training set's mean hands, on a split.

    The split is walked over once. Prints the headline numbers and writes into `workdir/evaluation`:
    every number of every protocol with where it comes from (JSON), a report of them with breakdowns
    and samples (HTML, in a folder of its own), a grid of samples with truth beside prediction, and
    the loss curve. On FreiHAND its own protocol is among them. Of several processes each evaluates
    its part of the samples, and the first one does the rest.

    Args:
      config: of the run.
      workdir: the run's folder.
      step: of the checkpoint; None: the best by validation.
      split: to evaluate on; None: the config's test split.
      predictions: also writes the network's predictions to this file.
      weights: an exported `er.safetensors` to evaluate instead of a checkpoint.
      submission: of FreiHAND's evaluation, also writes the file for its server.

    Returns:
      The JSON file.

    Raises:
      NotFoundError, RunMismatchError: see `load_trained`.
      ConfigError: a submission is asked for on other data.
    """
    distributed.check_batch_size(config.batch_size)
    hands = load_hands(config.mano_dir)
    trained = load_trained(config, weights or workdir, step, hands)
    test = Split.of(config, split or config.data.test_split)
    if submission is not None:
        freihand.check_submittable(test.annotations)
    of_freihand = freihand.is_freihand(test.dataset)
    train = AnnotatedSplit(test.data_dir, test.dataset, config.data.train_split)
    folder = workdir / "evaluation"
    of_what = trained.step if weights is None else trained.name
    stem = f"{test.dataset.replace('/', '-')}-{test.name}-{of_what}"
    results = folder / f"{stem}.json"
    grid = SampleGrid(hands)
    evaluation = evaluate_network(
        trained,
        hands,
        test,
        constants=baselines(train, hands),
        grid=grid,
        keep_parameters=predictions is not None or of_freihand,
    )
    if not distributed.is_first_process():
        return results
    if predictions is not None:
        _write_predictions(predictions, trained, test, evaluation)
    network = evaluation.network
    summaries = {"network": summarize(network.errors, network.labels)}
    summaries |= {one.name: summarize(one.errors, one.labels) for one in evaluation.baselines}
    print_table(f"{test.annotations.title}; checkpoint {trained.step}", summaries)
    more = _of_freihand(hands, test, evaluation, submission) if of_freihand else {}
    summaries["network"] |= more

    folder.mkdir(parents=True, exist_ok=True)
    provenance = {
        **test.annotations.provenance,
        "checkpoint_step": trained.step,
        **hand_model_identity(hands),
    }
    write_json(results, {"provenance": provenance, "results": summaries})
    report_on_checkpoint(trained, hands, evaluation, test.annotations, folder / stem, more)
    if (image := grid.image()) is not None:
        write_image(folder / f"{stem}.png", image)
    else:
        logging.info("No sample of %s has a hand to draw: there is no grid of samples", test.name)
    levels = {
        f"{name}, {protocol}": level
        for name in {MEAN_HANDS} & summaries.keys()
        for protocol in ("scale_aligned", "wrist_aligned")
        if (level := summaries[name][protocol]["MPJPE"]["all"]["value"]) is not None
    }
    if not draw_loss_curve(workdir / "metrics.jsonl", folder / "loss.png", levels):
        logging.info("%s has no training step: there is no loss curve", workdir / "metrics.jsonl")
    Console().print(f"Numbers and images are in {folder}", soft_wrap=True)
    return results


def _of_freihand(
    hands: HandModel, split: Split, evaluation: NetworkEvaluation, submission: Path | None
) -> dict[str, Any]:
    """FreiHAND's own protocol of the network, printed; and the file for its server if asked for."""
    predicted = freihand.predicted_hands(hands, evaluation.parameters or {})
    numbers = freihand.freihand_numbers(predicted, split.annotations, hands)
    table = Table("metric", "network", title="As FreiHAND's server counts (it prints centimetres)")
    for metric, subsets in numbers.items():
        value, unit = subsets["all"]["value"], unit_of(metric)
        name = f"{metric} ({unit})" if unit else metric
        table.add_row(name, "–" if value is None else f"{value:.2f}" if unit else f"{value:.3f}")
    Console().print(table)
    if submission is not None:
        freihand.write_submission(submission, predicted, split.annotations)
        Console().print(f"For FreiHAND's server: {submission}", soft_wrap=True)
    return {freihand.PROTOCOL: numbers}


def _write_predictions(
    path: Path, trained: TrainedNetwork, split: Split, evaluation: NetworkEvaluation
) -> None:
    """Writes a predictions file (docs/predictions_file.md) of every sample of a split."""
    arrays = dict(evaluation.parameters or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "method": trained.name,
        "checkpoint_step": trained.step,
        **split.annotations.provenance,
    }
    write_predictions(path, arrays.pop("sample_id"), arrays, metadata=metadata)
