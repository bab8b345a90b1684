"""A sheet of evaluated samples: the crop, the prediction, the truth, and both from the side."""

import dataclasses
from typing import Any, Self

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float

from er_jax.mano import HANDS, HandModel
from er_jax.models import Prediction
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.pictures import Image, overlay, sheet, turned_view
from er_jax.targets import Batch, Targets

TITLES = ("input", "prediction", "truth", "prediction, side", "truth, side")
CELL_PX = 224


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
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
    whole: Bool[Any, "B"]  # both hands have a MANO fit

    @classmethod
    def of(cls, prediction: Prediction, truth: Targets) -> Self:
        return cls(
            vertices=prediction.vertices,
            rel_trans=prediction.rel_trans,
            camera=prediction.camera,
            joint_proj=prediction.joint_proj,
            true_vertices=truth.mano_mesh_cam,
            true_rel_trans=truth.rel_trans,
            true_joint_cam=truth.mano_joint_cam,
            true_joint_img=truth.mano_joint_img,
            whole=truth.mano_hand_valid.all(1),
        )


class SamplesSheet:
    """Samples with both hands annotated, from all over a split, one a row.

    The same of every pass over the split.
    """

    def __init__(self, hands: HandModel, rows: int = 8):
        """`rows` is how many samples are drawn, where the split has them."""
        self._faces, self._rows = np.asarray(hands.faces), rows
        self._cells: list[list[Image]] = []

    @property
    def full(self) -> bool:
        return len(self._cells) == self._rows

    def add(self, batch: Batch, drawn: Drawn) -> None:
        """Takes the next batch as it came from the loader, and what is drawn of it, on the host."""
        drawable = np.flatnonzero(drawn.whole & batch["sample_mask"])
        wanted = min(max(self._rows // 4, 1), self._rows - len(self._cells))
        for index in drawable[:wanted]:
            of_sample = jax.tree.map(lambda x, i=index: x[i], drawn)
            self._cells.append(_row(np.asarray(batch["image"][index]), of_sample, self._faces))

    def picture(self) -> Image:
        """Raises:
        ValueError: no sample has MANO fits of both hands.
        """
        if not self._cells:
            raise ValueError("no sample of the split has MANO fits of both hands to draw")
        return sheet(self._cells, TITLES, CELL_PX)


def _row(image: Image, drawn: Drawn, faces: np.ndarray) -> list[Image]:
    large = cv2.resize(image, (CELL_PX, CELL_PX), interpolation=cv2.INTER_CUBIC)
    to_px = BACKBONE_STRIDE * CELL_PX / image.shape[0]
    views = []
    for vertices, rel_trans, scale, wrist in (
        (drawn.vertices, drawn.rel_trans, drawn.camera[:, 0], drawn.joint_proj[:, 0]),
        (drawn.true_vertices, drawn.true_rel_trans, *_fitted_cameras(drawn)),
    ):
        painted = overlay(large, vertices, faces, scale * to_px, wrist * to_px, float(rel_trans[2]))
        views.append((painted, turned_view(vertices, faces, rel_trans, CELL_PX)))
    (predicted, predicted_side), (true, true_side) = views
    return [large, predicted, true, predicted_side, true_side]


def _fitted_cameras(drawn: Drawn) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2 2"]]:
    """The weak-perspective cameras nearest to how the true joints are seen: scale, wrist, cells."""
    scales, wrists = np.zeros(len(HANDS)), np.zeros((len(HANDS), 2))
    for hand in range(len(HANDS)):
        metres, seen = drawn.true_joint_cam[hand, :, :2], drawn.true_joint_img[hand, :, :2]
        centred = metres - metres.mean(0)
        scales[hand] = (centred * (seen - seen.mean(0))).sum() / (centred**2).sum()
        wrists[hand] = seen.mean(0) - scales[hand] * metres.mean(0)
    return scales, wrists
