"""How far MANO fits lie from the joints that were annotated for the same hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # which imports JAX
    from jaxtyping import Bool, Float

    from er_jax.mano import HandModel

FITS_UNCHECKED = (
    "the fits were not compared with the annotated joints: --mano_dir=MANO does it, with the files "
    "that they were made with"
)
PERCENTILES = (50, 90, 99)
WORST_NAMED = 5
_BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
    """Joints and fits of N frames, in the same axes; hand axis (right, left)."""

    joint_mm: Float[np.ndarray, "N 2 21 3"]  # in the Hand 21 order
    joint_valid: Bool[np.ndarray, "N 2 21"]
    fitted: Bool[np.ndarray, "N 2"]
    pose: Float[np.ndarray, "N 2 48"]
    betas: Float[np.ndarray, "N 2 10"]
    trans_m: Float[np.ndarray, "N 2 3"]


def fit_errors_mm(
    fits: Fits, hands: HandModel, progress: Callable[[int, int], None] = lambda done, total: None
) -> Float[np.ndarray, "N 2"]:
    """Mean distance of each hand's valid joints from its fit's; NaN where either is absent.

    Args:
      fits: with the joints that they are to be compared with.
      hands: that the fits were made with.
      progress: called with frames done and frames in all.
    """
    from er_jax.mano import mano_forward

    count = len(fits.fitted)
    errors = np.full((count, 2), np.nan)
    for start in range(0, count, _BATCH):
        rows = np.arange(start, min(start + _BATCH, count))
        padded = np.resize(rows, _BATCH)  # one shape, compiled once
        mesh = mano_forward(hands, fits.betas[padded], fits.pose[padded], fits.trans_m[padded])
        fitted_mm = 1000 * np.asarray(mesh.joints)[: len(rows)]
        distance = np.linalg.norm(fitted_mm - fits.joint_mm[rows], axis=-1)
        valid = fits.joint_valid[rows] & fits.fitted[rows][..., None]
        joints = valid.sum(axis=-1)
        mean = np.where(valid, distance, 0).sum(axis=-1) / np.maximum(joints, 1)
        errors[rows] = np.where(joints > 0, mean, np.nan)
        progress(len(rows) + start, count)
    return errors


def summary(
    errors_mm: Float[np.ndarray, "N 2"], names: Callable[[int], dict[str, str]]
) -> dict[str, Any]:
    """Percentiles of hands' errors and the worst of them, as plain JSON.

    Args:
      errors_mm: as of `fit_errors_mm`.
      names: what a frame is called, by its row.
    """
    known = np.flatnonzero(np.isfinite(errors_mm))  # row and hand in one number
    values = errors_mm.ravel()[known]
    worst = known[np.argsort(-values, kind="stable")][:WORST_NAMED]
    return {
        "hands": len(known),
        "percentiles": {
            str(p): round(float(np.percentile(values, p)), 2) for p in PERCENTILES if len(known)
        },
        "max": round(float(values.max()), 2) if len(known) else None,
        "worst": [
            {
                **names(int(place) // 2),
                "hand": ("right", "left")[place % 2],
                "mm": round(float(errors_mm.ravel()[place]), 2),
            }
            for place in worst
        ],
    }


def fit_notes(errors: Mapping[str, Any]) -> list[str]:
    """Lines on a `summary` with the hand model's identity."""
    if not errors["hands"]:
        return ["no hand has both a fit and joints, to be compared"]
    percentiles = ", ".join(f"{p} %: {mm:.1f}" for p, mm in errors["percentiles"].items())
    worst = "; ".join(
        f"capture {one['capture']}, frame {one['frame']}, {one['hand']} hand: {one['mm']:.1f} mm"
        for one in errors["worst"]
    )
    return [
        f"fits off their annotated joints, means of {errors['hands']:,} hands, mm: {percentiles}, "
        f"max: {errors['max']:.1f} (hand model: {errors['hand_model']})",
        f"farthest off: {worst}",
    ]
