"""An image of a run: the loss of every step and the validation errors beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from er_jax.training.metric_log import read_metric_log

CURVES = ("scale_aligned/MPJPE/all", "wrist_aligned/MPJPE/all", "procrustes/PA-MPJPE/all")


def draw_loss_curve(metrics: Path, image: Path, baselines: Mapping[str, float]) -> bool:
    """Draws the loss of every step and the validation errors beside it.

    Args:
      metrics: the run's `metrics.jsonl`.
      image: PNG to write.
      baselines: name → error in mm, drawn as level lines among the validation errors.

    Returns:
      Whether there was a step to draw; without any, nothing is written.
    """
    entries = read_metric_log(metrics) if metrics.exists() else []
    steps = [(e["step"], e["train/loss"]) for e in entries if "train/loss" in e]
    if not steps:
        return False
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*steps, strict=True), linewidth=0.5, alpha=0.4, color="tab:blue")
    left.plot(*zip(*_smoothed(steps), strict=True), color="tab:blue")
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    for name in CURVES:
        key = f"validation/{name}"
        points = [(e["step"], e[key]) for e in entries if key in e]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=name)
    for name, value in baselines.items():
        right.axhline(value, linestyle="--", color="grey", label=name)
    right.set(xlabel="step", ylabel="validation error [mm]")
    if right.get_lines():
        right.set_ylim(0, None)
        right.legend()
    else:
        right.text(0.5, 0.5, "no validation", ha="center", transform=right.transAxes)
    figure.savefig(image, dpi=110)
    return True


def _smoothed(points: Sequence[tuple[float, float]], share: float = 0.05) -> list:
    """Running mean over a share of all points."""
    window = max(int(len(points) * share), 1)
    steps, values = np.array(points).T
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    return list(zip(steps[window - 1 :], mean, strict=True))
