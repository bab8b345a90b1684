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

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from er_jax.evaluation.bootstrap import COMPARED, CONFIDENCE, Interval, compare
from er_jax.evaluation.results import Evaluated, paired
from er_jax.evaluation.summary import headline, summarize
from er_jax.utils.errors import ConfigError

MAIN_METRICS = ("scale_aligned/MPJPE/all", "wrist_aligned/MPJPE/all")
"""What the verdicts are about: the first that the split's annotations allow."""


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
      p_values: of each variant but the first, for `metric`: paired t test over seeds,
          corrected by Holm.
      metric: path of what the verdicts are about.
      provenance: what all runs share.
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
    metric: str
    provenance: dict[str, object]

    @property
    def drawn(self) -> str:
        """Returns what `resampled` drew."""
        return "sequences" if self.sequences > 1 else "samples (all of one sequence)"

    def verdict(self, other: int) -> str:
        """Returns what is known of the variant at a place in `differences`, by `metric`."""
        intervals = self.differences[self.metric][other], self.resampled[self.metric][other]
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
      ConfigError: one seed only; runs of different lengths; no joint to compare; or see `paired`.
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
    metric = next((metric for metric in MAIN_METRICS if metric in values), None)
    if metric is None:
        raise ConfigError(
            f"the runs cannot be compared: none of {', '.join(MAIN_METRICS)} is known"
        )
    differences = {path: rows[1:] - rows[0] for path, rows in values.items()}
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
        p_values=holm(_p_values(differences[metric])).tolist(),
        metric=metric,
        provenance=_shared([result.provenance for result in every]),
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
    """Returns p of the t test that the mean difference is zero; 1 where all of them are zero."""
    p_values = stats.ttest_1samp(differences, 0, axis=1).pvalue
    return np.where((differences == 0).all(1), 1, p_values)


def holm(p_values: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """p-values corrected for their number, so that one in all of them is wrong at their level."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return corrected


def _shared(every: Sequence[dict[str, object]]) -> dict[str, object]:
    first = every[0]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in every)}
