"""From the errors of samples to the numbers of each protocol, reduced on the host in float64.

Every number is a dict of its `value` and the `count` of samples that contributed to it; one that
no sample contributed to, or that the reconstruction does not say, is None with count 0, never NaN.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.acceleration import acceleration_errors
from er_jax.evaluation.handedness import handedness
from er_jax.evaluation.types import (
    F_SCORE_THRESHOLDS_MM,
    CameraSpaceErrors,
    HandErrors,
    SampleErrors,
)
from er_jax.mano.joints import FINGERS, HAND21, HANDS
from er_jax.supervision.targets import INTERACTING

SUBSETS = ("single", "interacting", "all")
PCK_LIMIT_MM = 50
PCK_THRESHOLDS_MM = tuple(range(PCK_LIMIT_MM + 1))
# The errors of a summary by path, all in mm and the lower the better.
ERRORS_MM = tuple(
    f"{metric}/{subset}"
    for metric in (
        *(
            "wrist_aligned/MPJPE",
            "wrist_aligned/MPVPE",
            "wrist_aligned/MRRPE",
            "wrist_aligned/RRVE",
        ),
        *("scale_aligned/MPJPE", "scale_aligned/MPVPE"),
        *("procrustes/PA-MPJPE", "procrustes/PA-MPVPE"),
        *("camera_space/CS-MPJPE", "camera_space/MRPE"),
    )
    for subset in SUBSETS
)
NOTHING: dict[str, Any] = {"value": None, "count": 0}
"""The number that no sample contributed to."""
Values = np.ndarray | Array
Tree = TypeVar("Tree")


def collect(batches: Iterable[SampleErrors]) -> SampleErrors:
    """One table of numpy arrays from the batches of `sample_errors`, without the padding.

    Raises:
      ValueError: there is no batch, or an error that should count is NaN or infinite.
    """
    tables = [_without_padding(jax.device_get(batch)) for batch in batches]
    if not tables:
        raise ValueError("no batch of errors to collect; is the dataset or the selection empty?")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *tables)


def across_hosts(samples: Tree) -> Tree:
    """The samples of all hosts, on every host; hosts may have different numbers of them.

    Args:
      samples: a tree of arrays whose first axis is that of the samples.
    """
    if jax.process_count() == 1:
        return samples
    count = len(jax.tree.leaves(samples)[0])
    counts = multihost_utils.process_allgather(np.array(count))

    def gather(values: Values) -> np.ndarray:
        padding = [(0, int(counts.max()) - count), *[(0, 0)] * (values.ndim - 1)]
        parts = multihost_utils.process_allgather(np.pad(np.asarray(values), padding))
        return np.concatenate([part[:n] for part, n in zip(parts, counts, strict=True)])

    return jax.tree.map(gather, samples)


def select(errors: SampleErrors, samples: Any) -> SampleErrors:
    """The samples of a boolean mask or of indices, in the order given."""
    return jax.tree.map(lambda value: np.asarray(value)[samples], errors)


def unit_of(metric: str) -> str:
    """The unit of a metric's values; empty for shares."""
    if metric == "acceleration":
        return "mm/frame²"
    shares = ("PCK", "depth", "accuracy", "AP", "side_accuracy")
    by_beginning = metric.removeprefix("PA-").startswith(("F@", "AUC"))
    return "" if metric in shares or by_beginning else "mm"


