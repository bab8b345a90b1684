"""Evaluate saved predictions of any method, and compare methods.

    python -m er_jax.evaluate --predictions FILE --data DATASETS --output REPORT
    python -m er_jax.evaluate --predictions FILE --compare A B --data DATASETS --output REPORT

FILE is a predictions file (docs/predictions_file.md). A and B are predictions files too, or the
`*.errors.npz` that every report leaves in its folder, so that checkpoints can be compared with
them. The page is about the first method; the others are compared with it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from rich.console import Console

from data_pipeline.errors import DataError
from er_jax.annotations import AnnotatedSplit
from er_jax.mano import HandModel, load_hands
from er_jax.methods import baseline_methods, evaluate_methods, predictions_method
from er_jax.predictions_file import Predictions, read_predictions
from er_jax.report.evaluated import Evaluated, load_errors
from er_jax.report.pictures import Reconstruct, sample_pictures
from er_jax.report.write import write_report

PREDICTIONS = flags.DEFINE_multi_string("predictions", [], "predictions file to evaluate")
COMPARE = flags.DEFINE_multi_string("compare", [], "predictions or errors files to compare with")
DATA = flags.DEFINE_string("data", None, "where the TFDS datasets were built", required=True)
DATASET = flags.DEFINE_string("dataset", "interhand26m/all", "dataset, or dataset/config")
SPLIT = flags.DEFINE_string("split", "test", "split to evaluate on")
TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "split the mean pose is taken from")
MANO_DIR = flags.DEFINE_string("mano_dir", None, "folder of the MANO files; None: the stand-in")
OUTPUT = flags.DEFINE_string("output", None, "folder of the report", required=True)
RESAMPLE = flags.DEFINE_enum(
    "resample", "sequence", ["sequence", "sample"], "what the intervals draw from"
)
TRUST = flags.DEFINE_bool("trust", False, "evaluate although the predictions look misread")


def _train_split() -> AnnotatedSplit | None:
    train = AnnotatedSplit(DATA.value, DATASET.value, TRAIN_SPLIT.value)
    try:
        len(train)
    except DataError as error:
        logging.warning("no mean-pose baseline: %s", error)
        return None
    return train


def _reconstruct_records(
    predictions: Predictions, split: AnnotatedSplit, hands: HandModel
) -> Reconstruct:
    return lambda records: predictions.reconstruct(
        hands, predictions.rows_of(split.sample_ids[records])
    )


def _open(name: str) -> Evaluated | Predictions:
    path = Path(name)
    return load_errors(path) if name.endswith(".errors.npz") else read_predictions(path)


def report_on(
    files: Sequence[str],
    split: AnnotatedSplit,
    train: AnnotatedSplit | None,
    hands: HandModel,
    output: Path,
    *,
    unit: str = "sequence",
    trust: bool = False,
) -> Path:
    """Evaluates predictions files, compares them with errors files, and writes the report.

    Args:
        files: of either kind; the report is about the first.
        split: to evaluate on.
        train: that the mean pose is taken from; None for no such baseline.
        hands: both hands.
        output: folder of the report.
        unit: what the intervals draw from, "sequence" or "sample".
        trust: see `predictions_method`.

    Returns:
        The page.
    """
    opened = [_open(name) for name in files]
    own = [
        predictions_method(source, split, hands, trust=trust)
        for source in opened
        if isinstance(source, Predictions)
    ]
    constants = baseline_methods(train, hands, split.batch_size)
    results = evaluate_methods([*own, *constants], split, hands)
    fresh, baselines = iter(results[: len(own)]), results[len(own) :]
    methods = [source if isinstance(source, Evaluated) else next(fresh) for source in opened]
    pictures = []
    if isinstance(opened[0], Predictions):
        records = _reconstruct_records(opened[0], split, hands)
        pictures = sample_pictures(methods[0], split, hands, records)
    title = f"{methods[0].name} on {split.dataset}, {split.split}"
    return write_report(
        output, title, methods, hands=hands, baselines=baselines, pictures=pictures, unit=unit
    )


def main(argv: list[str]) -> None:
    files = [*PREDICTIONS.value, *COMPARE.value, *argv[1:]]
    if not files:
        raise app.UsageError("give --predictions FILE, or --compare A B …")
    split = AnnotatedSplit(DATA.value, DATASET.value, SPLIT.value)
    page = report_on(
        files,
        split,
        _train_split(),
        load_hands(MANO_DIR.value),
        Path(OUTPUT.value),
        unit=RESAMPLE.value,
        trust=TRUST.value,
    )
    Console().print(f"The report is {page}; its numbers and errors lie beside it", soft_wrap=True)


if __name__ == "__main__":
    app.run(main)
