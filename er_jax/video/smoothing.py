"""Smooth hands: over a whole track that is known to its end, or live, frame by frame.

Both work on the same three things: rotations on the manifold; one shape of the hand; and the
place of the palm's middle, which is far surer across the ray from the camera than along it.

The palm's middle and not the wrist, since a hand that is seen turned a little wrongly lies where
it is seen with its middle, not with its wrist. Where a shape replaces another, the middle is moved
along its ray by the ratio of the two hands' sizes: the hand stays where it is in the picture, and
as large. The wrist follows from the middle, the root's rotation and the shape.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from er_jax.mano import HAND21, MANO16, HandModel, joint_order
from er_jax.video.least_squares import (
    LEAST_WEIGHT,
    exp,
    log,
    nearest_rotations,
    smooth_points,
    smooth_rotations,
)
from er_jax.video.palm import Palm
from er_jax.video.track import HandTrack

CUTOFF_HZ = 4.0
"""Of those tried the one that is nowhere far from the best: of two drawn clips at three speeds, its
joints are at most 0.9 mm worse than by the best one of each; `benchmarks.video_smoothing`."""
MOST_FILLED_S = 0.25
OUTLIER_SIGMAS = 3.0

LIVE_CUTOFF_HZ = 2.0
LIVE_ROTATION_HZ, LIVE_PLACE_HZ = 0.4, 4.0
_LIVE_DERIVATIVE_HZ = 1.0  # as the paper has it
_LIVE_DEPTH, _LIVE_BETAS = 0.2, 0.02  # of the cut-off
_LIVE_RESET_S = 0.5

_ENDS = joint_order(HAND21, tuple(f"{n[:-1]}{int(n[-1]) + 1}" for n in MANO16[1:]))
"""Where the bone that a finger's joint turns ends, in `HAND21`; in the order of `MANO16`."""
_KNUCKLES = [index for index, name in enumerate(HAND21) if name[-1] == "1"]


def smooth(
    track: HandTrack,
    frame_times_s: Float[np.ndarray, "F"],
    hands: HandModel,
    *,
    cutoff_hz: float = CUTOFF_HZ,
    most_filled_s: float = MOST_FILLED_S,
    outlier_sigmas: float = OUTLIER_SIGMAS,
) -> HandTrack:
    """A track without jitter, its short gaps filled, with one shape.

    Rotations and the place minimise the squares of the weighted distances from what was seen, plus
    those of the accelerations. Longer gaps stay, and the track on either side of one is smoothed by
    itself. Frames that were `filled` before are filled anew.

    Weights are relative to the median frame of the track: of rotations by the score, and by
    `confidence` and `joint_sigma_m` where the bone that they turn ends; of the place by the score
    and `depth_sigma_m`, and along the ray less by the ratio of the two sigmas.

    Args:
      track: of one hand.
      frame_times_s: of all frames of the clip, ascending.
      hands: both hand models that the track was made with.
      cutoff_hz: of a motion this fast half of the amplitude is left, one half as fast is left
        nearly whole; of the depth, less sure, about a third of this. Infinite: only gaps are
        filled, and the shapes made one.
      most_filled_s: the longest time without the hand that is filled.
      outlier_sigmas: what is farther off than that, in robust standard deviations of the track,
        counts a quarter or less. Infinite: all counts alike.

    Returns:
      The track; `joint_sigma_m` and `depth_sigma_m` still those of frames by themselves, in filled
      ones between those of their neighbours.
    """
    seen = ~track.filled
    if not seen.any():
        return track
    times = np.asarray(frame_times_s, np.float64)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    known = track.frames[seen]
    frames, source = _with_short_gaps(known, times, most_filled_s + 1.5 * step)
    measured = source >= 0
    last = np.maximum.accumulate(source)  # the first frame is one that was seen
    rows = np.flatnonzero(seen)[last]

    palm = Palm.of(hands, track.side)
    sure = _sureness(track.joint_sigma_m[seen], track.confidence[seen], track.score[seen])
    sure_of_place = _relative(track.score[seen]) / _relative(track.depth_sigma_m[seen]) ** 2
    # Not zero: of one frame alone that is sure, no motion would follow.
    sure, sure_of_place = (np.maximum(x, LEAST_WEIGHT) for x in (sure, sure_of_place))
    betas = _weighted_mean(track.betas[seen], sure[:, 0])
    place = palm.middle(track.betas, track.rotations[:, 0], track.transl)
    place = place * (palm.size(betas) / palm.size(track.betas))[:, None]
    sideways = np.sqrt((track.joint_sigma_m**2).mean(1) / track.joint_sigma_m.shape[1])
    ratio = np.median(sideways[seen] / np.maximum(track.depth_sigma_m[seen], 1e-9))

    count = len(frames)
    weights = np.where(measured, sure[last].T, 0.0)
    rotations = np.swapaxes(track.rotations[rows], 0, 1).astype(np.float64)
    places = place[rows].astype(np.float64)
    precision = ray_precision(places, min(float(ratio), 1.0))
    precision *= np.where(measured, sure_of_place[last], 0.0)[:, None, None]
    for part in _pieces(frames, times, most_filled_s + 1.5 * step):
        arguments = (times[frames[part]], cutoff_hz, step, outlier_sigmas)
        rotations[:, part] = smooth_rotations(rotations[:, part], weights[:, part], *arguments)
        places[part] = smooth_points(places[part], precision[part], *arguments)
    rotations = np.swapaxes(rotations, 0, 1)
    betas = np.repeat(betas[None], count, axis=0)

    def spread(values: np.ndarray) -> np.ndarray:
        columns = values[seen].reshape(len(known), -1).T
        between = [np.interp(times[frames], times[known], column) for column in columns]
        return np.stack(between, axis=-1).reshape(count, *values.shape[1:])

    def put(values: np.ndarray, otherwise: float) -> np.ndarray:
        there = measured.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(there, values[rows], otherwise)

    return dataclasses.replace(
        track,
        frames=frames,
        filled=~measured,
        score=put(track.score, 0.0),
        betas=betas,
        rotations=rotations,
        transl=palm.transl(betas, rotations[:, 0], places),
        keypoints_px=put(track.keypoints_px, np.nan),
        confidence=put(track.confidence, 0.0),
        joint_sigma_m=spread(track.joint_sigma_m),
        depth_sigma_m=spread(track.depth_sigma_m),
    )


