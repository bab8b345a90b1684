"""Detected hands as arrays, a row a hand, and back."""

from collections.abc import Mapping, Sequence

import numpy as np

from er_jax.detection import DetectedHand
from er_jax.detection.types import box_around


def right_probability(hand: DetectedHand) -> float:
    """That it is a right hand, whichever side it is taken for."""
    return hand.side_probability if hand.side == "right" else 1 - hand.side_probability


def arrays_of(hands: Sequence[DetectedHand]) -> dict[str, np.ndarray]:
    """Columns `right`, `score`, `keypoints_px`, `confidence`, `joints_m` (NaN where unknown)."""
    unknown = np.full((21, 3), np.nan)
    joints = [unknown if hand.joints_m is None else hand.joints_m for hand in hands]
    return {
        "right": np.array([right_probability(hand) for hand in hands], float),
        "score": np.array([hand.score for hand in hands], float),
        "keypoints_px": np.array([hand.keypoints_px for hand in hands]).reshape(-1, 21, 2),
        "confidence": np.array([hand.confidence for hand in hands]).reshape(-1, 21),
        "joints_m": np.array(joints).reshape(-1, 21, 3),
    }


def hand_of(columns: Mapping[str, np.ndarray], row: int, side: int) -> DetectedHand:
    """A row of these columns as a hand of a side, 0 right, 1 left."""
    right = float(columns["right"][row])
    joints = columns["joints_m"][row]
    return DetectedHand(
        side="left" if side else "right",
        side_probability=1 - right if side else right,
        score=float(columns["score"][row]),
        box_px=box_around(columns["keypoints_px"][row]),
        keypoints_px=columns["keypoints_px"][row],
        confidence=columns["confidence"][row],
        joints_m=joints if np.isfinite(joints).all() else None,
    )
