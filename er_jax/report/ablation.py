"""Variants of a network, each trained from several seeds: what is due to the variant, what to luck.

Two things are drawn at random, and each has its interval. Seeds: initial weights, the order of the
data and its augmentation; a t-interval, paired by seed, says what another training would give.
Samples: the paired bootstrap of `er_jax.evaluation.bootstrap`, on errors averaged over the seeds,
says what other sequences would give. A difference is called one only where both exclude zero, the
first after Holm's correction for the number of variants ("A simple sequentially rejective multiple
test procedure", 1979).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from er_jax.evaluation.bootstrap import COMPARED, CONFIDENCE, Interval, compare
from er_jax.evaluation.results import Evaluated, paired
from er_jax.evaluation.summary import headline, summarize
from er_jax.report.charts import seeds_chart
from er_jax.utils.atomic_write import atomic_write, write_json
from er_jax.utils.errors import ConfigError

MAIN_METRIC = "scale_aligned/MPJPE/all"
"""What the verdicts are about."""

TABLE = "ablations.md"


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Variants by the seeds that all of them were trained from; errors in mm.

    Attributes:
      variants: names; the first is what the others are compared with.
      parameters: of each variant's network.
      seeds: of each training.
      steps: optimizer steps of each training.
      samples: evaluated on.
      sequences: that these are of.
      values: metric path → of each variant, of each seed.
      means: metric path → of each variant, with its t-interval over seeds.
      differences: metric path → of each variant but the first, minus the first; t-interval over
          seeds, paired by seed.
      resampled: the same differences with intervals of the paired bootstrap over sequences, or
          over samples where all are of one sequence.
      p_values: of each variant but the first, for `MAIN_METRIC`: paired t test over seeds,
          corrected by Holm.
      facts: provenance that all runs share.
    """

    variants: list[str]
    parameters: list[int]
    seeds: list[int]
    steps: int
    samples: int
    sequences: int
    values: dict[str, list[list[float]]]
    means: dict[str, list[Interval]]
    differences: dict[str, list[Interval]]
    resampled: dict[str, list[Interval]]
    p_values: list[float]
    facts: dict[str, object]

    @property
    def drawn(self) -> str:
        """What `resampled` drew."""
        return "sequences" if self.sequences > 1 else "samples (all of one sequence)"

    def verdict(self, other: int) -> str:
        """What is known of the variant at a place in `differences`, by `MAIN_METRIC`."""
        intervals = self.differences[MAIN_METRIC][other], self.resampled[MAIN_METRIC][other]
        known = all(interval.excludes_zero for interval in intervals)
        if not known or self.p_values[other] >= 1 - CONFIDENCE:
            return "not significant"
        return "worse" if intervals[0].value > 0 else "better"


def ablation(
    variants: Sequence[str], seeds: Sequence[int], results: Sequence[Sequence[Evaluated]]
) -> Ablation:
    """Compares variants over seeds.

    Args:
      variants: names; the first is what the others are compared with.
      seeds: two or more.
      results: of each seed, of each variant.

    Raises:
      ConfigError: one seed only; runs of different lengths; or see `paired`.
    """
    if len(seeds) < 2:
        raise ConfigError("the spread over seeds needs two of them or more")
    every = [result for of_seed in results for result in of_seed]
    steps = {result.provenance["checkpoint_step"] for result in every}
    if len(steps) > 1:
        raise ConfigError(f"the runs cannot be compared: they have {sorted(steps)} steps")
    matched = iter(paired(every))
    results = [[next(matched) for _ in of_seed] for of_seed in results]
    first = results[0]

    by_variant = list(zip(*results, strict=True))
    named = zip(variants, by_variant, strict=True)
    compared = compare([mean_over_seeds(name, of_seeds) for name, of_seeds in named])
    summaries = [[summarize(one.errors) for one in of_seeds] for of_seeds in by_variant]
    values = {
        metric: np.array([[headline(s, [metric])[metric] for s in row] for row in summaries])
        for metric in COMPARED
        if metric in compared.values
    }
    differences = {metric: rows[1:] - rows[0] for metric, rows in values.items()}
    return Ablation(
        variants=list(variants),
        parameters=[result.provenance["parameters"] for result in first],
        seeds=list(seeds),
        steps=steps.pop(),
        samples=compared.samples,
        sequences=compared.sequences,
        values={metric: rows.tolist() for metric, rows in values.items()},
        means={metric: [over_seeds(row) for row in rows] for metric, rows in values.items()},
        differences={m: [over_seeds(row) for row in rows] for m, rows in differences.items()},
        resampled=compared.differences,
        p_values=holm(_p_values(differences[MAIN_METRIC])).tolist(),
        facts=_shared([result.provenance for result in every]),
    )


