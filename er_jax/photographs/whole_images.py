"""How well hands are found and reconstructed in a dataset's whole images, no box given."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.records import HAND_TYPES
from er_jax.detection import DetectedHand, Detector
from er_jax.evaluation.alignment import similarity_align
from er_jax.mano import HANDS
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import Photograph
from er_jax.photographs.result import Hand, Reconstruction
from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.rendering.overlays import HAND_COLOURS, draw_skeleton, image_grid, write_image
from er_jax.utils.progress import progress_bar

FOUND = 0.25
"""Of the box around a hand's annotated joints: mean distance up to which it counts as found."""
LEAST_JOINTS = 12  # of the annotated ones: a hand with fewer is not counted
CELL_PX = (320, 210)
LEAST_ALIGNED = 4
GROUPS = ("single", "interacting")


@dataclasses.dataclass(frozen=True)
class AnnotatedHand:
    """The truth of one hand of an image.

    Attributes:
      side: 0 right, 1 left.
      joints_m: camera axes, metres, in the order `HAND21`; NaN: not annotated in 3D.
      keypoints_px: the same in the image.
      known: which joints are annotated.
    """

    side: int
    joints_m: Float[np.ndarray, "21 3"]
    keypoints_px: Float[np.ndarray, "21 2"]
    known: Bool[np.ndarray, "21"]

    @property
    def size_px(self) -> float:
        """Longer side of the box around the known joints."""
        return float(np.ptp(self.keypoints_px[self.known], axis=0).max())


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """A whole image with what is known of its camera and hands."""

    pixels: np.ndarray
    focal_px: tuple[float, float]
    principal_point_px: tuple[float, float]
    interacting: bool
    hands: tuple[AnnotatedHand, ...]


@dataclasses.dataclass
class Score:
    """What was counted of one way of reconstruction in one group of images; errors in mm."""

    annotated: int = 0
    found: int = 0
    side_right: int = 0
    pa_mpjpe: list[float] = dataclasses.field(default_factory=list)
    wrist_aligned: list[float] = dataclasses.field(default_factory=list)
    keypoint_error: list[float] = dataclasses.field(default_factory=list)
    """Of the reconstructed joints in the image, over the hand's box."""


class _Found(NamedTuple):
    """What is compared of a hand, a detector's or a reconstructed one."""

    side: str
    seen_px: Float[np.ndarray, "21 2"]
    """By which it is matched with an annotated hand."""
    keypoints_px: Float[np.ndarray, "21 2"]
    joints_m: Float[np.ndarray, "21 3"] | None


def annotated_image(split: AnnotatedSplit, index: int) -> AnnotatedImage:
    """One whole image of a split with its truth."""
    pixels, sample = split.image(index)
    joints = sample["joint_world_mm"] @ sample["camera_rotation"].T
    joints = (joints + sample["camera_translation_mm"]) / 1000
    focal, middle = (tuple(sample[name].tolist()) for name in ("focal_px", "princpt_px"))
    keypoints = PerspectiveCamera(focal, middle).project(joints)
    hands = tuple(
        AnnotatedHand(side, joints[side], keypoints[side], known)
        for side, known in enumerate(sample["joint_valid_world"].astype(bool))
        if known.sum() >= LEAST_JOINTS
    )
    return AnnotatedImage(
        pixels=pixels,
        focal_px=focal,
        principal_point_px=middle,
        interacting=HAND_TYPES[int(sample["hand_type"])] == "interacting",
        hands=hands,
    )


def evaluate_whole_images(
    images: Sequence[AnnotatedImage],
    detector: Detector,
    engines: Mapping[str, Engine],
) -> dict[str, dict[str, Score]]:
    """Scores of each engine in each group of images; all see the same detections.

    A detection belongs to the annotated hand that it lies nearest to, of whichever side; its joints
    are then compared with that hand's.

    Args:
      images: with their truth.
      detector: of hands.
      engines: by name; the first name "detector" is given to the detector's own joints.

    Returns:
      By name, then by group ("single", "interacting").
    """
    scores = {name: {group: Score() for group in GROUPS} for name in ("detector", *engines)}
    with progress_bar("Whole images", len(images), "images") as bar:
        for image in images:
            group = GROUPS[image.interacting]
            detections = detector(image.pixels)
            _count(scores["detector"][group], image, list(map(_of_detection, detections)))
            for name, engine in engines.items():
                result = reconstructed(engine, image, detections)
                _count(scores[name][group], image, list(map(_of_result, result.hands)))
            bar.advance()
    return scores


