"""MediaPipe's two hand networks, run by LiteRT: hands anywhere in a picture of any size.

The palm detector looks at square views of the picture; the landmark network judges each palm found
(its presence, not the palm's score, decides) and looks again at the square around its own first
answer. On the stand-in's test pictures the second look took about a tenth off the mean error;
mirrored and turned crops, and means of several, changed it by 4 % or less and are not made.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from er_jax.detection import landmarks, palms
from er_jax.detection.regions import Pyramid, Region
from er_jax.detection.types import DetectedHand, DetectorError, box_around
from er_jax.detection.weights import LANDMARKS_FILE, PALMS_FILE, weights_dir
from er_jax.utils.native import native_messages_dropped

PRESENCE = 0.5
"""Least presence, by the landmark network, of what is a hand."""
SURE_PALM, LIKELY_PALM = 0.5, 0.2
"""Least score of a palm: MediaPipe's own, and where few hands were found."""
SAME_HAND, SAME_HAND_OTHER_SIDE = 0.3, 0.25
"""Mean distance of keypoints over the larger hand's size, under which two answers are one hand.

Of two hands that interact, 2 in 100 are nearer than 0.34, none nearer than 0.31 (stand-in).
"""
_PART_SIZE, _PART_INSIDE = 0.6, 0.8
"""An answer so much smaller, with that share of its keypoints in a surer hand's box, is a part of
that hand (a fist's fingers) taken for a hand. The rule cost none of 364 hands (stand-in).
"""
_SAME_PALM = 0.25  # mean distance of a palm's keypoints over its own size
_TILE, _SMALL_TILE = 0.62, 0.35  # sides, of the picture's longer side
_SMALL_HAND = 0.15  # of the picture's longer side
_AGREEMENT = 0.03
"""Of the hand's size: a keypoint that moved so far at the second look has half the confidence.

The squared error of keypoints grows with that movement m as 1 + (m / 0.03)², about.
"""


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What the landmark network said of a palm."""

    palm_score: float
    landmarks: landmarks.Landmarks
    confidence: Float[np.ndarray, "21"]

    @property
    def rank(self) -> float:
        return self.landmarks.presence * (1 + self.palm_score)

    @property
    def size(self) -> float:
        return _size(self.landmarks.keypoints_px)

    def repeats(self, surer: "_Answer") -> bool:
        """Whether this is the same hand as a surer answer's, or a part of it."""
        points, others = self.landmarks.keypoints_px, surer.landmarks.keypoints_px
        same_side = (self.landmarks.right >= 0.5) == (surer.landmarks.right >= 0.5)
        limit = SAME_HAND if same_side else SAME_HAND_OTHER_SIDE
        distance = np.linalg.norm(points - others, axis=1).mean()
        if distance < limit * max(self.size, surer.size):
            return True
        inside = ((points >= others.min(axis=0)) & (points <= others.max(axis=0))).all(axis=1)
        return self.size < _PART_SIZE * surer.size and bool(inside.mean() >= _PART_INSIDE)