def ray_precision(points: Float[np.ndarray, "T 3"], ratio: float) -> Float[np.ndarray, "T 3 3"]:
    """Weights 1 across the ray from the camera to a point, ratio² along it.

    Args:
      points: camera axes.
      ratio: of the standard deviations across and along.
    """
    ray = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)
    return np.eye(3) - (1 - ratio**2) * ray[..., :, None] * ray[..., None, :]


def _with_short_gaps(
    known: Int[np.ndarray, "T"], times: Float[np.ndarray, "F"], longest_s: float
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Frames of a track with those in its short gaps, and their places in `known` or -1."""
    inside = np.zeros(len(times), bool)
    inside[known] = True
    for before, after in itertools.pairwise(known):
        if times[after] - times[before] <= longest_s:
            inside[before:after] = True
    frames = np.flatnonzero(inside)
    place = np.full(len(times), -1)
    place[known] = np.arange(len(known))
    return frames, place[frames]


def _pieces(
    frames: Int[np.ndarray, "N"], times: Float[np.ndarray, "F"], longest_s: float
) -> list[slice]:
    ends = np.flatnonzero(np.diff(times[frames]) > longest_s) + 1
    return [slice(a, b) for a, b in zip((0, *ends), (*ends, len(frames)), strict=True)]


def _sureness(
    joint_sigma_m: Float[np.ndarray, "T 21"],
    confidence: Float[np.ndarray, "T 21"],
    score: Float[np.ndarray, "T"],
) -> Float[np.ndarray, "T 16"]:
    """Weights of the rotations relative to the median frame, of joints in the order `MANO16`."""

    def of_bones(values: Float[np.ndarray, "T 21"]) -> Float[np.ndarray, "T 16"]:
        root = values[:, _KNUCKLES].mean(1, keepdims=True)
        return np.concatenate([root, values[:, _ENDS]], axis=1)

    sigma = _relative(of_bones(joint_sigma_m))
    known = _relative(of_bones(confidence)) * _relative(score)[:, None]
    return known / np.maximum(sigma, 0.1) ** 2


def _relative(values: Float[np.ndarray, "T *n"]) -> Float[np.ndarray, "T *n"]:
    """Over the median frame's; all alike where that is zero."""
    usual = np.median(values, axis=0)
    return np.where(usual > 0, values / np.where(usual > 0, usual, 1.0), 1.0)


def _weighted_mean(
    betas: Float[np.ndarray, "T 10"], weights: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "10"]:
    weights = weights if weights.sum() > 0 else np.ones_like(weights)
    return np.average(betas, axis=0, weights=weights)


class Pose(NamedTuple):
    """What `mano_forward` takes of one hand."""

    betas: Float[np.ndarray, "10"]
    rotations: Float[np.ndarray, "16 3 3"]
    transl: Float[np.ndarray, "3"]


class LiveFilter:
    """A One-Euro filter of one hand, fed frame by frame.

    Casiez, Roussel, Vogel, "1 € filter", CHI 2012: a low-pass filter whose cut-off rises with the
    speed, so that a hand at rest does not tremble and a fast one does not lag. Of rotations speed
    and steps are in the tangent space; of the place along and across its ray apart; of the shape
    it begins as the mean of all frames, and speed does not count.

    Args:
      hands: both hand models.
      side: "right" or "left".
      cutoff_hz: at rest, of rotations and of the place across the ray; along it and of the shape
        the shares of this that are `_LIVE_DEPTH` and `_LIVE_BETAS`. Infinite: nothing is filtered.
      rotation_hz: by which it rises at 1 rad/s.
      place_hz: by which it rises at 1 m/s.
      reset_s: after this time without the hand it begins anew, but for the shape.
    """

    def __init__(
        self,
        hands: HandModel,
        side: str,
        *,
        cutoff_hz: float = LIVE_CUTOFF_HZ,
        rotation_hz: float = LIVE_ROTATION_HZ,
        place_hz: float = LIVE_PLACE_HZ,
        reset_s: float = _LIVE_RESET_S,
    ):
        self._palm = Palm.of(hands, side)
        self._cutoff_hz, self._reset_s = cutoff_hz, reset_s
        self._rotation_hz, self._place_hz = rotation_hz, place_hz
        self._time_s = -math.inf
        self._betas: np.ndarray | None = None
        self._frames = 0
        self._rotations, self._place = np.tile(np.eye(3), (16, 1, 1)), np.zeros(3)
        self._turning, self._across, self._along = self._filters()

    def __call__(
        self,
        time_s: float,
        betas: Float[np.ndarray, "10"],
        rotations: Float[np.ndarray, "16 3 3"],
        transl: Float[np.ndarray, "3"],
    ) -> Pose:
        """The hand of the next frame.

        Raises:
          ValueError: the time is not after that of the frame before.
        """
        step = time_s - self._time_s
        if not step > 0:
            raise ValueError(f"a frame at {time_s} s after one at {self._time_s} s")
        self._time_s = time_s
        betas, rotations, transl = (np.asarray(x, np.float64) for x in (betas, rotations, transl))
        self._frames += 1
        if self._betas is None:
            self._betas = betas
        share = _share(_LIVE_BETAS * self._cutoff_hz, step)
        self._betas = self._betas + max(share, 1 / self._frames) * (betas - self._betas)
        place = self._palm.middle(betas, rotations[0], transl)
        place = place * (self._palm.size(self._betas) / self._palm.size(betas))
        if step > self._reset_s:
            self._rotations, self._place = rotations, place
            self._turning, self._across, self._along = self._filters()
        else:
            turn = log(np.swapaxes(self._rotations, -1, -2) @ rotations)
            self._rotations = nearest_rotations(
                self._rotations @ exp(self._turning.step(turn, step))
            )
            ray = place / max(float(np.linalg.norm(place)), 1e-9)
            change = place - self._place
            along = (change @ ray) * ray
            self._place = (
                self._place
                + self._along.step(along, step)
                + self._across.step(change - along, step)
            )
        return Pose(
            self._betas,
            self._rotations,
            self._palm.transl(self._betas, self._rotations[0], self._place),
        )

    def _filters(self) -> tuple["_OneEuro", "_OneEuro", "_OneEuro"]:
        return (
            _OneEuro(self._cutoff_hz, self._rotation_hz),
            _OneEuro(self._cutoff_hz, self._place_hz),
            _OneEuro(_LIVE_DEPTH * self._cutoff_hz, _LIVE_DEPTH * self._place_hz),
        )


class _OneEuro:
    """The share of a change that is followed."""

    def __init__(self, cutoff_hz: float, per_speed: float):
        self._cutoff_hz, self._per_speed = cutoff_hz, per_speed
        self._velocity: np.ndarray | float = 0.0

    def step(self, change: Float[np.ndarray, "*n d"], step_s: float) -> Float[np.ndarray, "*n d"]:
        """The step from the value filtered before.

        Args:
          change: from that value to the new one.
          step_s: time since.
        """
        share = _share(_LIVE_DERIVATIVE_HZ, step_s)
        self._velocity = self._velocity + share * (change / step_s - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        return _share(self._cutoff_hz + self._per_speed * speed, step_s) * change


def _share(cutoff_hz, step_s: float):
    """Of an exponential filter with that cut-off."""
    return 1 / (1 + 1 / (2 * math.pi * step_s * cutoff_hz))
