"""The jobs of the command line, each from a config and most of them from a run's folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.logging import RichHandler

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax import parallel
from er_jax.compilation import prepare_cpu
from er_jax.evaluation import print_table
from er_jax.mano import HandModel, load_hands
from er_jax.methods import MEAN_HANDS, baseline_methods, evaluate_methods
from er_jax.metric_summary import summarize
from er_jax.models import ERConfig, ERNet
from er_jax.models.describe import describe
from er_jax.models.inference import export_onnx, export_program
from er_jax.models.params import export_network
from er_jax.network_predictions import export_predictions
from er_jax.pictures import write_picture
from er_jax.prediction import predict_pictures
from er_jax.report.from_checkpoint import evaluate_network, report_on_checkpoint
from er_jax.report.provenance import hand_model_facts
from er_jax.samples_sheet import SamplesSheet
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.loop import Outcome, train
from er_jax.training.loss_curve import draw_loss_curve
from er_jax.training.run_record import check_same_network, warn_of_other_hands
from er_jax.training.state import TrainState, create_state, network_of
from er_jax.whole_files import write_json

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again; for the others see `er_jax.exit_codes`


def prepare(workdir: Path, *, keep_programs: bool = False) -> None:
    """Makes a run's folder, has the log kept there, and prepares the CPU (see `prepare_cpu`)."""
    prepare_cpu(workdir / "compiled" if keep_programs else None)
    workdir.mkdir(parents=True, exist_ok=True)
    log_to(workdir / "log.txt")


