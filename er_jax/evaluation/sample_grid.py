"""A grid of evaluated samples: the crop, the prediction, the truth, and both from the side."""

from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float

from er_jax.mano import HANDS, HandModel
from er_jax.models import Prediction
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.rendering.overlays import (
    HAND_COLOURS,
    Image,
    draw_skeleton,
    image_grid,
    overlay,
    side_skeletons,
    side_view,
)
from er_jax.supervision.targets import Batch, Targets

TITLES = ("input", "prediction", "truth", "prediction, side", "truth, side")
CELL_PX = 224


class SampleGrid:
    """Some annotated samples from all over a split, one a row.

    The same of every pass over the split. Hands that are not there are not drawn; the truth of a
    hand without a MANO fit is drawn as its joints and bones.
    """

    def __init__(self, hands: HandModel, rows: int = 8):
        """`rows` is how many samples are drawn, where the split has them."""
        self._faces, self._rows = np.asarray(hands.faces), rows
        self._cells: list[list[Image]] = []

    @property
    def full(self) -> bool:
        return len(self._cells) == self._rows

    def add(self, batch: Batch, prediction: Prediction, truth: Targets) -> None:
        """Takes the next batch as it came from the loader and what was found of it, on the host.

        Of a batch those are taken first that have most to show: two hands, with fits.
        """
        worth = truth.mano_hand_valid.sum(1) * 3 + _annotated(truth).sum(1)
        drawable = np.flatnonzero((worth > 0) & batch["sample_mask"])
        drawable = drawable[np.argsort(-worth[drawable], kind="stable")]
        wanted = min(max(self._rows // 4, 1), self._rows - len(self._cells))
        for index in drawable[:wanted]:
            one, its_truth = jax.tree.map(lambda x, i=index: np.asarray(x[i]), (prediction, truth))
            image = np.asarray(batch["image"][index])
            self._cells.append(_row(image, one, its_truth, self._faces))

    def image(self) -> Image | None:
        """The drawn grid; None where no sample has anything to draw."""
        return image_grid(self._cells, TITLES, CELL_PX) if self._cells else None


def _annotated(truth: Targets) -> Bool[np.ndarray, "*batch 2"]:
    """The hands that are there."""
    return np.asarray(truth.joint_valid).any(-1) | np.asarray(truth.mano_hand_valid)


def _row(image: Image, prediction: Any, truth: Any, faces: np.ndarray) -> list[Image]:
    """The cells of one sample; `Prediction` and `Targets` are of NumPy, without a batch axis."""
    large = cv2.resize(image, (CELL_PX, CELL_PX), interpolation=cv2.INTER_CUBIC)
    to_px = BACKBONE_STRIDE * CELL_PX / image.shape[0]
    annotated = np.flatnonzero(_annotated(truth)).tolist()
    fitted = np.flatnonzero(truth.mano_hand_valid).tolist()
    scale, wrist = prediction.camera[:, 0] * to_px, prediction.joint_proj[:, 0] * to_px
    rel_trans, true_rel_trans = prediction.rel_trans, truth.rel_trans
    if not truth.rel_trans_valid:  # one hand, or unknown: side by side as predicted
        true_rel_trans = rel_trans
    depth, true_depth = float(rel_trans[2]), float(true_rel_trans[2])
    predicted = overlay(large, prediction.vertices, faces, scale, wrist, depth, hands=annotated)
    predicted_side = side_view(prediction.vertices, faces, rel_trans, CELL_PX, hands=annotated)

    joints_alone = truth.joint_trunc & ~truth.mano_hand_valid[:, None]
    true, mesh = large.copy(), truth.mano_mesh_cam
    if fitted:
        scale, wrist = (x * to_px for x in _fitted_cameras(truth))
        true = overlay(large, mesh, faces, scale, wrist, true_depth, hands=fitted)
        true_side = side_view(mesh, faces, true_rel_trans, CELL_PX, hands=fitted)
    else:
        true_side = side_skeletons(truth.joint_cam, joints_alone, true_rel_trans, CELL_PX)
    for hand in np.flatnonzero(joints_alone.any(1)):
        points = truth.joint_img[hand, :, :2] * to_px
        draw_skeleton(true, points, joints_alone[hand], HAND_COLOURS[hand])
    return [large, predicted, true, predicted_side, true_side]


def _fitted_cameras(
    truth: Any,
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2 2"]]:
    """The weak-perspective cameras nearest to how the fits' joints are seen.

    Returns:
      Each hand's scale, cells per metre, and wrist, cells.
    """
    scales, wrists = np.zeros(len(HANDS)), np.zeros((len(HANDS), 2))
    for hand in range(len(HANDS)):
        metres, seen = truth.mano_joint_cam[hand, :, :2], truth.mano_joint_img[hand, :, :2]
        centred = metres - metres.mean(0)
        scales[hand] = (centred * (seen - seen.mean(0))).sum() / max((centred**2).sum(), 1e-12)
        wrists[hand] = seen.mean(0) - scales[hand] * metres.mean(0)
    return scales, wrists
