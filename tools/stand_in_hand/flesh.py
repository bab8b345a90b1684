"""Flesh of the stand-in hand around its bones: where its skin lies.

Chains of ellipsoids (one a finger, metacarpal, web, pad or wrist), melted into one another. Right
hand, millimetres, axes (distal, radial, dorsal) as in `skeleton`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.synthetic.skeleton import FINGERS, GIRTH, skeleton
from tools.stand_in_hand.cage import PALM, along_finger

_MELT_MM = 2.6

# Along a finger: bone (0–2), fraction of its length, half width, half height, shift to the back.
_FINGER_FLESH = (
    (0, 0.00, 9.6, 10.6, -0.3),
    (0, 0.30, 9.3, 9.8, -0.6),
    (0, 0.62, 8.8, 9.0, -0.7),
    (1, 0.00, 9.3, 8.8, 0.0),
    (1, 0.50, 8.4, 7.9, -0.6),
    (2, 0.00, 8.5, 7.4, 0.0),
    (2, 0.40, 8.0, 6.9, -0.5),
    (2, 0.68, 7.0, 5.9, -0.5),
)
_THUMB_FLESH = (
    (0, -0.1, 13.0, 12.0, -2.0),
    (0, 0.20, 14.5, 13.5, -2.5),
    (0, 0.60, 13.0, 12.5, -2.5),
    (1, 0.00, 12.0, 11.2, -0.5),
    (1, 0.50, 10.3, 9.6, -0.8),
    (2, 0.00, 11.0, 9.4, 0.0),
    (2, 0.40, 10.8, 8.6, -0.6),
    (2, 0.68, 9.0, 7.2, -0.6),
)


@dataclass(frozen=True)
class Flesh:
    """Ellipsoids, sorted by chain; `starts` are the chains' first ones."""

    centres: Float[np.ndarray, "n 3"]
    axes: Float[np.ndarray, "n 3 3"]
    """Rows are the half axes' directions divided by their lengths."""
    starts: Int[np.ndarray, " chains"]
    finger: Int[np.ndarray, " chains"]
    """The finger whose chain it is, −1 for the palm's."""

    def distance(
        self, points: Float[np.ndarray, "v 3"], parts: Int[np.ndarray, " v"]
    ) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, "v 3"]]:
        """About the signed distance to the skin, mm, and its gradient.

        A vertex of a finger ignores the other fingers. The distance to an ellipsoid is Quilez's
        ρ(ρ−1)/|∇ρ²/2|; chains melt by a soft minimum.
        """
        count = len(self.centres)
        offset = np.einsum("nij,nj->ni", self.axes, self.centres)
        scaled = points @ self.axes.reshape(-1, 3).T - offset.ravel()
        squares = np.swapaxes(self.axes, 1, 2) @ self.axes
        offset = np.einsum("nij,nj->ni", squares, self.centres)
        slope = (points @ squares.reshape(-1, 3).T - offset.ravel()).reshape(-1, count, 3)
        rho = np.sqrt((scaled.reshape(-1, count, 3) ** 2).sum(-1))
        steepness = np.sqrt((slope**2).sum(-1)) + 1e-12
        each = rho * (rho - 1.0) / steepness
        nearest = np.minimum.reduceat(each, self.starts, axis=1)
        foreign = (parts[:, None] >= 0) & (self.finger >= 0) & (parts[:, None] != self.finger)
        nearest = np.where(foreign, np.inf, nearest)
        lowest = nearest.min(axis=1, keepdims=True)
        share = np.exp((lowest - nearest) / _MELT_MM)
        total = share.sum(axis=1, keepdims=True)
        value = lowest[:, 0] - _MELT_MM * np.log(total[:, 0])
        chain_of = np.repeat(np.arange(len(self.starts)), np.diff([*self.starts, each.shape[1]]))
        chosen = np.where(each == nearest[:, chain_of], (share / total)[:, chain_of], 0.0)
        return value, np.einsum("vn,vnj->vj", chosen / steepness, slope)


@functools.cache
def hand_flesh() -> Flesh:
    """All chains of ellipsoids of the hand."""
    chains: list[tuple[int, np.ndarray]] = []
    for finger, name in enumerate(FINGERS):
        chains.append((finger, _finger_chain(finger, name)))
        if name != "Thumb":
            chains += [(PALM, chain) for chain in _metacarpal(1 + 3 * finger, GIRTH[name])]
    chains += [(PALM, chain) for chain in (*_webs(), *_pads(), _wrist())]
    sizes = [len(chain) for _, chain in chains]
    every = np.concatenate([chain for _, chain in chains])
    return Flesh(
        every[:, 0],
        every[:, 1:],
        np.cumsum([0, *sizes[:-1]]),
        np.array([finger for finger, _ in chains]),
    )


def _finger_chain(finger: int, name: str) -> Float[np.ndarray, "n 4 3"]:
    hand, first = skeleton(), 1 + 3 * finger
    corners = np.append(hand.joints[first : first + 3], hand.tips[None, finger], axis=0)
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    stations = []
    for bone, fraction, width, height, shift in _THUMB_FLESH if name == "Thumb" else _FINGER_FLESH:
        centre, frame = along_finger(finger, lengths[:bone].sum() + fraction * lengths[bone])
        centre = centre + GIRTH[name] * shift * frame[:, 2]
        stations.append((centre, frame, GIRTH[name] * width, GIRTH[name] * height))
    end = hand.tips[finger] - stations[-1][0]
    return _chain(stations, tip_mm=float(end @ stations[-1][1][:, 0]))


