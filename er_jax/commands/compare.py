"""Evaluate saved predictions of any predictor, and compare predictors.

    python -m er_jax.commands.compare --predictions FILE --data_dir DATASETS --output REPORT
    python -m er_jax.commands.compare --predictions FILE --compare A B \\
        --data_dir DATASETS --output REPORT

FILE is a predictions file (docs/predictions_file.md). A and B are predictions files too, or runs'
folders, whose newest evaluation on that dataset and split is taken, or the `*.errors.npz` that
every report leaves in its folder. The page is about the first; the others are compared with it.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from rich.console import Console

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import prepare
from er_jax.evaluation.mean_pose import baselines
from er_jax.evaluation.predictions_file import Predictions, read_predictions
from er_jax.evaluation.predictors import constant_predictors, evaluate_predictors, file_predictor
from er_jax.evaluation.results import Evaluated, load_errors
from er_jax.mano import HandModel, load_hands
from er_jax.report.sample_images import Reconstruct, sample_images
from er_jax.report.write import write_report
from er_jax.utils.errors import NotFoundError

PREDICTIONS = flags.DEFINE_multi_string("predictions", [], "predictions file to evaluate")
COMPARE = flags.DEFINE_multi_string("compare", [], "predictions files or runs to compare with")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "where the TFDS datasets were built", required=True
)
DATASET = flags.DEFINE_string("dataset", "interhand26m/all", "dataset, or dataset/config")
SPLIT = flags.DEFINE_string("split", "test", "split to evaluate on")
TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "split the mean pose is taken from")
MANO_DIR = flags.DEFINE_string("mano_dir", None, "folder of the MANO files; None: the stand-in")
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
RESAMPLE = flags.DEFINE_enum(
    "resample", "sequence", ["sequence", "sample"], "what the intervals draw from"
)
TRUST = flags.DEFINE_bool("trust", False, "evaluate although the predictions look misread")


def _reconstruct_records(
    predictions: Predictions, split: AnnotatedSplit, hands: HandModel
) -> Reconstruct:
    return lambda records: predictions.reconstruct(
        hands, predictions.rows_of(split.sample_ids[records])
    )


def _open(path: Path, split: AnnotatedSplit) -> Evaluated | Predictions:
    if path.is_dir():
        path = newest_evaluation(path, split.dataset, split.split)
    return load_errors(path) if path.name.endswith(".errors.npz") else read_predictions(path)


def newest_evaluation(run: Path, dataset: str, split: str) -> Path:
    """The errors file of a run's newest evaluation, by `er_jax.main --mode=eval`, on a split.

    Raises:
      NotFoundError: the run was not evaluated on it.
    """
    pattern = f"evaluation/{dataset.replace('/', '-')}-{split}-*/*.errors.npz"
    found = sorted(run.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        raise NotFoundError(
            f"{run} was not evaluated on {dataset}, {split}: there is no {pattern}. Use "
            "er_jax.main --mode=eval with this --workdir first."
        )
    return found[-1]


def _told_apart(predictors: Sequence[Evaluated], files: Sequence[str]) -> list[Evaluated]:
    """The predictors, those of one name with their files' names behind it."""
    uses = Counter(predictor.name for predictor in predictors)
    return [
        dataclasses.replace(predictor, name=f"{predictor.name} ({file})")
        if uses[predictor.name] > 1
        else predictor
        for predictor, file in zip(predictors, files, strict=True)
    ]


def report_on(
    files: Sequence[str],
    split: AnnotatedSplit,
    train: AnnotatedSplit,
    hands: HandModel,
    output: Path,
    *,
    unit: str = "sequence",
    trust: bool = False,
) -> Path:
    """Evaluates predictions files, compares them with others and with runs, writes the report.

    Args:
      files: predictions or errors files, or folders of runs; the report is about the first.
      split: to evaluate on.
      train: that the mean pose is taken from; without such a split there is no such baseline.
      hands: both hands.
      output: folder of the report.
      unit: what the intervals draw from, "sequence" or "sample".
      trust: see `file_predictor`.

    Returns:
      The page.
    """
    opened = [_open(Path(file), split) for file in files]
    own = [
        file_predictor(source, split, hands, trust=trust)
        for source in opened
        if isinstance(source, Predictions)
    ]
    constants = constant_predictors(baselines(train, hands))
    results = evaluate_predictors([*own, *constants], split, hands)
    fresh, beside = iter(results[: len(own)]), results[len(own) :]
    predictors = _told_apart(
        [source if isinstance(source, Evaluated) else next(fresh) for source in opened], files
    )
    images = []
    if isinstance(opened[0], Predictions) and opened[0].has_meshes:
        records = _reconstruct_records(opened[0], split, hands)
        images = sample_images(predictors[0], split, hands, records)
    title = f"{predictors[0].name} on {split.title}"
    return write_report(
        output, title, predictors, hands=hands, baselines=beside, images=images, unit=unit
    )


def main(argv: list[str]) -> None:
    files = [*PREDICTIONS.value, *COMPARE.value, *argv[1:]]
    if not files:
        raise app.UsageError("give --predictions FILE, or --compare A B …")
    with exit_with_message():
        prepare(Path(OUTPUT.value))
        run(files)


def run(files: Sequence[str]) -> None:
    split = AnnotatedSplit(DATA_DIR.value, DATASET.value, SPLIT.value)
    page = report_on(
        files,
        split,
        AnnotatedSplit(DATA_DIR.value, DATASET.value, TRAIN_SPLIT.value),
        load_hands(MANO_DIR.value),
        Path(OUTPUT.value),
        unit=RESAMPLE.value,
        trust=TRUST.value,
    )
    Console().print(f"The report is {page}; its numbers and errors lie beside it", soft_wrap=True)


if __name__ == "__main__":
    app.run(main)
