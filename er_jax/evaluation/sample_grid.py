"""A sheet of evaluated samples: the crop, the prediction, the truth, and both from the side."""

import dataclasses
from typing import Any, Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from er_jax.mano import HANDS, HandModel
from er_jax.models import Prediction
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.rendering.overlays import (
    HAND_COLOURS,
    Image,
    draw_skeleton,
    overlay,
    sheet,
    side_skeletons,
    side_view,
)
from er_jax.supervision.targets import Batch, Targets

TITLES = ("input", "prediction", "truth", "prediction, side", "truth, side")
CELL_PX = 224


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SampleVisuals:
    """What is drawn of a batch of samples; see `Prediction` and `Targets`.

    On the device as it leaves the evaluation's step, on the host when it is drawn.
    """

    vertices: Float[Any, "B 2 778 3"]
    rel_trans: Float[Any, "B 3"]
    camera: Float[Any, "B 2 3"]
    joint_proj: Float[Any, "B 2 21 2"]
    true_vertices: Float[Any, "B 2 778 3"]
    true_rel_trans: Float[Any, "B 3"]
    true_joint_cam: Float[Any, "B 2 21 3"]
    true_joint_img: Float[Any, "B 2 21 3"]
    true_rel_trans_valid: Bool[Any, "B"]
    annotated: Bool[Any, "B 2"]  # hands that are there
    fitted: Bool[Any, "B 2"]  # hands with a MANO fit
    seen: Bool[Any, "B 2 21"]  # annotated joints inside the crop

    @classmethod
    def of(cls, prediction: Prediction, truth: Targets) -> Self:
        fitted = truth.mano_hand_valid[..., None, None]
        return cls(
            vertices=prediction.vertices,
            rel_trans=prediction.rel_trans,
            camera=prediction.camera,
            joint_proj=prediction.joint_proj,
            true_vertices=truth.mano_mesh_cam,
            true_rel_trans=truth.rel_trans,
            true_joint_cam=jnp.where(fitted, truth.mano_joint_cam, truth.joint_cam),
            true_joint_img=jnp.where(fitted, truth.mano_joint_img, truth.joint_img),
            true_rel_trans_valid=truth.rel_trans_valid,
            annotated=truth.joint_valid.any(-1) | truth.mano_hand_valid,
            fitted=truth.mano_hand_valid,
            seen=truth.joint_trunc,
        )


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

    def add(self, batch: Batch, drawn: SampleVisuals) -> None:
        """Takes the next batch as it came from the loader, and what is drawn of it, on the host.

        Of a batch those are taken first that have most to show: two hands, with fits.
        """
        worth = drawn.fitted.sum(1) * 3 + drawn.annotated.sum(1)
        drawable = np.flatnonzero((worth > 0) & batch["sample_mask"])
        drawable = drawable[np.argsort(-worth[drawable], kind="stable")]
        wanted = min(max(self._rows // 4, 1), self._rows - len(self._cells))
        for index in drawable[:wanted]:
            of_sample = jax.tree.map(lambda x, i=index: x[i], drawn)
            self._cells.append(_row(np.asarray(batch["image"][index]), of_sample, self._faces))

    def picture(self) -> Image | None:
        """The sheet; None where no sample has anything to draw."""
        return sheet(self._cells, TITLES, CELL_PX) if self._cells else None


def _row(image: Image, drawn: SampleVisuals, faces: np.ndarray) -> list[Image]:
    large = cv2.resize(image, (CELL_PX, CELL_PX), interpolation=cv2.INTER_CUBIC)
    to_px = BACKBONE_STRIDE * CELL_PX / image.shape[0]
    annotated, fitted = (np.flatnonzero(x).tolist() for x in (drawn.annotated, drawn.fitted))
    scale, wrist = drawn.camera[:, 0] * to_px, drawn.joint_proj[:, 0] * to_px
    rel_trans, true_rel_trans = drawn.rel_trans, drawn.true_rel_trans
    if not drawn.true_rel_trans_valid:  # one hand, or unknown: side by side as predicted
        true_rel_trans = rel_trans
    depth = float(rel_trans[2])
    predicted = overlay(large, drawn.vertices, faces, scale, wrist, depth, hands=annotated)
    predicted_side = side_view(drawn.vertices, faces, rel_trans, CELL_PX, hands=annotated)

    known = drawn.seen & ~drawn.fitted[:, None]
    true = large.copy()
    if fitted:
        scales, wrists = _fitted_cameras(drawn)
        true_depth = float(true_rel_trans[2])
        true = overlay(
            large,
            drawn.true_vertices,
            faces,
            scales * to_px,
            wrists * to_px,
            true_depth,
            hands=fitted,
        )
        true_side = side_view(drawn.true_vertices, faces, true_rel_trans, CELL_PX, hands=fitted)
    else:
        true_side = side_skeletons(drawn.true_joint_cam, known, true_rel_trans, CELL_PX)
    for hand in np.flatnonzero(known.any(1)):
        points = drawn.true_joint_img[hand, :, :2] * to_px
        draw_skeleton(true, points, known[hand], HAND_COLOURS[hand])
    return [large, predicted, true, predicted_side, true_side]


def _fitted_cameras(
    drawn: SampleVisuals,
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2 2"]]:
    """The weak-perspective cameras nearest to how the true joints are seen: scale, wrist, cells."""
    scales, wrists = np.zeros(len(HANDS)), np.zeros((len(HANDS), 2))
    for hand in range(len(HANDS)):
        metres, seen = drawn.true_joint_cam[hand, :, :2], drawn.true_joint_img[hand, :, :2]
        centred = metres - metres.mean(0)
        scales[hand] = (centred * (seen - seen.mean(0))).sum() / (centred**2).sum()
        wrists[hand] = seen.mean(0) - scales[hand] * metres.mean(0)
    return scales, wrists