def summarize(errors: SampleErrors, labels: Labels | None = None) -> dict[str, dict[str, Any]]:
    """Protocol → metric → subset → {value, count, …}; units as `unit_of` says.

    MPJPE, PA-MPJPE and CS-MPJPE also have, for `single` and `interacting`, `per_joint` and
    `per_joint_count` (right Hand 21 joints, then left), and for every subset `per_finger` and
    `per_hand`. PCK has the `curve` at `PCK_THRESHOLDS_MM` and as its value the area under
    it. F-scores are left out where `sample_errors` was not asked for them. MRPE is the mean error
    of the wrists' place (the root's, Moon et al. 2019), `depth` the mean relative error of their
    depth, beside its `median`. The acceleration's count is of the samples between two others; it
    has their `frame_step`.

    Args:
      errors: collected.
      labels: of the same samples, by which they follow each other in time; None: no acceleration.
    """
    interacting = np.asarray(errors.attributes.hand_type) == INTERACTING
    subsets = {
        "single": ~interacting,
        "interacting": interacting,
        "all": np.ones_like(interacting),
    }
    wrist, scale, procrustes = errors.wrist_aligned, errors.scale_aligned, errors.procrustes

    def by_subset(values: Values, valid: Values) -> dict[str, Any]:
        return {name: _mean(values[rows], valid[rows]) for name, rows in subsets.items()}

    def joint_metrics(hand_errors: HandErrors, prefix: str) -> dict[str, Any]:
        return {
            f"{prefix}MPJPE": _joint_errors(hand_errors, interacting),
            "PCK": _pck(hand_errors, interacting),
        }

    def f_scores() -> dict[str, Any]:
        if errors.f_score is None:
            return {}
        return {
            f"F@{threshold:g}": by_subset(errors.f_score[..., index], procrustes.vertex_valid)
            for index, threshold in enumerate(F_SCORE_THRESHOLDS_MM)
        }

    def acceleration() -> dict[str, Any]:
        if labels is None:
            return dict.fromkeys(subsets, NOTHING)
        found = acceleration_errors(errors, labels)
        numbers = by_subset(found.mm, found.valid)
        step = {"frame_step": found.frame_step}
        return {name: number | step for name, number in numbers.items()}

    return {
        "wrist_aligned": {
            **joint_metrics(wrist, ""),
            "MPVPE": by_subset(wrist.vertex_mm, wrist.vertex_valid),
            "MRRPE": by_subset(errors.rel_trans_mm, errors.rel_trans_valid),
            "RRVE": by_subset(errors.rel_vertex_mm, errors.rel_vertex_valid),
            "acceleration": acceleration(),
        },
        "scale_aligned": {
            **joint_metrics(scale, ""),
            "MPVPE": by_subset(*_mean_of_hands(scale)),
        },
        "procrustes": {
            **joint_metrics(procrustes, "PA-"),
            "PA-MPVPE": by_subset(procrustes.vertex_mm, procrustes.vertex_valid),
            **f_scores(),
        },
        "camera_space": _camera_space(errors.camera_space, subsets),
        "handedness": handedness(errors.presence, subsets),
    }


def _without_padding(batch: SampleErrors) -> SampleErrors:
    errors = select(batch, np.asarray(batch.sample_mask))
    names = {
        jax.tree_util.keystr(path)
        for path, values in jax.tree.leaves_with_path(errors)
        if not np.isfinite(values).all()
    }
    bad = sorted(name for name in names if not name.startswith(".attributes"))
    if bad:
        raise ValueError(
            f"errors {', '.join(bad)} of a batch are NaN or infinite: the prediction or the truth "
            "of a valid hand is not finite"
        )
    return errors


def _camera_space(
    errors: CameraSpaceErrors | None, subsets: dict[str, Bool[np.ndarray, "N"]]
) -> dict[str, Any]:
    if errors is None:
        return {name: dict.fromkeys(subsets, NOTHING) for name in ("CS-MPJPE", "MRPE", "depth")}
    wrist_mm, depth, valid = (
        np.asarray(x) for x in (errors.wrist_mm, np.abs(errors.relative_depth), errors.wrist_valid)
    )
    of_depth = {}
    for name, rows in subsets.items():
        used = depth[rows][valid[rows]]
        median = float(np.median(used)) if used.size else None
        of_depth[name] = _mean(depth[rows], valid[rows]) | {"median": median}
    return {
        "CS-MPJPE": _joint_errors(errors, subsets["interacting"]),
        "MRPE": {name: _mean(wrist_mm[rows], valid[rows]) for name, rows in subsets.items()},
        "depth": of_depth,
    }


