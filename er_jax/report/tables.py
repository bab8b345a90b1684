"""The report's numbers as flat rows, as CSV, and as a row of a paper's table."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from er_jax.evaluation.breakdowns import Breakdown
from er_jax.evaluation.summary import PCK_THRESHOLDS_MM, unit_of
from er_jax.mano import HAND21, HANDS

PAPER_COLUMNS = {
    "scale_aligned/MPJPE/all": "MPJPE (scale)",
    "scale_aligned/MPVPE/all": "MPVPE (scale)",
    "wrist_aligned/MPJPE/all": "MPJPE (wrist)",
    "wrist_aligned/MPVPE/all": "MPVPE (wrist)",
    "wrist_aligned/MRRPE/interacting": "MRRPE",
    "procrustes/PA-MPJPE/all": "PA-MPJPE",
    "procrustes/PA-MPVPE/all": "PA-MPVPE",
    "camera_space/MRPE/all": "MRPE",
    "handedness/accuracy/all": "handedness (share)",
}
"""What the Markdown row holds, mm but where it says a share; the alignment is part of a column's
name."""

_COLUMNS = ("method", "protocol", "metric", "subset", "group", "value", "count")


def csv_table(
    summaries: Mapping[str, Mapping[str, Any]], broken_down: Mapping[str, Sequence[Breakdown]]
) -> str:
    """Every number in long form: one a line, with the group of samples or joints it is of."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for predictor, summary in summaries.items():
        writer.writerows((predictor, *row) for row in _summary_rows(summary))
    for predictor, parts in broken_down.items():
        writer.writerows((predictor, *row) for part in parts for row in _breakdown_rows(part))
    return buffer.getvalue()


def _summary_rows(summary: Mapping[str, Any]) -> Iterator[tuple]:
    joints = [f"{hand} {joint}" for hand in HANDS for joint in HAND21]
    for protocol, metrics in summary.items():
        for metric, subsets in metrics.items():
            for subset, number in subsets.items():
                path, count = (protocol, metric, subset), number["count"]
                yield *path, "", number["value"], count
                if "median" in number:
                    yield *path, "median", number["median"], count
                for kind in ("per_hand", "per_finger"):
                    for name, value in number.get(kind, {}).items():
                        yield *path, name, value, count
                per_joint = zip(
                    joints,
                    number.get("per_joint", ()),
                    number.get("per_joint_count", ()),
                    strict=False,
                )
                yield from ((*path, joint, value, n) for joint, value, n in per_joint)
                for threshold, share in zip(
                    PCK_THRESHOLDS_MM, number.get("curve", ()), strict=False
                ):
                    yield *path, f"within {threshold} mm", share, count


def _breakdown_rows(breakdown: Breakdown) -> Iterator[tuple]:
    for label, group in breakdown.groups.items():
        for metric, number in group.items():
            if metric != "samples":
                place = (*metric.split("/"), f"{breakdown.attribute}: {label}")
                yield *place, number["value"], number["count"]


def decimals_of(metric: str) -> int:
    """How many decimals of a metric a table shows: more of a share than of a length."""
    return 2 if unit_of(metric) else 3


def markdown_row(summaries: Mapping[str, Mapping[str, Any]], caption: str) -> str:
    """A table in Markdown with one row a predictor, errors in mm."""
    head = ["Predictor", "samples", *PAPER_COLUMNS.values()]
    lines = [
        f"<!-- {caption.replace('--', '–')}; lengths in mm -->",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for predictor, summary in summaries.items():
        paths = [path.split("/") for path in PAPER_COLUMNS]
        numbers = [(summary[p][m][s], decimals_of(m)) for p, m, s in paths]
        values = ["–" if n["value"] is None else f"{n['value']:.{d}f}" for n, d in numbers]
        samples = max(number["count"] for number, _ in numbers)
        name = " ".join(predictor.replace("|", "\\|").split())
        lines.append("| " + " | ".join([name, f"{samples:,}", *values]) + " |")
    return "\n".join(lines) + "\n"
