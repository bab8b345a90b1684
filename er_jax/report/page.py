"""The report as one HTML page that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from er_jax.evaluation.bootstrap import CONFIDENCE, FEW_UNITS, Comparison, Interval
from er_jax.evaluation.breakdowns import METRICS, Breakdown
from er_jax.evaluation.summary import SUBSETS
from er_jax.evaluation.types import PROTOCOLS
from er_jax.mano import HAND21, HANDS, HandModel
from er_jax.report.charts import breakdown_chart, draw_hands, hand_chart, pck_chart
from er_jax.report.pictures import SamplePicture
from er_jax.report.tables import PAPER_COLUMNS

Summaries = Mapping[str, Mapping[str, Any]]

_MEANING = {
    "wrist_aligned": "Prediction and truth of each hand relative to its own wrist; joints as "
    "annotated (the protocol of InterNet and InterWild).",
    "scale_aligned": "Joints from both meshes, relative to the middle finger's first joint, the "
    "prediction scaled to the true length from the wrist to it, hand by hand (the protocol of "
    "IntagHand, and of ER's published number).",
    "procrustes": "Each hand aligned by the similarity that fits best, without reflection.",
}
_JOINT_METRIC = dict.fromkeys(PROTOCOLS, "MPJPE") | {"procrustes": "PA-MPJPE"}
_CHARTED = ("scale_aligned/MPJPE/all", "wrist_aligned/MPJPE/all", "procrustes/PA-MPJPE/all")
_GROUPS_SHOWN = 12
_NOTHING = {subset: {"value": None, "count": 0} for subset in SUBSETS}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { margin-top: 2.2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .8em; border-bottom: 1px solid #e5e5e5; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; }
td small, th small { color: #777; font-weight: normal; }
.charts { display: flex; flex-wrap: wrap; gap: 1em;
  align-items: flex-start; } .charts svg { flex: 1 1 480px; min-width: 0; max-width: 620px; }
.note { color: #666; font-size: .9em; max-width: 62em; } svg { max-width: 100%; height: auto; }
figure { margin: .6em 0; } figcaption { color: #555; font-size: .85em; }
figure img { max-width: 100%; } .better { color: #17722f; } .worse { color: #a3261f; }
.wide { overflow-x: auto; }
"""


def html_page(
    title: str,
    *,
    summaries: Summaries,
    provenance: Mapping[str, Mapping[str, Any]],
    broken_down: Sequence[Breakdown],
    comparison: Comparison | None,
    pictures: Sequence[SamplePicture],
    hands: HandModel,
) -> str:
    """The whole page.

    Args:
        title: of the page.
        summaries: of every method and baseline; the first is the one the page is about.
        provenance: of the same.
        broken_down: the first method's breakdowns.
        comparison: of the methods, where there are several.
        pictures: of the first method's samples.
        hands: to draw the errors of joints on.
    """
    main = next(iter(summaries))
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{_intro(provenance[main])}</p>',
        "<h2>At a glance</h2>",
        _headline_table(summaries),
        '<p class="note">Errors in millimetres. MPJPE (scale) and MPJPE (wrist) are of different '
        "protocols and not to be compared with each other. Below each value the samples it is the "
        "mean of; – where there is none.</p>",
    ]
    if comparison is not None:
        sections.append(_comparison_section(comparison))
    sections.append("<h2>Protocols</h2>")
    sections.extend(_protocol_section(name, summaries) for name in PROTOCOLS)
    sections.append(_joint_section(main, summaries[main], hands))
    sections.append(_breakdown_section(main, broken_down))
    sections.append(_picture_section(main, pictures))
    sections.append("<h2>Where the numbers come from</h2>")
    sections.append(_provenance_table(provenance))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _intro(facts: Mapping[str, Any]) -> str:
    parts = [f"{facts.get('dataset')}, split {facts.get('split')}", f"{facts['samples']:,} samples"]
    if facts.get("checkpoint_step") is not None:
        parts.append(f"checkpoint {facts['checkpoint_step']}")
    parts.append(f"hand model: {facts.get('hand_model')}")
    return escape("; ".join(parts))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n{body}</table></div>'


def _value(number: Mapping[str, Any], *, share: bool = False) -> str:
    if number["value"] is None:
        return f"–<br><small>{number['count']:,}</small>"
    text = f"{number['value']:.3f}" if share else f"{number['value']:.2f}"
    return f"{text}<br><small>{number['count']:,}</small>"


def _headline_table(summaries: Summaries) -> str:
    rows = []
    for name, summary in summaries.items():
        numbers = [summary[p][m][s] for p, m, s in (path.split("/") for path in PAPER_COLUMNS)]
        rows.append([escape(name), *map(_value, numbers)])
    return _table(["Method", *PAPER_COLUMNS.values()], rows)


def _protocol_section(protocol: str, summaries: Summaries) -> str:
    metrics = dict.fromkeys(m for summary in summaries.values() for m in summary[protocol])
    rows = []
    for metric in metrics:
        share = metric == "PCK" or metric.startswith("F@")
        for subset in SUBSETS:
            numbers = [s[protocol].get(metric, _NOTHING)[subset] for s in summaries.values()]
            if any(number["count"] for number in numbers):
                cells = [_value(number, share=share) for number in numbers]
                rows.append([f"{metric} <small>{subset}</small>", *cells])
    chart = pck_chart(
        f"PCK, {protocol}, all samples",
        {name: summary[protocol]["PCK"]["all"]["curve"] for name, summary in summaries.items()},
    )
    return (
        f"<h3>{protocol}</h3><p class='note'>{_MEANING[protocol]} PCK stands for the area under "
        "its curve up to 50 mm; a joint that the alignment brings together counts, with error 0."
        f"</p><div class='charts'>{_table(['', *map(escape, summaries)], rows)}{chart}</div>"
    )