def reconstructed(
    engine: Engine, image: AnnotatedImage, detections: list[DetectedHand]
) -> Reconstruction:
    """The reconstruction of an annotated image, by its own camera."""
    photograph = Photograph(image.pixels, stored_size_px=image.pixels.shape[1::-1])
    return engine.many(
        [photograph],
        detections=[detections],
        focal_px=image.focal_px,
        principal_point_px=image.principal_point_px,
    )[0]


def draw_whole_images(
    path: Path, images: Sequence[AnnotatedImage], results: Sequence[Reconstruction]
) -> None:
    """Writes a PNG: whole images, what was found in them, and the true skeletons."""
    rows = []
    for image, result in zip(images, results, strict=True):
        truth = image.pixels.copy()
        for hand in image.hands:
            draw_skeleton(truth, hand.keypoints_px, hand.known, HAND_COLOURS[hand.side])
        rows.append([image.pixels, result.overlay(), truth])
    titles = ["whole image, no box", "found", "annotated"]
    write_image(path, image_grid(rows, titles, CELL_PX[0], CELL_PX[1]))


def _of_detection(hand: DetectedHand) -> _Found:
    return _Found(hand.side, hand.keypoints_px, hand.keypoints_px, hand.joints_m)


def _of_result(hand: Hand) -> _Found:
    seen = hand.keypoints_px if hand.detected_px is None else hand.detected_px
    return _Found(hand.side, seen, hand.keypoints_px, hand.joints)


def _count(score: Score, image: AnnotatedImage, found: Sequence[_Found]) -> None:
    score.annotated += len(image.hands)
    for truth, index in _matched(image.hands, [hand.seen_px for hand in found]):
        hand = found[index]
        score.found += 1
        score.side_right += HANDS[truth.side] == hand.side
        score.keypoint_error.append(_keypoint_error(truth, hand.keypoints_px))
        if hand.joints_m is not None:
            _add_errors(score, truth, hand.joints_m)


def _matched(
    truths: Sequence[AnnotatedHand], keypoints: Sequence[np.ndarray]
) -> Iterator[tuple[AnnotatedHand, int]]:
    """Annotated hands with the index of the found one, the nearest first, each at most once."""
    pairs = sorted(
        (_keypoint_error(truth, points), t, f)
        for t, truth in enumerate(truths)
        for f, points in enumerate(keypoints)
    )
    taken_truths: set[int] = set()
    taken: set[int] = set()
    for error, t, f in pairs:
        if error < FOUND and t not in taken_truths and f not in taken:
            taken_truths.add(t)
            taken.add(f)
            yield truths[t], f


def _keypoint_error(truth: AnnotatedHand, keypoints_px: np.ndarray) -> float:
    distance = np.linalg.norm(keypoints_px - truth.keypoints_px, axis=-1)[truth.known]
    return float(distance.mean() / truth.size_px)


def _add_errors(score: Score, truth: AnnotatedHand, joints_m: np.ndarray) -> None:
    known = truth.known & np.isfinite(truth.joints_m).all(-1)
    if known.sum() < LEAST_ALIGNED:
        return
    true = np.where(known[:, None], truth.joints_m, 0.0)
    aligned = np.asarray(_align(joints_m.T, true.T, known)).T
    score.pa_mpjpe.append(_mean_mm(aligned - true, known))
    if known[0]:
        moved = joints_m - joints_m[0] + true[0]
        score.wrist_aligned.append(_mean_mm(moved - true, known))


def _mean_mm(difference_m: Float[np.ndarray, "21 3"], known: Bool[np.ndarray, "21"]) -> float:
    return 1000 * float(np.linalg.norm(difference_m, axis=-1)[known].mean())


_align = jax.jit(similarity_align)
