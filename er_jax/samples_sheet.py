"""A sheet of evaluated samples: the crop, the prediction, the truth, and both from the side."""

from collections.abc import Iterable
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from er_jax.evaluation import make_prediction_function
from er_jax.mano import HANDS, HandModel
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.pictures import Image, overlay, sheet, turned_view
from er_jax.targets import Batch, Targets, make_target_function
from er_jax.training.state import TrainState

Tree = Any

TITLES = ("input", "prediction", "truth", "prediction, side", "truth, side")
CELL_PX = 224


def samples_sheet(
    config: ConfigDict,
    state: TrainState,
    hands: HandModel,
    batches: Iterable[Batch],
    rows: int = 8,
) -> Image:
    """Samples with both hands annotated, from all over a split, one a row.

    Args:
      config: of the run that the state was trained in.
      state: its parameters, not replicated.
      hands: both hand models, not replicated.
      batches: one pass over the split; only as many are read as needed.
      rows: how many samples are drawn, where the split has them.
    """
    predict = jax.jit(make_prediction_function(config))
    targets = jax.jit(make_target_function(config))
    faces = np.asarray(hands.faces)
    cells: list[list[Image]] = []
    for batch in batches:
        truth = jax.device_get(targets(hands, batch))
        whole = truth.mano_hand_valid.all(1) & batch["sample_mask"]
        chosen = np.flatnonzero(whole)[: max(rows // 4, 1)]
        if chosen.size:
            prediction = jax.device_get(predict(state, hands, batch["image"]))
        for index in chosen:
            image = np.asarray(batch["image"][index])
            cells.append(_row(image, _at(index, prediction), _at(index, truth), faces))
            if len(cells) == rows:
                return sheet(cells, TITLES, CELL_PX)
    if not cells:
        raise ValueError("no sample of the split has MANO fits of both hands to draw")
    return sheet(cells, TITLES, CELL_PX)


def _at(index: int, tree: Tree) -> Tree:
    """The host arrays of one sample of a batch."""
    return jax.tree.map(lambda x: x[index], tree)


def _row(image: Image, prediction: Any, truth: Any, faces: np.ndarray) -> list[Image]:
    large = cv2.resize(image, (CELL_PX, CELL_PX), interpolation=cv2.INTER_CUBIC)
    to_px = BACKBONE_STRIDE * CELL_PX / image.shape[0]
    views = []
    for vertices, rel_trans, scale, wrist in (
        (
            prediction.vertices,
            prediction.rel_trans,
            prediction.camera[:, 0],
            prediction.joint_proj[:, 0],
        ),
        (truth.mano_mesh_cam, truth.rel_trans, *_fitted_cameras(truth)),
    ):
        painted = overlay(large, vertices, faces, scale * to_px, wrist * to_px, float(rel_trans[2]))
        views.append((painted, turned_view(vertices, faces, rel_trans, CELL_PX)))
    (predicted, predicted_side), (true, true_side) = views
    return [large, predicted, true, predicted_side, true_side]


def _fitted_cameras(truth: Targets) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2 2"]]:
    """The weak-perspective cameras nearest to how the true joints are seen: scale, wrist, cells."""
    scales, wrists = np.zeros(len(HANDS)), np.zeros((len(HANDS), 2))
    for hand in range(len(HANDS)):
        metres, seen = truth.mano_joint_cam[hand, :, :2], truth.mano_joint_img[hand, :, :2]
        centred = metres - metres.mean(0)
        scales[hand] = (centred * (seen - seen.mean(0))).sum() / (centred**2).sum()
        wrists[hand] = seen.mean(0) - scales[hand] * metres.mean(0)
    return scales, wrists
