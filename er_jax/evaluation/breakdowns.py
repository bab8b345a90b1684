"""Errors by what may have caused them: overlap, distance, visibility, camera, sequence."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from er_jax.evaluation.results import Evaluated
from er_jax.evaluation.summary import select, summarize

METRICS = (
    "scale_aligned/MPJPE/all",
    "scale_aligned/MPVPE/all",
    "wrist_aligned/MPJPE/all",
    "wrist_aligned/MPVPE/all",
    "wrist_aligned/MRRPE/interacting",
    "procrustes/PA-MPJPE/all",
    "camera_space/MRPE/all",
)
"""Metrics that each group is given."""


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """One way to group the samples.

    Attributes:
      attribute: what they are grouped by, as a machine names it.
      title: as a reader does.
      groups: label → {"samples": number, metric path → {"value", "count"}}, in their order.
    """

    attribute: str
    title: str
    groups: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Bins:
    """Intervals [edge, next edge) of a measured attribute; the last is closed."""

    attribute: str
    title: str
    edges: Sequence[float]
    labels: Sequence[str]


_MEASURED = (
    _Bins(
        "hand_overlap",
        "Overlap of the two hands' boxes in the image (intersection over union)",
        (0, 1e-9, 0.1, 0.25, 0.5, 1),
        ("none", "0–0.1", "0.1–0.25", "0.25–0.5", "0.5–1"),
    ),
    _Bins(
        "wrist_distance_mm",
        "Distance of the two wrists",
        (0, 50, 100, 150, 200, np.inf),
        ("0–50 mm", "50–100 mm", "100–150 mm", "150–200 mm", "over 200 mm"),
    ),
    _Bins(
        "visible_share",
        "Share of the annotated joints that is visible and inside the crop",
        (0, 0.5, 0.75, 0.9, 1, 1),
        ("under 50 %", "50–75 %", "75–90 %", "90–100 %", "all"),
    ),
)


def breakdowns(predictor: Evaluated) -> list[Breakdown]:
    """The predictor's errors by every attribute that its samples have."""
    result = [
        Breakdown(bins.attribute, bins.title, _groups(predictor, _binned(predictor, bins)))
        for bins in _MEASURED
    ]
    for attribute, title in (("camera", "Camera"), ("sequence", "Sequence"), ("box_source", "Box")):
        values = getattr(predictor.labels, attribute)
        named = ((str(value), values == value) for value in np.unique(values) if value)
        result.append(Breakdown(attribute, title, _groups(predictor, named)))
    return [breakdown for breakdown in result if len(breakdown.groups) > 1]


def _groups(
    predictor: Evaluated, masks: Iterator[tuple[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    groups = {}
    for label, mask in masks:
        if mask.any():
            summary = summarize(select(predictor.errors, mask))
            groups[label] = {
                "samples": int(mask.sum()),
                **{metric: _number(summary, metric) for metric in METRICS},
            }
    return groups


def _number(summary: Mapping[str, Any], metric: str) -> dict[str, Any]:
    protocol, name, subset = metric.split("/")
    number = summary[protocol][name][subset]
    return {"value": number["value"], "count": number["count"]}


def _binned(predictor: Evaluated, bins: _Bins) -> Iterator[tuple[str, np.ndarray]]:
    values = np.asarray(getattr(predictor.errors.attributes, bins.attribute))
    last = len(bins.labels) - 1
    for index, label in enumerate(bins.labels):
        low, high = bins.edges[index : index + 2]
        yield label, (values >= low) & ((values < high) if index < last else (values <= high))