def _metacarpal(knuckle_joint: int, girth: float) -> list[Float[np.ndarray, "n 4 3"]]:
    """A finger's part of the palm, and its knuckle."""
    knuckle, frame = skeleton().joints[knuckle_joint], skeleton().frames[knuckle_joint]
    start = np.array([14.0, 0.62 * knuckle[1], 1.0])
    bone = [
        (start, frame, 11.0, 13.0),
        (0.5 * (start + knuckle) + (0, 0, -0.5), frame, 10.5, 12.0),
        (knuckle + np.array([-8.0, 0, -1.8]), frame, 10.3 * girth, 11.4),
        (knuckle + np.array([5.0, 0, -1.2]), frame, 9.6 * girth, 10.6 * girth),
    ]
    bump = _ellipsoid(knuckle + 2.2 * frame[:, 2], frame, (8.5, 7.0, 9.6))
    return [_chain(bone), bump]


def _webs() -> list[Float[np.ndarray, "n 4 3"]]:
    """The skin between neighbouring fingers, and the thin fold between index and thumb."""
    hand = skeleton()
    webs = []
    across = [1 + 3 * FINGERS.index(name) for name in ("Index", "Middle", "Ring", "Pinky")]
    for one, other, reach in zip(across[:-1], across[1:], (8.0, 8.0, 4.5), strict=True):
        middle = 0.5 * (hand.joints[one] + hand.joints[other])
        along = hand.frames[one, :, 0] + hand.frames[other, :, 0]
        along /= np.linalg.norm(along)
        side = np.cross([0.0, 0.0, 1.0], along)
        frame = np.stack([along, side / np.linalg.norm(side), np.cross(along, side)], axis=1)
        webs.append(_ellipsoid(middle + reach * along + (0, 0, -1.5), frame, (11.0, 9.0, 7.0)))
    for from_thumb, from_index, half_width, half_height in (
        (33.0, (66.0, 18.0, -3.0), 8.5, 8.0),
        (20.0, (48.0, 15.0, -4.0), 10.0, 11.0),
    ):
        start, _ = along_finger(FINGERS.index("Thumb"), from_thumb)
        across = np.array(from_index) - start
        across /= np.linalg.norm(across)
        distal = np.cross(np.cross(across, [1.0, 0.3, 0.0]), across)
        distal /= np.linalg.norm(distal)
        frame = np.stack([across, distal, np.cross(across, distal)], axis=1)
        ends = (start, np.array(from_index))
        webs.append(_chain([(end, frame, half_width, half_height) for end in ends]))
    return webs


def _pads() -> list[Float[np.ndarray, "n 4 3"]]:
    """The ball of the thumb and the heel of the hand on the little finger's side."""
    level = np.eye(3)
    turned = np.array([[0.87, -0.5, 0.0], [0.5, 0.87, 0.0], [0.0, 0.0, 1.0]])
    return [
        _ellipsoid(np.array([37.0, 20.0, -14.0]), turned, (27.0, 14.0, 12.0)),
        _ellipsoid(np.array([36.0, -25.0, -8.0]), level, (34.0, 12.0, 13.0)),
    ]


def _wrist() -> Float[np.ndarray, "n 4 3"]:
    level = np.eye(3)
    return _chain(
        [
            (np.array([-40.0, 0.0, -1.0]), level, 28.0, 20.0),
            (np.array([-14.0, 0.0, -1.0]), level, 25.5, 18.0),
            (np.array([2.0, 0.0, -1.0]), level, 25.5, 17.0),
            (np.array([16.0, -1.0, -1.0]), level, 28.0, 15.5),
        ]
    )


def _ellipsoid(
    centre: np.ndarray, frame: np.ndarray, half_axes: tuple[float, float, float]
) -> Float[np.ndarray, "1 4 3"]:
    return np.concatenate([centre[None], (frame / np.array(half_axes)).T])[None]


def _chain(
    stations: list[tuple[np.ndarray, np.ndarray, float, float]], tip_mm: float | None = None
) -> Float[np.ndarray, "n 4 3"]:
    """Ellipsoids about every 3.5 mm between stations (centre, frame, half width, half height).

    The last one reaches `tip_mm` ahead of its centre (default: its mean half axis).
    """
    centres = np.array([centre for centre, *_ in stations])
    spans = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    places = np.concatenate([[0.0], np.cumsum(spans)])
    samples = np.linspace(0.0, places[-1], int(places[-1] / 3.5) + 2)
    blend = np.stack([np.interp(samples, places, unit) for unit in np.eye(len(places))], axis=1)
    ease = np.array([0.25, 0.5, 0.25])
    padded = np.pad(blend, ((2, 2), (0, 0)), mode="edge")
    for _ in range(2):
        padded = np.stack([np.convolve(column, ease, "valid") for column in padded.T], axis=1)
    blend = padded
    blend[[0, -1]] = np.eye(len(places))[[0, -1]]
    frames = np.einsum("sk,kij->sij", blend, np.array([frame for _, frame, *_ in stations]))
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    cross = blend @ np.array([station[2:] for station in stations])
    half = np.column_stack([cross.mean(axis=1), cross])
    if tip_mm is not None:
        half[-1, 0] = tip_mm
    chain = np.empty((len(samples), 4, 3))
    chain[:, 0] = blend @ centres
    chain[:, 1:] = np.swapaxes(frames / half[:, None, :], 1, 2)
    return chain