class MediaPipeHands:
    """A `Detector`. It is deterministic; one object must not be called from two threads at once.

    Args:
      detector_dir: the folder of the two networks; None: see `weights.weights_dir`.
      thorough: where the view of the whole picture does not give as many right as left hands, go on
        with palms of low scores, overlapping tiles, a wider view and one upside down, and, where no
        hand or only small ones were found, small tiles. Otherwise only sure palms in the one view.
      threads: of each network.

    Raises:
      DetectorError: the networks are not there and cannot be fetched, or are other files.
    """

    def __init__(
        self, detector_dir: Path | None = None, *, thorough: bool = True, threads: int = 2
    ):
        folder = weights_dir(detector_dir)
        self._palms = LiteRTNetwork(folder / PALMS_FILE, threads)
        self._landmarks = LiteRTNetwork(folder / LANDMARKS_FILE, threads)
        self._thorough = thorough

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[DetectedHand]:
        """Returns the hands of an RGB picture, the surest first."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"an image is RGB of shape (height, width, 3), uint8; this one is {image.dtype} "
                f"of shape {image.shape}"
            )
        picture = Pyramid(image)
        answers: list[_Answer] = []
        seen: list[Float[np.ndarray, "7 2"]] = []
        for view in self._views(picture, answers):
            values, logits = self._palms(picture.crop(view, palms.INPUT_SIZE))
            threshold = LIKELY_PALM if self._thorough else SURE_PALM
            found = palms.decode(values, logits[:, 0], threshold)
            places = view.to_picture(found.keypoints)
            regions = palms.hand_regions(found, view)
            for score, place, region in zip(found.scores, places, regions, strict=True):
                if score < SURE_PALM and _is_complete(_distinct(answers)):
                    break
                if _is_known(place, answers, seen):
                    continue
                seen.append(place)
                answer = self._judge(picture, float(score), region)
                if answer is not None:
                    answers.append(answer)
        return [_as_hand(answer) for answer in _distinct(answers)]

    def follow(
        self, image: UInt8[np.ndarray, "H W 3"], keypoints_px: Float[np.ndarray, "n 21 2"]
    ) -> list[DetectedHand | None]:
        """The hands near to these keypoints, of the frame before; None where there is none.

        One look at each: a keypoint's confidence is the hand's presence.
        """
        picture = Pyramid(image)
        found: list[DetectedHand | None] = []
        for points in keypoints_px:
            seen = self._look(picture, landmarks.region_of_hand(points))
            there = seen.presence >= PRESENCE
            answer = _Answer(0.0, seen, np.full(21, seen.presence))
            found.append(_as_hand(answer) if there else None)
        return found

    def _views(self, picture: Pyramid, answers: list[_Answer]) -> Iterator[Region]:
        """The views to search, as long as they are needed; `answers` grows meanwhile."""
        width, height = picture.size_px
        longer = max(width, height)
        whole = Region((width - 1) / 2, (height - 1) / 2, longer)
        yield whole
        if not self._thorough:
            return
        for view in (
            *tiles(width, height, _TILE * longer),
            dataclasses.replace(whole, side=1.5 * longer),
            dataclasses.replace(whole, angle=math.pi),
        ):
            if _is_complete(_distinct(answers)):
                return
            yield view
        sizes = [answer.size for answer in answers]
        if min(sizes, default=0) < _SMALL_HAND * longer and _SMALL_TILE * longer > 96:
            yield from tiles(width, height, _SMALL_TILE * longer)

    def _judge(self, picture: Pyramid, palm_score: float, region: Region) -> _Answer | None:
        """Looks twice for the hand of a palm; None where there is none."""
        first = self._look(picture, region)
        if first.presence < PRESENCE / 5:  # the second look does not find it either
            return None
        second = self._look(picture, landmarks.region_of_hand(first.keypoints_px))
        moved = np.linalg.norm(first.keypoints_px - second.keypoints_px, axis=1)
        best = second if second.presence >= min(PRESENCE, first.presence) else first
        if best.presence < PRESENCE:
            return None
        agreement = 1 / (1 + (moved / (_AGREEMENT * _size(best.keypoints_px))) ** 2)
        return _Answer(palm_score, best, best.presence * agreement)

    def _look(self, picture: Pyramid, region: Region) -> landmarks.Landmarks:
        points, presence, right, world = self._landmarks(picture.crop(region, landmarks.INPUT_SIZE))
        return landmarks.place_landmarks(region, points, world, presence.item(), right.item())


class LiteRTNetwork:
    """A TFLite file; its outputs in the file's order, without the batch axis."""

    def __init__(self, path: Path, threads: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise DetectorError(
                f"the detector runs by ai-edge-litert, which cannot be imported ({error}): "
                "`pip install ai-edge-litert`. There is none for Macs with Intel processors: give "
                "the hands of another detector (--detections FILE)."
            ) from None
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        with native_messages_dropped():
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [entry["index"] for entry in self._interpreter.get_output_details()]

    def __call__(self, crop: Float[np.ndarray, "size size 3"]) -> list[Float[np.ndarray, "..."]]:
        self._interpreter.set_tensor(self._input, crop[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def tiles(width: int, height: int, side: float) -> list[Region]:
    """Squares that cover a picture; neighbours overlap by about half, row by row.

    Along an axis that is hardly longer than the side there is one, in the middle.
    """

    def middles(length: int) -> list[float]:
        extra = max(0.0, length - side)
        count = 1 + round(extra / (side / 2))
        if count == 1:
            return [(length - 1) / 2]
        return [(side - 1) / 2 + extra * i / (count - 1) for i in range(count)]

    return [Region(x, y, side) for y in middles(height) for x in middles(width)]


def _distinct(answers: list[_Answer]) -> list[_Answer]:
    """The surest answer of each hand, the surest first."""
    kept: list[_Answer] = []
    for answer in sorted(answers, key=lambda each: -each.rank):
        if not any(answer.repeats(other) for other in kept):
            kept.append(answer)
    return kept


def _is_complete(answers: list[_Answer]) -> bool:
    """Whether there are as many right as left hands, at least one of each."""
    right = sum(answer.landmarks.right >= 0.5 for answer in answers)
    return 0 < 2 * right == len(answers)


def _is_known(
    place: Float[np.ndarray, "7 2"],
    answers: list[_Answer],
    seen: list[Float[np.ndarray, "7 2"]],
) -> bool:
    """Whether a palm is one that was judged before, or that of a hand found."""
    known = [answer.landmarks.keypoints_px[palms.JOINTS] for answer in answers]
    limit = _SAME_PALM * _size(place)
    return any(np.linalg.norm(place - other, axis=1).mean() < limit for other in (*known, *seen))


def _size(points: Float[np.ndarray, "N 2"]) -> float:
    """Longer side of the box around points."""
    return float(np.ptp(points, axis=0).max())


def _as_hand(answer: _Answer) -> DetectedHand:
    found = answer.landmarks
    right = found.right >= 0.5
    return DetectedHand(
        side="right" if right else "left",
        side_probability=found.right if right else 1 - found.right,
        score=found.presence,
        box_px=box_around(found.keypoints_px),
        keypoints_px=found.keypoints_px,
        confidence=answer.confidence,
        relative_depth_px=found.relative_depth_px,
        joints_m=found.joints_m,
    )