def _joint_errors(
    errors: HandErrors | CameraSpaceErrors, interacting: Bool[np.ndarray, "N"]
) -> dict[str, Any]:
    """Per joint the mean over samples, then the mean over the joints that any sample has.

    `all` is the mean over both lists of per-joint means, not over all samples.
    """
    lists = {}
    result = {}
    for name, rows in (("single", ~interacting), ("interacting", interacting)):
        errors_mm, valid = (np.asarray(x)[rows] for x in (errors.joint_mm, errors.joint_valid))
        count = valid.sum(0)
        with np.errstate(invalid="ignore"):
            mean = errors_mm.sum(0, dtype=np.float64, where=valid) / count
        samples = int(valid.any((1, 2)).sum())
        lists[name] = (mean[None], samples)
        result[name] = {
            **_number(_mean_of_finite(mean), samples),
            **_groups(mean[None]),
            "per_joint": [_number_or_none(value) for value in mean.reshape(-1)],
            "per_joint_count": count.reshape(-1).tolist(),
        }
    both = np.concatenate([mean for mean, _ in lists.values()])
    total = sum(samples for _, samples in lists.values())
    result["all"] = {**_number(_mean_of_finite(both), total), **_groups(both)}
    return result


def _groups(per_joint: Float[np.ndarray, "lists 2 21"]) -> dict[str, Any]:
    """Means over the joints of each finger and of each hand; the wrist belongs to no finger."""
    fingers = {
        finger: _mean_of_finite(
            per_joint[..., [i for i, name in enumerate(HAND21) if name.startswith(finger)]]
        )
        for finger in FINGERS
    }
    hands = {hand: _mean_of_finite(per_joint[:, index]) for index, hand in enumerate(HANDS)}
    return {"per_finger": fingers, "per_hand": hands}


def _mean_of_hands(errors: HandErrors) -> tuple[np.ndarray, np.ndarray]:
    """One value a sample: of its hand, or the mean of its two hands."""
    valid = np.asarray(errors.vertex_valid)
    count = valid.sum(-1)
    total = np.asarray(errors.vertex_mm).sum(-1, dtype=np.float64, where=valid)
    return total / np.maximum(count, 1), count > 0


def _pck(errors: HandErrors, interacting: Bool[np.ndarray, "N"]) -> dict[str, Any]:
    """Share of all valid joints within each threshold, and the area under that curve.

    The area, divided by the limit, is the mean of max(0, 1 − error/limit) over the joints: the
    exact integral of the curve, not a sum over its thresholds.
    """
    parts: dict[str, tuple[np.ndarray, float, int]] = {}
    for name, rows in (("single", ~interacting), ("interacting", interacting)):
        valid = np.asarray(errors.joint_valid)[rows]
        values = np.asarray(errors.joint_mm)[rows][valid]
        bins = np.minimum(np.ceil(values), PCK_LIMIT_MM + 1).astype(np.int16)
        histogram = np.bincount(bins, minlength=PCK_LIMIT_MM + 2)
        area = np.maximum(0, 1 - values / PCK_LIMIT_MM).sum(dtype=np.float64)
        parts[name] = histogram, area, int(valid.any((1, 2)).sum())
    histograms, areas, samples = zip(*parts.values(), strict=True)
    parts["all"] = np.sum(histograms, axis=0), sum(areas), sum(samples)
    return {name: _pck_number(*part) for name, part in parts.items()}


def _pck_number(histogram: np.ndarray, area: float, samples: int) -> dict[str, Any]:
    if samples == 0:
        return {"value": None, "count": 0, "curve": [None] * len(PCK_THRESHOLDS_MM)}
    joints = histogram.sum()
    within = np.cumsum(histogram)[: len(PCK_THRESHOLDS_MM)]
    return {"value": float(area / joints), "count": samples, "curve": (within / joints).tolist()}


def _mean(values: Values, valid: Values) -> dict[str, Any]:
    """Mean over the valid values, of which a sample may have one a hand."""
    values, valid = np.asarray(values), np.asarray(valid)
    samples = int(valid.any(tuple(range(1, valid.ndim))).sum())
    total = values.sum(dtype=np.float64, where=valid)
    return _number(total / valid.sum() if samples else np.nan, samples)


def _mean_of_finite(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _number(value: float | None, count: int) -> dict[str, Any]:
    return {"value": None if value is None else _number_or_none(value), "count": count}


def _number_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def headline(summary: dict[str, dict[str, Any]], metrics: Sequence[str]) -> dict[str, float | None]:
    """Some numbers of a summary by path, such as "scale_aligned/MPJPE/all", for logs and tables."""
    result = {}
    for path in metrics:
        protocol, metric, subset = path.split("/")
        result[path] = summary[protocol][metric][subset]["value"]
    return result