def _joint_section(main: str, summary: Mapping[str, Any], hands: HandModel) -> str:
    parts, drawings = [f"<h2>Joints of {escape(main)}</h2>"], draw_hands(hands)
    for protocol in PROTOCOLS:
        metric = summary[protocol][_JOINT_METRIC[protocol]]
        kinds = [kind for kind in ("interacting", "single") if metric[kind]["count"]]
        if not kinds:
            continue
        errors = {
            kind: np.array(metric[kind]["per_joint"], float).reshape(2, len(HAND21))
            for kind in kinds
        }
        limit = max(float(np.nanmax(values)) for values in errors.values())
        parts.append(f"<h3>{protocol}</h3><div class='charts'>")
        parts += [
            hand_chart(drawings, values, f"{protocol}, {kind}, mm", limit)
            for kind, values in errors.items()
        ]
        parts.append("</div>")
        names = [*HANDS, *metric["all"]["per_finger"]]
        rows = [
            [
                kind,
                *(
                    _mm({**metric[kind]["per_hand"], **metric[kind]["per_finger"]}[n])
                    for n in names
                ),
            ]
            for kind in (*kinds, "all")
        ]
        parts.append(_table(["Mean over joints", *names], rows))
    return "\n".join(parts)


def _breakdown_section(main: str, broken_down: Sequence[Breakdown]) -> str:
    parts = [f"<h2>What makes it hard for {escape(main)}</h2>"]
    for breakdown in broken_down:
        shown, note = _shown_groups(breakdown)
        parts.append(f"<h3>{escape(breakdown.title)}</h3><p class='note'>{note}</p>")
        charted = [m for m in _CHARTED if any(g[m]["count"] for g in shown.groups.values())]
        if charted:
            parts.append(breakdown_chart(shown, charted))
        rows = [
            [escape(label), f"{group['samples']:,}", *(_value(group[metric]) for metric in METRICS)]
            for label, group in shown.groups.items()
        ]
        head = [f"{m}<br><small>{p}, {s}</small>" for p, m, s in (x.split("/") for x in METRICS)]
        parts.append(_table(["", "samples", *head], rows))
    return "\n".join(parts)


def _shown_groups(breakdown: Breakdown) -> tuple[Breakdown, str]:
    """All groups, or of many the ones with the most samples."""
    if len(breakdown.groups) <= _GROUPS_SHOWN:
        return breakdown, ""
    order = sorted(breakdown.groups.items(), key=lambda item: -item[1]["samples"])
    groups = dict(order[:_GROUPS_SHOWN])
    note = f"The {_GROUPS_SHOWN} with the most samples of {len(order)}; all are in the CSV file."
    return Breakdown(breakdown.trait, breakdown.title, groups), note


def _comparison_section(comparison: Comparison) -> str:
    first, *others = comparison.names
    head = ["Metric [mm]", escape(first)]
    for name in others:
        head += [escape(name), f"{escape(name)} − {escape(first)}"]
    rows = []
    for metric, values in comparison.values.items():
        cells = [escape(metric), _interval(values[0])]
        for value, difference in zip(values[1:], comparison.differences[metric], strict=True):
            kind = (
                ("better" if difference.value < 0 else "worse") if difference.excludes_zero else ""
            )
            cells += [
                _interval(value),
                f'<span class="{kind}">{_interval(difference, sign=True)}</span>',
            ]
        rows.append(cells)
    few = (
        f" There are only {comparison.units}: such intervals are too narrow, take them as a hint."
        if comparison.units < FEW_UNITS
        else ""
    )
    note = (
        f"On the {comparison.samples:,} samples that all have. In brackets {CONFIDENCE:.0%} "
        f"intervals of the paired bootstrap over {comparison.units:,} "
        f"{comparison.unit}s; coloured differences exclude zero.{few}"
    )
    return f"<h2>Comparison</h2>{_table(head, rows)}<p class='note'>{note}</p>"


def _interval(interval: Interval, *, sign: bool = False) -> str:
    form = "+.2f" if sign else ".2f"
    low, high = format(interval.low, form), format(interval.high, form)
    return f"{format(interval.value, form)}<br><small>[{low}, {high}]</small>"


def _picture_section(main: str, pictures: Sequence[SamplePicture]) -> str:
    if not pictures:
        return ""
    parts = [
        f"<h2>Samples of {escape(main)}</h2><p class='note'>From left to right: the picture; the "
        "prediction over it, its right hand at its true wrist and the left where the predicted "
        "relative translation puts it; the truth; prediction and truth from the camera's right.</p>"
    ]
    for group in dict.fromkeys(picture.group for picture in pictures):
        parts.append(f"<h3>{group.capitalize()}</h3>")
        parts += [
            f'<figure><img src="{picture.data_uri}" alt="{escape(picture.caption)}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
            for picture in pictures
            if picture.group == group
        ]
    return "\n".join(parts)


def _provenance_table(provenance: Mapping[str, Mapping[str, Any]]) -> str:
    fields = dict.fromkeys(field for facts in provenance.values() for field in facts)
    rows = [
        [field, *(escape(str(facts.get(field, "–"))) for facts in provenance.values())]
        for field in fields
    ]
    return _table(["", *map(escape, provenance)], rows)


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
