"""MediaPipe's palm detector: from its outputs to palms, and from a palm to the hand's region.

Facts from MediaPipe 0.10.21: the options of its calculators `SsdAnchorsCalculator`,
`TensorsToDetectionsCalculator`, `NonMaxSuppressionCalculator`, `DetectionsToRectsCalculator` and
`RectTransformationCalculator` in `modules/palm_detection` and `modules/hand_landmark`.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float

from er_jax.detection.regions import Region
from er_jax.mano.joints import HAND21, joint_order

INPUT_SIZE = 192
JOINTS = joint_order(
    HAND21, ("Wrist", "Index_1", "Middle_1", "Ring_1", "Pinky_1", "Thumb_1", "Thumb_2")
)
"""The joints that the keypoints of a palm are."""
KEYPOINTS = len(JOINTS)
WRIST, MIDDLE_KNUCKLE = 0, 2

_LAYERS = ((8, 2), (16, 6))
"""Stride, and anchors a cell (two of each layer; the last three layers have the same stride)."""
_SAME_PALM_IOU = 0.3
_HAND_SCALE = 2.6
_HAND_SHIFT = 0.5


@dataclasses.dataclass(frozen=True)
class Palms:
    """Palms of one view, in sides of the view's square, (0, 0) its upper left corner.

    Attributes:
      scores: (N,), 0 to 1.
      boxes: (N, 4) left, top, right, bottom.
      keypoints: (N, 7, 2).
    """

    scores: Float[np.ndarray, "N"]
    boxes: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "N 7 2"]


@functools.cache
def anchors() -> Float[np.ndarray, "2016 2"]:
    """x and y of the anchors' centres, 0 to 1, in the order of the network's outputs."""
    layers = []
    for stride, each in _LAYERS:
        centre = (np.arange(INPUT_SIZE // stride) + 0.5) * stride / INPUT_SIZE
        y, x = np.meshgrid(centre, centre, indexing="ij")
        layers.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    found = np.concatenate(layers)
    found.setflags(write=False)
    return found


def decode(
    values: Float[np.ndarray, "2016 18"], logits: Float[np.ndarray, "2016"], threshold: float
) -> Palms:
    """The palms with at least this score, of those that overlap one weighted mean.

    Args:
      values: centre x and y, width, height and the keypoints' x and y, in pixels of the input,
          positions relative to the anchor.
      logits: of the scores.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    likely = np.flatnonzero(scores >= threshold)
    scaled = values[likely].astype(np.float64) / INPUT_SIZE
    centre = scaled[:, :2] + anchors()[likely]
    half = scaled[:, 2:4] / 2
    keypoints = scaled[:, 4:].reshape(-1, KEYPOINTS, 2) + anchors()[likely, None]
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return merge_overlapping(Palms(scores[likely], boxes, keypoints))


def merge_overlapping(palms: Palms, iou: float = _SAME_PALM_IOU) -> Palms:
    """Weighted non-maximum suppression: the surest palm takes in all whose boxes overlap its own.

    Positions are the mean weighted by score, the score is the surest one's.
    """
    left = np.argsort(-palms.scores, kind="stable")
    scores, boxes, keypoints = [], [], []
    while left.size:
        same = _overlap(palms.boxes[left[0]], palms.boxes[left]) > iou
        same[0] = True
        members, weights = left[same], palms.scores[left[same]]
        scores.append(palms.scores[left[0]])
        boxes.append(np.average(palms.boxes[members], axis=0, weights=weights))
        keypoints.append(np.average(palms.keypoints[members], axis=0, weights=weights))
        left = left[~same]
    return Palms(
        np.array(scores), np.reshape(boxes, (-1, 4)), np.reshape(keypoints, (-1, KEYPOINTS, 2))
    )


def _overlap(
    box: Float[np.ndarray, "4"],
    boxes: Float[np.ndarray, "N 4"],
) -> Float[np.ndarray, "N"]:
    """Intersection over union."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.prod(np.maximum(size, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - common
    return common / np.maximum(union, 1e-12)


def hand_regions(palms: Palms, view: Region) -> list[Region]:
    """The squares of the picture in which the whole hands are expected, fingers upwards."""
    corners = view.to_picture(palms.boxes.reshape(-1, 2, 2))
    keypoints = view.to_picture(palms.keypoints)
    regions = []
    for box, points, bounds in zip(corners, keypoints, palms.boxes, strict=True):
        along = points[MIDDLE_KNUCKLE] - points[WRIST]
        angle = math.atan2(along[0], -along[1])
        width, height = (bounds[2:] - bounds[:2]) * view.side
        x, y = box.mean(axis=0) + _HAND_SHIFT * height * np.array(
            [math.sin(angle), -math.cos(angle)]
        )
        regions.append(Region(x, y, _HAND_SCALE * max(width, height), angle))
    return regions
