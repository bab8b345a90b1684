"""What a validation tells of a network: how far off its joints are, and by what its depths.

A joint's standard deviation is modelled as `scale_mm[joint] · (spread + 0.05)^slope`, with the
heatmap's spread in cells. The slope is the regression of the logarithm of the errors within each
joint; the scales make the mean square of every joint's error what it was. All are of a validation
split: errors on what a network was trained on are smaller.
"""

import dataclasses
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float

from er_jax.evaluation.types import CameraSpaceErrors, SampleErrors
from er_jax.mano.joints import HAND21

LEAST_SPREAD = 0.05  # cells
_LEAST_MM = 1.0
_MOST_SLOPE = 2.0  # a network that is hardly trained has spreads that are all but equal
BINS = 10
LEFT_OUT = (0.0, 0.1, 0.3, 0.5)
"""Shares of the joints, the least sure ones."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """From heatmaps' spreads to standard deviations of joints about their wrist, and the depth.

    Attributes:
      scale_mm: of each joint of `HAND21`, at a spread of 0.95 cells.
      slope: 0: the spread says nothing.
      depth_scale: median of the wrists' true depth over that found; see `place_hands`.
    """

    scale_mm: tuple[float, ...]
    slope: float
    depth_scale: float = 1.0

    def sigma_mm(self, spread: Float[np.ndarray, "*n 21"]) -> Float[np.ndarray, "*n 21"]:
        """The standard deviation of each joint's distance from the truth; of a wrist zero."""
        return np.asarray(self.scale_mm) * (np.asarray(spread, np.float64) + LEAST_SPREAD) ** (
            self.slope
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(**{**content, "scale_mm": tuple(content["scale_mm"])})


def calibrated(errors: SampleErrors) -> Calibration | None:
    """The calibration by a network's errors; None where it says no spread or no joint is annotated.

    Args:
      errors: collected, of a split that the network was not trained on.
    """
    if errors.joint_spread is None:
        return None
    spread, error_mm, valid = _joints(errors)
    if not valid.any():
        return None
    number = np.maximum(valid.sum(0), 1)

    def about_mean(logarithm: Float[np.ndarray, "N 21"]) -> Float[np.ndarray, "N 21"]:
        known = np.where(valid, logarithm, 0.0)
        return np.where(valid, known - known.sum(0) / number, 0.0)

    log_spread = about_mean(np.log(spread + LEAST_SPREAD))
    log_error = about_mean(np.log(error_mm + _LEAST_MM))
    total = (log_spread**2).sum()
    varies = total > 1e-9 * valid.sum()
    slope = float((log_spread * log_error).sum() / total) if varies else 0.0
    slope = min(max(slope, 0.0), _MOST_SLOPE)
    squares = np.where(valid, error_mm, 0.0) ** 2
    unscaled = np.where(valid, (spread + LEAST_SPREAD) ** (2 * slope), 0.0)
    of_joints, unscaled = (x.sum(0, dtype=np.float64) for x in (squares, unscaled))
    ratio = of_joints / np.maximum(unscaled, 1e-12)
    scale = np.sqrt(np.where(valid.any(0), ratio, of_joints.sum() / unscaled.sum()))
    return Calibration(tuple(scale.tolist()), slope, _depth_scale(errors.camera_space))


def _depth_scale(errors: CameraSpaceErrors | None) -> float:
    """1 where no wrist's place is both said and annotated."""
    if errors is None or not np.any(errors.wrist_valid):
        return 1.0
    ratio = 1 + np.asarray(errors.relative_depth, np.float64)[np.asarray(errors.wrist_valid)]
    return float(1 / np.median(ratio))


class Bin(NamedTuple):
    """Joints of like confidence: what was expected, and what came of it; root mean squares."""

    expected_mm: float
    observed_mm: float
    joints: int


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How well a confidence foretells the errors of a split.

    Attributes:
      bins: of as many joints each, the surest first.
      kept_mm: mean error of the joints that are kept when the shares `LEFT_OUT` of them, the least
        sure ones, are left out.
      best_mm: the same if the order were that of the errors themselves, which no confidence beats.
      joints: that were looked at; wrists are not.
    """

    bins: list[Bin]
    kept_mm: list[float]
    best_mm: list[float]
    joints: int


def reliability(confidence: Calibration | None, errors: SampleErrors) -> Reliability | None:
    """The confidence beside the errors; None where there is none, or no joint is annotated."""
    if confidence is None or errors.joint_spread is None:
        return None
    spread, error_mm, valid = _joints(errors)
    valid = valid & (np.arange(len(HAND21)) > 0)
    if not valid.any():
        return None
    sigma, error_mm = confidence.sigma_mm(spread)[valid], error_mm[valid]
    order = np.argsort(sigma, kind="stable")
    sigma, error_mm, best = sigma[order], error_mm[order], np.sort(error_mm)

    def kept(values: np.ndarray) -> list[float]:
        counts = [max(round(len(values) * (1 - share)), 1) for share in LEFT_OUT]
        return [float(values[:count].mean()) for count in counts]

    parts = np.array_split(np.arange(len(sigma)), min(BINS, len(sigma)))
    bins = [Bin(_root_mean_square(sigma[p]), _root_mean_square(error_mm[p]), len(p)) for p in parts]
    return Reliability(bins, kept(error_mm), kept(best), len(sigma))


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def _joints(
    errors: SampleErrors,
) -> tuple[Float[np.ndarray, "N 21"], Float[np.ndarray, "N 21"], Bool[np.ndarray, "N 21"]]:
    """Spread, wrist-aligned error and validity of the joints of every hand, the hands in a row."""
    of_hands = (
        errors.joint_spread,
        errors.wrist_aligned.joint_mm,
        errors.wrist_aligned.joint_valid,
    )
    spread, error_mm, valid = (np.asarray(x).reshape(-1, len(HAND21)) for x in of_hands)
    return spread.astype(np.float64), error_mm.astype(np.float64), valid
