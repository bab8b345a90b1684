"""Ablations: variants of the network trained alike from several seeds, evaluated, compared.

    python -m er_jax.commands.ablations --config configs/ablations.py --workdir ABLATIONS \
        --config.run.data_dir=DATASETS

Every variant and seed is a run in a folder of its own, `ABLATIONS/runs/VARIANT/seed-N`. Seeds come
one after the other, each with all variants. From the second on, the table of the seeds that are
complete (`ablations.md`, `.json`, `.svg`) is written anew. The same command goes on where it was
interrupted; what was evaluated is not done again. The exit code is that of `er_jax.main`.
"""

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import prepare
from er_jax.commands.train import run_training
from er_jax.evaluation.mean_pose import MEAN_HANDS, baselines
from er_jax.evaluation.network import evaluate_network
from er_jax.evaluation.predictors import constant_predictors, evaluate_predictors
from er_jax.evaluation.results import Evaluated, file_name, load_errors, save_errors
from er_jax.mano import load_hands
from er_jax.report.ablation import write_ablation
from er_jax.supervision.loaders import Split
from er_jax.training.load import load_trained
from er_jax.training.run_record import run_record
from er_jax.utils.config_flags import parse_flags
from er_jax.utils.errors import EXIT_STOPPED, ConfigError

CONFIG = config_flags.DEFINE_config_file("config", None, "what to vary", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the runs and of their table")


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant trained from one seed, in a folder of its own."""

    variant: str
    seed: int
    config: ConfigDict
    folder: Path

    @property
    def errors_file(self) -> Path:
        return self.folder / f"{self.config.data.test_split}.errors.npz"

    @property
    def recipe(self) -> dict[str, Any]:
        """All of its config that can change its numbers."""
        ignored = {"data_dir", "mano_dir", "log_every_steps"}
        config = run_record(self.config)["config"]
        return {field: value for field, value in config.items() if field not in ignored}


def planned_runs(config: ConfigDict, workdir: Path) -> list[list[Run]]:
    """Returns the runs of all variants of each seed, in the config's order.

    Args:
      config: with the fields of `configs/ablations.py`.
      workdir: that the runs' folders are made in.

    Raises:
      ConfigError: fewer than two seeds or variants, or the same one twice, or one of a field that
        there is not.
    """
    seeds, variants = list(config.seeds), [name for name, _ in config.variants]
    for field, values in (("seeds", seeds), ("variants", [file_name(name) for name in variants])):
        if len(set(values)) < max(len(values), 2):
            raise ConfigError(f"config.{field} {values}: give two or more, each once")
    return [
        [_run(config, workdir, name, fields, seed) for name, fields in config.variants]
        for seed in seeds
    ]


def _run(config: ConfigDict, workdir: Path, variant: str, fields: dict[str, Any], seed: int) -> Run:
    own = config.run.copy_and_resolve_references()
    try:
        own.update_from_flattened_dict(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"config.variants, {variant!r}: {error}") from None
    own.seed = seed
    return Run(variant, seed, own, workdir / "runs" / file_name(variant) / f"seed-{seed}")


def run_ablations(config: ConfigDict, workdir: Path) -> Path | None:
    """Trains, evaluates and compares all that is planned.

    Returns:
      The table; None where a signal stopped it before.

    Raises:
      ConfigError: see `planned_runs`; or a run that is there had another config.
    """
    plan = planned_runs(config, workdir)
    variants, baseline = [run.variant for run in plan[0]], _baseline(config.run)
    complete: list[Sequence[Evaluated]] = []
    table = None
    for number, runs in enumerate(plan, start=1):
        done = []
        for run in runs:
            logging.info("Seed %d (%d of %d), %s", run.seed, number, len(plan), run.variant)
            result = _result(run)
            if result is None:
                return None
            done.append(result)
        complete.append(done)
        if number > 1:
            seeds = list(config.seeds)[:number]
            table = write_ablation(workdir, variants, seeds, complete, baseline)
    return table


def _result(run: Run) -> Evaluated | None:
    """Trains and evaluates a run, or reads what it was evaluated to; None: a signal stopped it."""
    if run.errors_file.exists():
        result = load_errors(run.errors_file)
        if result.provenance["recipe"] != run.recipe:
            raise ConfigError(
                f"{run.errors_file} is of a run with another config. Use the same config, or "
                "another --workdir."
            )
        return result
    outcome = run_training(run.config, run.folder)
    if not outcome.finished:
        return None
    hands = load_hands(run.config.mano_dir)
    trained = load_trained(run.config, run.folder, outcome.step, hands)
    trained = dataclasses.replace(trained, name=run.variant)
    split = Split.of(run.config, run.config.data.test_split)
    # Without F-scores it is the very program that validation has compiled.
    network = evaluate_network(trained, hands, split, f_scores=False).network
    provenance = {**network.provenance, "seed": run.seed, "recipe": run.recipe}
    save_errors(run.errors_file, dataclasses.replace(network, provenance=provenance))
    return load_errors(run.errors_file)


def _baseline(config: ConfigDict) -> Evaluated:
    """The training set's mean hands on the test split."""
    hands = load_hands(config.mano_dir)
    train, test = (
        AnnotatedSplit(config.data_dir, config.data.dataset, split)
        for split in (config.data.train_split, config.data.test_split)
    )
    mean = baselines(train, hands)[MEAN_HANDS]
    return evaluate_predictors(constant_predictors({MEAN_HANDS: mean}), test, hands)[0]


def main(argv: list[str]) -> None:
    with exit_with_message():
        workdir = Path(str(WORKDIR.value))
        prepare(workdir)
        table = run_ablations(CONFIG.value, workdir)
    if table is None:
        sys.exit(EXIT_STOPPED)
    Console().print(table.read_text(encoding="utf-8"), soft_wrap=True, markup=False)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
