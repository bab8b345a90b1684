"""How well a method says which hands are there, reduced on the host in float64.

- `accuracy` (InterNet, Moon et al. 2020): of the samples, those where both hands' decisions are
  right.
- `AP`, average precision: the area under the steps of precision over recall, as the threshold goes
  down the scores of all hands; hands of one score pass it together.
- `AUC`, the area under the ROC curve: of the pairs of a hand that is there and one that is not,
  those with the higher score on the first, ties half (Mann and Whitney 1947).
- `side_accuracy`: of the samples of one hand, those with the higher score on its side. A tie names
  no side.

AP and AUC need hands that are there and hands that are not; of others they would say nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from er_jax.evaluation.types import PRESENT, Presence

METRICS = ("accuracy", "AP", "AUC", "side_accuracy")


def handedness(
    presence: Presence | None, subsets: Mapping[str, Bool[np.ndarray, "N"]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric → subset → {value, count}, of the samples whose hand type is annotated.

    Args:
      presence: collected; None where the method does not say it.
      subsets: masks of samples by name.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {metric: {} for metric in METRICS}
    for name, rows in subsets.items():
        if presence is None:
            numbers = dict.fromkeys(METRICS, (0.0, 0))
        else:
            score, truth, valid = (
                np.asarray(x)[rows] for x in (presence.score, presence.truth, presence.valid)
            )
            numbers = _numbers(score[valid].astype(np.float64), truth[valid])
        for metric, (value, count) in numbers.items():
            result[metric][name] = {"value": float(value) if count else None, "count": count}
    return result


def _numbers(
    score: Float[np.ndarray, "N 2"], truth: Bool[np.ndarray, "N 2"]
) -> dict[str, tuple[float, int]]:
    """Metric → (value, count of samples); the value of none is of no meaning."""
    right = ((score > PRESENT) == truth).all(-1)
    one = truth.sum(-1) == 1
    own, other = (score[one][hands[one]] for hands in (truth, ~truth))
    told_apart = len(truth) if truth.any() and not truth.all() else 0
    precision, auc = _ranked(score.ravel(), truth.ravel()) if told_apart else (0.0, 0.0)
    return {
        "accuracy": (right.sum() / max(len(right), 1), len(right)),
        "AP": (precision, told_apart),
        "AUC": (auc, told_apart),
        "side_accuracy": ((own > other).sum() / max(len(own), 1), len(own)),
    }


def _ranked(score: Float[np.ndarray, "M"], truth: Bool[np.ndarray, "M"]) -> tuple[float, float]:
    """Average precision and area under the ROC curve; some are true and some are not."""
    thresholds, place = np.unique(-score, return_inverse=True)  # from the highest score down
    positives = np.bincount(place, truth, len(thresholds))
    negatives = np.bincount(place, ~truth, len(thresholds))
    found, wrong = np.cumsum(positives), np.cumsum(negatives)
    precision = found / (found + wrong)
    average = (positives * precision).sum() / found[-1]
    above = found - positives / 2
    return float(average), float((negatives * above).sum() / (found[-1] * wrong[-1]))