def mean_over_seeds(name: str, of_seeds: Sequence[Evaluated]) -> Evaluated:
    """Each sample's errors averaged over trainings of one variant, on the same samples in order.

    Every metric of `COMPARED` is linear in the errors, so that the metric of the averaged errors is
    the average of the trainings' metrics.
    """

    def mean(*values: np.ndarray) -> np.ndarray:
        kept = values[0].dtype.kind != "f"
        return values[0] if kept else np.asarray(np.mean(values, axis=0, dtype=np.float64))

    errors = jax.tree.map(mean, *(one.errors for one in of_seeds))
    return dataclasses.replace(of_seeds[0], name=name, errors=errors)


def over_seeds(values: Float[np.ndarray, "seeds"]) -> Interval:
    """The mean and its t-interval."""
    count = len(values)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return Interval(*(float(values.mean() + side * half) for side in (0, -1, 1)))


def _p_values(differences: Float[np.ndarray, "tests seeds"]) -> Float[np.ndarray, "tests"]:
    """Of the t test that the mean difference is zero; 1 where all of them are zero."""
    p_values = stats.ttest_1samp(differences, 0, axis=1).pvalue
    return np.where((differences == 0).all(1), 1, p_values)


def holm(p_values: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """p-values corrected for their number, so that one in all of them is wrong at their level."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return corrected


def _shared(facts: Sequence[dict[str, object]]) -> dict[str, object]:
    first = facts[0]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in facts)}


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
    constant = headline(summarize(baseline.errors), [MAIN_METRIC])[MAIN_METRIC]
    content = {
        "unit": "mm",
        "confidence": CONFIDENCE,
        **dataclasses.asdict(compared),
        "verdicts": [compared.verdict(other) for other in range(len(variants) - 1)],
        "baseline": {baseline.name: constant},
    }
    chart = seeds_chart(
        f"MPJPE (scale_aligned), {len(seeds)} seeds and the mean's {CONFIDENCE:.0%} interval",
        dict(zip(variants, compared.values[MAIN_METRIC], strict=True)),
        compared.means[MAIN_METRIC],
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
        mean = compared.means[MAIN_METRIC][place]
        cells = [name, f"{compared.parameters[place]:,}", _interval(mean)]
        if place:
            other = place - 1
            cells += [
                _interval(compared.differences[MAIN_METRIC][other], sign=True),
                _interval(compared.resampled[MAIN_METRIC][other], sign=True),
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
    others = [metric for metric in compared.values if metric != MAIN_METRIC]
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
    facts = compared.facts
    lines = [
        f"MPJPE is {MAIN_METRIC}: mean over {len(compared.seeds)} seeds "
        f"({', '.join(map(str, compared.seeds))}) of {compared.steps:,} steps each, on "
        f"{compared.samples:,} samples of {compared.sequences} sequences of "
        f"{facts.get('dataset')}, split {facts.get('split')}; trained and evaluated on "
        f"{facts.get('device')}. The runs of one seed saw the same batches in the same order. In "
        f"brackets {CONFIDENCE:.0%} intervals: over seeds Student's t, paired by seed; over "
        f"{compared.drawn} the paired bootstrap on errors averaged over the seeds. A difference is "
        "called worse or better where both exclude zero and the t test's p, corrected for "
        f"{len(compared.variants) - 1} comparisons, is below {1 - CONFIDENCE:.2f}; not significant "
        "does not mean that there is none.",
    ]
    if facts.get("hand_model") == "stand-in":
        lines += [
            "",
            "This measured small networks, trained briefly on drawn pictures of the stand-in hand. "
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
