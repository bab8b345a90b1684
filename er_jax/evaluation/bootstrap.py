"""Predictors side by side on the same samples, with intervals by the paired bootstrap.

Efron and Tibshirani, "An introduction to the bootstrap", 1993: what is drawn again, with
replacement, are whole sequences, because the frames of one recording, seen from many cameras, are
far from independent; every predictor is scored on the same draw, so that what is hard for all
cancels in the differences. Where all samples are of one sequence, the samples themselves are drawn,
which says less; a metric that fewer than two of the drawn things have gets no interval.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from er_jax.evaluation.results import Evaluated, paired
from er_jax.evaluation.types import SampleErrors
from er_jax.supervision.targets import INTERACTING

COMPARED = (
    "scale_aligned/MPJPE/all",
    "scale_aligned/MPJPE/single",
    "scale_aligned/MPJPE/interacting",
    "scale_aligned/MPVPE/all",
    "wrist_aligned/MPJPE/all",
    "wrist_aligned/MPVPE/all",
    "wrist_aligned/MRRPE/interacting",
    "wrist_aligned/RRVE/interacting",
    "procrustes/PA-MPJPE/all",
    "procrustes/PA-MPVPE/all",
    "camera_space/CS-MPJPE/all",
    "camera_space/MRPE/all",
)
CONFIDENCE = 0.95
RESAMPLES = 2000
FEW_UNITS = 20  # below it percentile intervals are known to be too narrow
_DRAWS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval, mm; None where nothing tells them."""

    value: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Predictors on their common samples; metrics without a sample are left out.

    Attributes:
      names: of the predictors; the first is what the others are compared with.
      samples: how many they have in common.
      sequences: that these are of.
      unit: what was drawn again: "sequence", or "sample" where asked for or where all samples are
          of one sequence.
      units: how many there are.
      values: metric path → one interval a predictor.
      differences: metric path → of each predictor but the first, it minus the first.
    """

    names: list[str]
    samples: int
    sequences: int
    unit: str
    units: int
    values: dict[str, list[Interval]]
    differences: dict[str, list[Interval]]


def compare(
    predictors: Sequence[Evaluated], *, unit: str = "sequence", resamples: int = RESAMPLES
) -> Comparison:
    """Compares predictors with the first of them.

    Args:
      predictors: evaluated on the same split.
      unit: "sequence", or "sample" where samples are independent.
      resamples: draws of the bootstrap.

    Raises:
      ValueError: see `paired`.
    """
    predictors = paired(list(predictors))
    labels = predictors[0].labels
    sequences = len(np.unique(labels.sequence))
    unit = unit if sequences > 1 else "sample"
    column = labels.sequence if unit == "sequence" else labels.sample_id
    names, group = np.unique(column, return_inverse=True)
    values, differences = {}, {}
    for metric in COMPARED:
        scores = [
            _scores(predictor.errors, metric, group, len(names), resamples)
            for predictor in predictors
        ]
        if np.isnan([score[0] for score in scores]).any():
            continue
        known = all(_units_with(predictor.errors, metric, group) > 1 for predictor in predictors)
        values[metric] = [_interval(score, known) for score in scores]
        differences[metric] = [_interval(score - scores[0], known) for score in scores[1:]]
    return Comparison(
        names=[predictor.name for predictor in predictors],
        samples=len(group),
        sequences=sequences,
        unit=unit,
        units=len(names),
        values=values,
        differences=differences,
    )


def _units_with(errors: SampleErrors, metric: str, group: Int[np.ndarray, "N"]) -> int:
    _, counts = metric_sums(errors, metric)
    return len(np.unique(group[counts.any(1)]))


def _interval(scores: Float[np.ndarray, "draws"], known: bool) -> Interval:
    """The first score is of the sample itself, the others of its draws."""
    if not known:
        return Interval(float(scores[0]), None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(scores[1:], [tail, 1 - tail])
    return Interval(float(scores[0]), float(low), float(high))


def _scores(
    errors: SampleErrors,
    metric: str,
    group: Int[np.ndarray, "N"],
    groups: int,
    resamples: int,
) -> Float[np.ndarray, "draws"]:
    """The metric on the samples as they are, then on every draw; the same draws at every call."""
    totals, counts = metric_sums(errors, metric)
    columns = totals.shape[1]
    summed = np.zeros((groups, 2 * columns))
    np.add.at(summed, group, np.concatenate([totals, counts], axis=1))

    def score(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ summed
        with np.errstate(invalid="ignore", divide="ignore"):
            means = drawn[:, :columns] / drawn[:, columns:]
        used = ~np.isnan(means)
        return np.where(used, means, 0).sum(1) / np.where(used.any(1), used.sum(1), np.nan)

    random = np.random.default_rng(0)
    scores = [score(np.ones((1, groups)))]
    at_once = max(_DRAWS_AT_ONCE // groups, 1)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        draws = random.integers(groups, size=(count, groups))
        draws += np.arange(count)[:, None] * groups
        weights = np.bincount(draws.ravel(), minlength=count * groups).reshape(count, groups)
        scores.append(score(weights.astype(np.float64)))
    return np.concatenate(scores)


def metric_sums(
    errors: SampleErrors, metric: str
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
    """A metric as the mean over K columns of Σ totals / Σ counts over the samples.

    The columns of MPJPE are its joints, of each list by itself under `all`; other metrics have one.
    What the predictor does not say has no sample.
    """
    protocol, name, subset = metric.split("/")
    interacting = np.asarray(errors.attributes.hand_type) == INTERACTING
    subsets = {"single": ~interacting, "interacting": interacting, "all": interacting >= 0}
    if name in ("MRRPE", "RRVE"):
        kind = "rel_trans" if name == "MRRPE" else "rel_vertex"
        values, valid = getattr(errors, f"{kind}_mm"), getattr(errors, f"{kind}_valid")
        totals, counts = _flat(values, valid)
        return totals * subsets[subset][:, None], counts * subsets[subset][:, None]
    hands = getattr(errors, protocol)
    if hands is None:
        nothing = np.zeros((len(interacting), 1))
        return nothing, nothing
    if name.endswith("MPJPE"):
        totals, counts = _flat(hands.joint_mm, hands.joint_valid)
        lists = ("single", "interacting") if subset == "all" else (subset,)
        masks = [subsets[part][:, None] for part in lists]
        totals, counts = (np.concatenate([x * m for m in masks], 1) for x in (totals, counts))
        return totals, counts
    of_hands = (
        (hands.wrist_mm, hands.wrist_valid)
        if name == "MRPE"
        else (hands.vertex_mm, hands.vertex_valid)
    )
    totals, counts = (x.sum(1, keepdims=True) for x in _flat(*of_hands))
    if protocol == "scale_aligned":  # one value a sample, the mean of its hands
        totals, counts = totals / np.maximum(counts, 1), np.minimum(counts, 1)
    mask = subsets[subset][:, None]
    return totals * mask, counts * mask


def _flat(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    valid = np.asarray(valid).reshape(len(valid), -1)
    values = np.asarray(values, np.float64).reshape(len(valid), -1)
    return np.where(valid, values, 0), valid.astype(np.float64)
