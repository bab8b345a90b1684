"""Writes a report: page, numbers and the errors of every sample, into one folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.annotated_split import split_title
from er_jax.evaluation.bootstrap import Comparison, compare
from er_jax.evaluation.breakdowns import breakdowns
from er_jax.evaluation.calibration import Calibration, Reliability, reliability
from er_jax.evaluation.results import Evaluated, file_name, save_errors
from er_jax.evaluation.summary import PCK_THRESHOLDS_MM, summarize
from er_jax.mano import HandModel
from er_jax.report.page import html_page
from er_jax.report.sample_images import SampleImage
from er_jax.report.tables import csv_table, markdown_row
from er_jax.utils.atomic_write import atomic_write, write_json
from er_jax.utils.errors import ConfigError

PAGE, NUMBERS, TABLE, ROW = "report.html", "numbers.json", "numbers.csv", "row.md"


def write_report(
    folder: Path,
    title: str,
    predictors: Sequence[Evaluated],
    *,
    hands: HandModel,
    baselines: Sequence[Evaluated] = (),
    images: Sequence[SampleImage] = (),
    unit: str = "sequence",
    confidence: Calibration | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `report.html`, `numbers.json`, `numbers.csv`, `row.md` and each predictor's errors.

    Args:
      folder: is made; files of an earlier report in it are replaced.
      title: of the page.
      predictors: the first is the one the page is about; several are compared with it.
      hands: the hand model evaluated with.
      baselines: stand beside the predictors, without intervals.
      images: of the first predictor's samples.
      unit: what the intervals are drawn from: "sequence" or "sample".
      confidence: of the first predictor's joints; None: it says none.
      more: protocols of the first predictor beside those of every dataset, as in a summary.

    Returns:
      The page.

    Raises:
      ConfigError: two predictors have one name, or have no sample in common or are of different
          data. Whatever else is absent is a dash or a sentence on the page.
    """
    everything = [*predictors, *baselines]
    names = [predictor.name for predictor in everything]
    if len(set(names)) != len(names):
        raise ConfigError(f"two predictors have one name among {names}")
    summaries = {one.name: summarize(one.errors, one.labels) for one in everything}
    summaries[names[0]] |= more or {}
    provenance = {predictor.name: predictor.provenance for predictor in everything}
    broken_down = {predictor.name: breakdowns(predictor) for predictor in predictors}
    comparison = compare(predictors, unit=unit) if len(predictors) > 1 else None
    reliable = reliability(confidence, predictors[0].errors)
    numbers = {
        "unit": "mm",
        "pck_thresholds_mm": PCK_THRESHOLDS_MM,
        "provenance": provenance,
        "results": summaries,
        "breakdowns": {
            name: {part.attribute: part.groups for part in parts}
            for name, parts in broken_down.items()
        },
        "comparison": _plain(comparison),
        "confidence": _plain(reliable),
    }
    first = predictors[0].provenance
    caption = ", ".join(
        [
            split_title(first),
            *(str(first.get(key)) for key in ("checkpoint_step", "hand_model_sha256")),
        ]
    )
    page = html_page(
        title,
        summaries=summaries,
        provenance=provenance,
        baselines=[predictor.name for predictor in baselines],
        broken_down=broken_down[predictors[0].name],
        comparison=comparison,
        reliable=reliable,
        images=images,
        hands=hands,
    )
    folder.mkdir(parents=True, exist_ok=True)
    stems = [file_name(predictor.name) for predictor in predictors]
    for place, (stem, predictor) in enumerate(zip(stems, predictors, strict=True), start=1):
        number = f"-{place}" if stems.count(stem) > 1 else ""
        save_errors(folder / f"{stem}{number}.errors.npz", predictor)
    write_json(folder / NUMBERS, numbers)
    _write(folder / TABLE, csv_table(summaries, broken_down))
    _write(folder / ROW, markdown_row(summaries, caption))
    return _write(folder / PAGE, page)


def _plain(found: Comparison | Reliability | None) -> Any:
    return None if found is None else dataclasses.asdict(found)


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as temporary:
        # JSON can hold half a surrogate pair in a name, which UTF-8 cannot.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
