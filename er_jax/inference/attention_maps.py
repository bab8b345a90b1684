"""An image of what goes on in the network: joint heatmaps, and where DeOcc's hands look."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from er_jax.mano import HAND21, HANDS
from er_jax.models import ERConfig, Prediction
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.rendering.overlays import HAND_COLOURS

JOINTS = ("Wrist", "Thumb_4", "Index_4", "Middle_4", "Ring_4", "Pinky_4")


def outputs_to_visualize(config: ERConfig) -> tuple[str, ...]:
    """Names of the intermediate outputs that `draw_attention_maps` can show of a network."""
    return ("heatmaps", "deocc_attention") if config.use_deocc else ("heatmaps",)


def draw_attention_maps(
    path: Path, crop: UInt8[np.ndarray, "H W 3"], prediction: Prediction
) -> None:
    """Writes a PNG: a column for the wrist and each fingertip, and for each hand two rows.

    First the joint's heatmap, summed over depth, and a dot at its expected cell. Then DeOcc's
    attention in its last layer, the mean of its heads: from the cell where this hand's joint is,
    framed, to all cells of the other hand. A map's colours go from zero to its own maximum.

    Args:
      path: of the image.
      crop: what the network saw, RGB.
      prediction: of it, without a batch axis, with `outputs_to_visualize` among its intermediates.
    """
    intermediates = {name: np.asarray(x) for name, x in prediction.intermediates.items()}
    kinds = [name for name in ("heatmaps", "deocc_attention") if name in intermediates]
    rows = len(kinds) * len(HANDS)
    figure = Figure(figsize=(2 * len(JOINTS), 2 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, len(JOINTS), squeeze=False)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    for row, (kind, hand) in enumerate((kind, hand) for kind in kinds for hand in range(2)):
        own, other = HANDS[hand], HANDS[1 - hand]
        title = f"{own} heatmaps" if kind == "heatmaps" else f"{own} looks at {other}"
        axes[row, 0].set_ylabel(title)
        for column, name in enumerate(JOINTS):
            joint, axis = HAND21.index(name), axes[row, column]
            axis.imshow(grey, cmap="gray")
            cell = np.asarray(prediction.joint_img[hand, joint, :2])
            if kind == "heatmaps":
                _paint_heatmap(axis, intermediates[kind][hand, joint].sum(0), cell, hand)
            else:
                _paint_attention(axis, intermediates[kind][hand, -1].mean(0), cell, hand)
            axis.set(xticks=[], yticks=[], xlim=(0, crop.shape[1]), ylim=(crop.shape[0], 0))
            if row == 0:
                axis.set_title(name.removesuffix("_4").lower())
    figure.savefig(path, dpi=100, format="png")


def _paint_heatmap(
    axis: Axes, probability: Float[np.ndarray, "S S"], cell: Float[np.ndarray, "2"], hand: int
) -> None:
    _paint_cells(axis, probability, first_centre_px=0.0)
    x, y = cell * BACKBONE_STRIDE
    axis.plot(x, y, "o", color=HAND_COLOURS[hand], markeredgecolor="black", markersize=6)


def _paint_attention(
    axis: Axes, weights: Float[np.ndarray, "Q K"], cell: Float[np.ndarray, "2"], hand: int
) -> None:
    side = round(weights.shape[0] ** 0.5)
    column, row = np.clip(np.floor(cell), 0, side - 1).astype(int)
    seen = weights[row * side + column].reshape(side, side)
    _paint_cells(axis, seen, first_centre_px=BACKBONE_STRIDE / 2)
    corner = (column * BACKBONE_STRIDE, row * BACKBONE_STRIDE)
    frame = Rectangle(corner, BACKBONE_STRIDE, BACKBONE_STRIDE, fill=False, linewidth=2)
    frame.set_edgecolor(HAND_COLOURS[hand])
    axis.add_patch(frame)


def _paint_cells(axis: Axes, values: Float[np.ndarray, "S S"], *, first_centre_px: float) -> None:
    """Heatmaps count pixels from the first cell's centre; a feature's cell covers its pixels."""
    low = first_centre_px - BACKBONE_STRIDE / 2
    high = low + len(values) * BACKBONE_STRIDE
    alpha = 0.8 * values / values.max()
    axis.imshow(values, extent=(low, high, high, low), vmin=0, cmap="inferno", alpha=alpha)
