"""The report as one HTML page that needs nothing beside it; its words are in `page.html.jinja`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data_pipeline.annotated_split import split_title
from er_jax.evaluation.bootstrap import CONFIDENCE, FEW_UNITS, Comparison, Interval
from er_jax.evaluation.breakdowns import METRICS, Breakdown
from er_jax.evaluation.calibration import LEFT_OUT, Reliability
from er_jax.evaluation.summary import NOTHING, SUBSETS
from er_jax.evaluation.types import PROTOCOLS
from er_jax.mano import HAND21, HANDS, HandModel
from er_jax.report.charts import (
    HandDrawing,
    breakdown_chart,
    draw_hands,
    hand_chart,
    pck_chart,
    reliability_chart,
)
from er_jax.report.sample_images import SampleImage
from er_jax.report.tables import PAPER_COLUMNS, decimals_of

Summaries = Mapping[str, Mapping[str, Any]]

_JOINT_METRIC = dict.fromkeys(PROTOCOLS, "MPJPE") | {"procrustes": "PA-MPJPE"}
_CHARTED = ("scale_aligned/MPJPE/all", "wrist_aligned/MPJPE/all", "procrustes/PA-MPJPE/all")
_GROUPS_SHOWN = 12
_NOTHING = dict.fromkeys(SUBSETS, NOTHING)


def html_page(
    title: str,
    *,
    summaries: Summaries,
    provenance: Mapping[str, Mapping[str, Any]],
    baselines: Sequence[str],
    broken_down: Sequence[Breakdown],
    comparison: Comparison | None,
    reliable: Reliability | None,
    images: Sequence[SampleImage],
    hands: HandModel,
) -> str:
    """The whole page; whatever is absent is a dash or a sentence.

    Args:
      title: of the page.
      summaries: of every predictor and baseline; the first is the one the page is about.
      provenance: of the same.
      baselines: which of these are baselines.
      broken_down: the first predictor's breakdowns.
      comparison: of the predictors, where there are several.
      reliable: how well the first predictor's confidence foretells its errors; None: it says none.
      images: of the first predictor's samples.
      hands: to draw the errors of joints on.
    """
    main = next(iter(summaries))
    templates = Environment(
        loader=PackageLoader("er_jax", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals["zip"] = zip
    templates.filters |= {"number": _number, "thousands": _thousands, "interval": _interval_text}
    return templates.get_template("page.html.jinja").render(
        title=title,
        main=main,
        predictors=list(summaries),
        main_provenance=provenance[main],
        split_title=split_title(provenance[main]),
        paper_columns=list(PAPER_COLUMNS.values()),
        headlines={name: _headline(summary) for name, summary in summaries.items()},
        baselines=baselines,
        comparison=comparison,
        reliable=reliable,
        reliability_chart=Markup(reliability_chart(reliable)) if reliable else "",
        left_out=[f"{share:.0%}" for share in LEFT_OUT],
        confidence=CONFIDENCE,
        few_units=FEW_UNITS,
        protocols=[_protocol(name, summaries) for name in summaries[main]],
        joints=list(_joints(summaries[main], draw_hands(hands))),
        breakdowns=[_breakdown(part) for part in broken_down],
        breakdown_metrics=[metric.split("/") for metric in METRICS],
        images=images,
        provenance=provenance,
        provenance_fields=list(
            dict.fromkeys(field for one in provenance.values() for field in one)
        ),
    )


def _headline(summary: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], int]]:
    paths = (path.split("/") for path in PAPER_COLUMNS)
    return [(summary[p][m][s], decimals_of(m)) for p, m, s in paths]


def _protocol(protocol: str, summaries: Summaries) -> dict[str, Any]:
    """Rows of the numbers that any predictor has, and the curves where there are any."""
    found = [summary.get(protocol, {}) for summary in summaries.values()]
    metrics = dict.fromkeys(metric for numbers in found for metric in numbers)
    rows = []
    for metric in metrics:
        for subset in SUBSETS:
            numbers = [one.get(metric, _NOTHING)[subset] for one in found]
            if any(number["count"] for number in numbers):
                rows.append((metric, subset, numbers, decimals_of(metric)))
    pck = {
        name: summary[protocol]["PCK"]["all"]
        for name, summary in summaries.items()
        if "PCK" in metrics
    }
    curves = {name: number["curve"] for name, number in pck.items()}
    any_curve = any(number["count"] for number in pck.values())
    chart = Markup(pck_chart(f"PCK, {protocol}, all samples", curves)) if any_curve else ""
    return {"name": protocol, "rows": rows, "chart": chart, "has_joints": bool(pck)}


def _joints(
    summary: Mapping[str, Any], drawings: Sequence[HandDrawing]
) -> Iterator[dict[str, Any]]:
    """Yields, for each protocol with joints, charts of both hands and means over their parts."""
    for protocol in PROTOCOLS:
        metric = summary[protocol][_JOINT_METRIC[protocol]]
        errors = {
            kind: np.array(metric[kind]["per_joint"], float).reshape(2, len(HAND21))
            for kind in ("interacting", "single")
            if metric[kind]["count"]
        }
        if not errors:
            continue
        limit = max(float(np.nanmax(values)) for values in errors.values()) or 1.0
        charts = [
            Markup(hand_chart(drawings, values, f"{protocol}, {kind}, mm", limit))
            for kind, values in errors.items()
        ]
        parts = [*HANDS, *metric["all"]["per_finger"]]
        means = {
            kind: {**metric[kind]["per_hand"], **metric[kind]["per_finger"]}
            for kind in (*errors, "all")
        }
        yield {"name": protocol, "charts": charts, "parts": parts, "means": means}


def _breakdown(breakdown: Breakdown) -> dict[str, Any]:
    """A table and a chart of all groups, or of many the ones with the most samples."""
    order = sorted(breakdown.groups.items(), key=lambda item: -item[1]["samples"])
    many = len(order) > _GROUPS_SHOWN
    groups = dict(order[:_GROUPS_SHOWN]) if many else breakdown.groups
    charted = [m for m in _CHARTED if any(group[m]["count"] for group in groups.values())]
    shown = Breakdown(breakdown.attribute, breakdown.title, groups)
    return {
        "title": breakdown.title,
        "left_out": len(order) - len(groups),
        "chart": Markup(breakdown_chart(shown, charted)) if charted else "",
        "rows": [
            (label, group["samples"], [group[metric] for metric in METRICS])
            for label, group in groups.items()
        ],
    }


def _number(value: float | None, decimals: int = 2) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _thousands(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _interval_text(interval: Interval, form: str) -> Markup:
    """The value, and below it its bounds, in a format such as "+.2f"."""
    bounds = "–"
    if interval.low is not None and interval.high is not None:
        bounds = f"{format(interval.low, form)}, {format(interval.high, form)}"
    return Markup("{}<br><small>[{}]</small>").format(format(interval.value, form), bounds)