def log_to(file: Path) -> None:
    """Sends the project's messages to a file, and to the terminal or whatever stands for it.

    Of several processes only the first one does; the others tell their errors.
    """
    _quieten_libraries()
    terminal = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    terminal.addFilter(lambda record: not hasattr(record, "only_in_file"))
    handlers: list[logging.Handler] = [terminal]
    if parallel.is_first_process():
        lines = logging.FileHandler(file)
        lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(lines)
    else:
        terminal.setLevel(logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def _quieten_libraries() -> None:
    """Before JAX looks for devices: it tells which kinds it has not found."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax and TFDS tell all that they do
    logging.getLogger("jax").setLevel(logging.WARNING)


def run_training(
    config: ConfigDict,
    workdir: Path,
    profile: tuple[int, int] = (0, 0),
    *,
    allow_changes: bool = False,
) -> Outcome:
    """Trains in `workdir` (see `train`); says on the terminal how it ended."""
    workdir.mkdir(parents=True, exist_ok=True)
    outcome = train(config, workdir, profile, allow_changes=allow_changes)
    if parallel.is_first_process():
        Console().print(_training_summary(config, workdir, outcome), soft_wrap=True)
    return outcome


def _training_summary(config: ConfigDict, workdir: Path, outcome: Outcome) -> str:
    end = "Finished" if outcome.finished else "Stopped, the same command goes on"
    lines = [f"{end} at step {outcome.step}, {outcome.skipped} updates skipped"]
    if outcome.scores:
        step, score = min(outcome.scores, key=lambda entry: entry[1])
        lines.append(f"best {outcome.metric}: {score:.2f} mm at step {step}")
    if (speed := outcome.speed).steps:
        lines.append(
            f"{config.batch_size * speed.steps_per_second:.1f} images/s, "
            f"{speed.waiting_for_data:.1%} of the time waiting for data"
        )
    lines.append(f"checkpoints, metrics.jsonl, log.txt and tensorboard are in {workdir}")
    return "\n".join(lines)


def load_trained(
    config: ConfigDict, workdir: Path, step: int | None, hands: HandModel | None = None
) -> TrainState:
    """The network of a run's checkpoint.

    Args:
      config: must describe the same network.
      workdir: the run's folder.
      step: of the checkpoint; None: the best by validation.
      hands: that its poses and shapes are for; warns where it was trained with others.

    Raises:
      FileNotFoundError: if there is no such checkpoint; names those that are there.
      ValueError: if it holds another network; names the differences.
    """
    folder = workdir / "checkpoints"
    net_config = ERConfig.from_dict(config.model)
    like = jax.eval_shape(lambda: create_state(net_config, None, config.seed))

    def load() -> TrainState:
        with Checkpoints(folder, read_only=True) as checkpoints:
            saved = checkpoints.steps()
            chosen = checkpoints.best_step() if step is None else step
            if chosen is None or chosen not in saved:
                raise FileNotFoundError(
                    f"{folder} has no checkpoint {'' if step is None else step}; there are "
                    f"{saved or 'none'}. Train first with --mode=train and the same --workdir."
                )
            record = checkpoints.read_run(chosen)
            check_same_network(record, config, folder / str(chosen))
            if hands is not None:
                warn_of_other_hands(record, hands, folder / str(chosen))
            logging.info("Using checkpoint %s", folder / str(chosen))
            return checkpoints.restore_model(chosen, like)

    return jax.device_put(parallel.on_first_process(load))


def load_network(
    config: ConfigDict, workdir: Path, step: int | None, hands: HandModel | None = None
) -> ERNet:
    """The network of a run's checkpoint with its weights, for evaluation; see `load_trained`."""
    state = load_trained(config, workdir, step, hands)
    return network_of(ERConfig.from_dict(config.model), state)


def run_evaluation(
    config: ConfigDict,
    workdir: Path,
    *,
    step: int | None,
    split: str | None,
    predictions: Path | None = None,
) -> Path:
    """Evaluates a checkpoint, and beside it the training set's mean hands, on a split.

    Prints the headline numbers and writes into `workdir/evaluation`: every number of every
    protocol with where it comes from (JSON), a report of them with breakdowns and samples (HTML, in
    a folder of its own), a sheet of samples with truth beside prediction, and the loss curve. Of
    several processes each evaluates its part of the samples, and the first one does the rest.

    Args:
      config: of the run.
      workdir: the run's folder.
      step: of the checkpoint; None: the best by validation.
      split: to evaluate on; None: the config's test split.
      predictions: also writes the network's predictions to this file.

    Returns:
      The JSON file.

    Raises:
      FileNotFoundError, ValueError: see `load_trained`.
    """
    parallel.check_batch_size(config.batch_size)
    name = split or config.data.test_split
    hands = load_hands(config.mano_dir)
    state = load_trained(config, workdir, step, hands)
    trained = int(state.step)
    folder = workdir / "evaluation"
    stem = f"{config.data.dataset.replace('/', '-')}-{name}-{trained}"
    results = folder / f"{stem}.json"
    sheet = SamplesSheet(hands)
    network = evaluate_network(config, workdir.name, state, hands, name, sheet=sheet)
    if predictions is not None:
        export_predictions(config, workdir.name, state, hands, name, predictions)
    if not parallel.is_first_process():
        return results
    train, test = (
        AnnotatedSplit(config.data_dir, config.data.dataset, split)
        for split in (config.data.train_split, name)
    )
    baselines = evaluate_methods(baseline_methods(train, hands, test.batch_size), test, hands)
    summaries = {
        "network": summarize(network.errors),
        **{baseline.name: summarize(baseline.errors) for baseline in baselines},
    }
    print_table(f"{config.data.dataset}, {name}, checkpoint {trained}", summaries)

    folder.mkdir(exist_ok=True)
    provenance = {
        "dataset": config.data.dataset,
        "split": name,
        "checkpoint_step": trained,
        **hand_model_facts(hands),
    }
    write_json(results, {"provenance": provenance, "results": summaries})
    report_on_checkpoint(config, state, hands, network, baselines, folder / stem)
    if (picture := sheet.picture()) is not None:
        write_picture(folder / f"{stem}.png", picture)
    else:
        logging.info("No sample of %s has a hand to draw: there is no sheet of samples", name)
    levels = {
        f"{name}, {protocol}": level
        for name in {MEAN_HANDS} & summaries.keys()
        for protocol in ("scale_aligned", "wrist_aligned")
        if (level := summaries[name][protocol]["MPJPE"]["all"]["value"]) is not None
    }
    if not draw_loss_curve(workdir / "metrics.jsonl", folder / "loss.png", levels):
        logging.info("%s has no training step: there is no loss curve", workdir / "metrics.jsonl")
    Console().print(f"Numbers and pictures are in {folder}", soft_wrap=True)
    return results


def run_prediction(
    config: ConfigDict,
    workdir: Path,
    pictures: Sequence[Path],
    boxes: Sequence[Sequence[float]] | None,
    output: Path,
    *,
    step: int | None,
    inside: bool = False,
) -> None:
    """Reconstructs the hands of some pictures with a checkpoint (see `predict_pictures`)."""
    hands = load_hands(config.mano_dir)
    net = load_network(config, workdir, step, hands)
    predict_pictures(net, hands, pictures, boxes, output, inside=inside)
    Console().print(f"Meshes, parameters and pictures are in {output}", soft_wrap=True)


def run_export(config: ConfigDict, workdir: Path, output: Path, *, step: int | None) -> None:
    """Writes a checkpoint's network as portable programs and its weights as a table of arrays.

    `er.stablehlo` and `er.onnx` go from images to meshes without this project (see
    `er_jax.models.inference`); `er.safetensors` takes the weights to other frameworks (see
    `er_jax.models.params`).
    """
    hands = load_hands(config.mano_dir)
    net = load_network(config, workdir, step, hands)
    output.mkdir(parents=True, exist_ok=True)
    export_program(net, hands, output / "er.stablehlo")
    export_onnx(net, hands, output / "er.onnx")
    export_network(net, output / "er.safetensors")
    Console().print(f"Wrote er.stablehlo, er.onnx and er.safetensors to {output}", soft_wrap=True)


def run_description(config: ConfigDict) -> None:
    """Prints a table of the network's modules (see `describe`), at the config's batch."""
    _quieten_libraries()
    net_config = ERConfig.from_dict(config.model)
    Console().print(describe(net_config, load_hands(config.mano_dir), batch=config.batch_size))
