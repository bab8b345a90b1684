"""The table, chart and numbers of variants trained from several seeds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.annotated_split import split_title
from er_jax.evaluation.bootstrap import CONFIDENCE, Interval
from er_jax.evaluation.results import Evaluated
from er_jax.evaluation.seeds import Ablation, ablation
from er_jax.evaluation.summary import headline, summarize
from er_jax.report.charts import seeds_chart
from er_jax.utils.atomic_write import atomic_write, write_json

TABLE = "ablations.md"


def write_ablation(
    folder: Path,
    variants: Sequence[str],
    seeds: Sequence[int],
    results: Sequence[Sequence[Evaluated]],
    baseline: Evaluated,
) -> Path:
    """Writes `ablations.md`, `.json` and `.svg`; arguments as of `ablation`.

    Args:
      folder: that is there.
      variants: names.
      seeds: two or more.
      results: of each seed, of each variant.
      baseline: a constant prediction on the same split, to see that anything was learnt.

    Returns:
      The Markdown table.
    """
    compared = ablation(variants, seeds, results)
    metric = compared.metric
    constant = headline(summarize(baseline.errors), [metric])[metric]
    content = {
        "unit": "mm",
        "confidence": CONFIDENCE,
        **dataclasses.asdict(compared),
        "verdicts": [compared.verdict(other) for other in range(len(variants) - 1)],
        "baseline": {baseline.name: constant},
    }
    chart = seeds_chart(
        f"{metric}, {len(seeds)} seeds and the mean's {CONFIDENCE:.0%} interval",
        dict(zip(variants, compared.values[metric], strict=True)),
        compared.means[metric],
    )
    write_json(folder / "ablations.json", content)
    _write(folder / "ablations.svg", chart)
    return _write(folder / TABLE, markdown(compared, baseline.name, constant))


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def markdown(compared: Ablation, baseline_name: str, baseline_mm: float | None) -> str:
    """The table as it can stand in a document, with what it measured."""
    reference = compared.variants[0]
    lines = [
        f"| network | parameters | MPJPE [mm] | minus {reference}: over seeds "
        f"| over {compared.drawn} | p (Holm) | verdict |",
        "|" + "---|" * 7,
    ]
    for place, name in enumerate(compared.variants):
        mean = compared.means[compared.metric][place]
        cells = [name, f"{compared.parameters[place]:,}", _interval(mean)]
        if place:
            other = place - 1
            cells += [
                _interval(compared.differences[compared.metric][other], sign=True),
                _interval(compared.resampled[compared.metric][other], sign=True),
                f"{compared.p_values[other]:.3f}",
                compared.verdict(other),
            ]
        else:
            cells += ["", "", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    if baseline_mm is not None:
        lines.append(f"| {baseline_name} | | {baseline_mm:.2f} | | | | |")
    return "\n".join([*lines, "", *_words(compared), "", *_other_metrics(compared)]) + "\n"


def _other_metrics(compared: Ablation) -> list[str]:
    others = [metric for metric in compared.values if metric != compared.metric]
    lines = [
        f"Other metrics, difference to {compared.variants[0]} in mm with its interval over seeds, "
        "not corrected for their number:",
        "",
        "| metric | " + " | ".join(compared.variants) + " |",
        "|" + "---|" * (len(compared.variants) + 1),
    ]
    for metric in others:
        differences = (_interval(one, sign=True) for one in compared.differences[metric])
        cells = [metric, f"{compared.means[metric][0].value:.2f}", *differences]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _words(compared: Ablation) -> list[str]:
    provenance = compared.provenance
    lines = [
        f"MPJPE is {compared.metric}: mean over {len(compared.seeds)} seeds "
        f"({', '.join(map(str, compared.seeds))}) of {compared.steps:,} steps each, on "
        f"{compared.samples:,} samples of {compared.sequences} sequences of "
        f"{split_title(provenance)}; trained and evaluated on "
        f"{provenance.get('device')}. The runs of one seed saw the same batches in the same order. "
        f"In brackets {CONFIDENCE:.0%} intervals: over seeds Student's t, paired by seed; over "
        f"{compared.drawn} the paired bootstrap on errors averaged over the seeds. A difference is "
        "called worse or better where both exclude zero and the t test's p, corrected for "
        f"{len(compared.variants) - 1} comparisons, is below {1 - CONFIDENCE:.2f}; not significant "
        "does not mean that there is none.",
    ]
    if provenance.get("hand_model") == "stand-in":
        lines += [
            "",
            "This measured small networks, trained briefly on drawn images of the stand-in hand. "
            "It says that the switches work and what the modules do there; it neither confirms nor "
            "refutes the paper's ablation on InterHand2.6M.",
        ]
    return lines


def _interval(interval: Interval, *, sign: bool = False) -> str:
    form = "+.2f" if sign else ".2f"
    if interval.low is None or interval.high is None:
        return f"{format(interval.value, form)} [–]"
    low, high = format(interval.low, form), format(interval.high, form)
    return f"{format(interval.value, form)} [{low}, {high}]"
