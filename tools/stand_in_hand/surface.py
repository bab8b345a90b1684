"""Mesh of the stand-in hand: the subdivided cage, moved onto the flesh and evened out.

Right hand, millimetres, axes (distal, radial, dorsal) as in `skeleton`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.synthetic.skeleton import FINGERS, skeleton, to_mano_axes
from er_jax.mano.joints import TIP_VERTICES
from tools.stand_in_hand.cage import END_MM, PALM, hand_cage, subdivide
from tools.stand_in_hand.flesh import hand_flesh

VERTICES = 778


@dataclass(frozen=True)
class HandSurface:
    """The mesh, its fingertips at MANO's indices, and the finger of each vertex (−1: palm)."""

    vertices: Float[np.ndarray, "778 3"]
    faces: Int[np.ndarray, "1538 3"]
    parts: Int[np.ndarray, "778"]


@functools.cache
def hand_surface() -> HandSurface:
    """The stand-in hand's mesh at rest."""
    points, parts, quads = subdivide(hand_cage())
    points = _drawn_onto_flesh(points, parts, quads)
    points, parts, triangles = _triangulated(points, parts, quads)
    order = _mano_numbering(points, parts, triangles)
    rank = np.argsort(order)
    return HandSurface(points[order], rank[triangles], parts[order])


def to_mano_position(points_mm: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """Positions as `to_mano_axes`; MANO's origin lies in the hand's middle, not at the wrist."""
    return to_mano_axes(points_mm - np.array([95.0, 0.0, 0.0]))


def neighbour_mean(count: int, faces: Int[np.ndarray, "f k"]) -> Float[np.ndarray, "v v"]:
    """Matrix that takes the mean of a vertex's neighbours, on the border of those on the border."""
    linked = np.zeros((count, count))
    for near, far in zip(faces.T, np.roll(faces, -1, axis=1).T, strict=True):
        np.add.at(linked, (near, far), 1.0)
    border = (linked > 0) & (linked.T == 0)
    border |= border.T
    linked = np.maximum(linked, linked.T)
    on_border = border.any(axis=1)
    linked[on_border] = border[on_border]
    return linked / linked.sum(axis=1, keepdims=True)


def _drawn_onto_flesh(points: np.ndarray, parts: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Alternate evening out along the surface with steps onto it."""
    flesh, mean = hand_flesh(), neighbour_mean(len(points), quads)
    pace = 0.06 + 0.54 * (mean @ (mean @ (mean @ (mean @ (parts == PALM)))))[:, None]
    end = points[:, 0] < END_MM + 1e-6
    for step in range(16):
        value, gradient = flesh.distance(points, parts)
        normal = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        for _ in range(3 if step < 14 else 0):
            move = pace * (mean @ points - points)
            if step > 2:
                move -= (move * normal).sum(axis=1, keepdims=True) * normal
            points = points + move
        points = points - np.clip(value, -4.0, 4.0)[:, None] * normal
        points[end, 0] = END_MM
    return points


def _triangulated(
    points: np.ndarray, parts: np.ndarray, quads: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the quadrilaterals along their shorter diagonals, the largest ones from a new centre."""
    corner = points[quads]
    area = np.linalg.norm(
        np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1]), axis=1
    )
    fans = np.sort(np.argsort(-area, kind="stable")[: VERTICES - len(points)])
    plain = np.delete(np.arange(len(quads)), fans)
    a, b, c, d = quads[plain].T
    short = np.linalg.norm(points[a] - points[c], axis=1) <= np.linalg.norm(
        points[b] - points[d], axis=1
    )
    first = np.where(short[:, None], np.stack([a, b, c], 1), np.stack([b, c, d], 1))
    second = np.where(short[:, None], np.stack([a, c, d], 1), np.stack([b, d, a], 1))
    centres = points[quads[fans]].mean(axis=1)
    owner = parts[quads[fans]].max(axis=1)
    for _ in range(4):
        value, gradient = hand_flesh().distance(centres, owner)
        centres = centres - value[:, None] * gradient
    middle = len(points) + np.arange(len(fans))
    q = quads[fans]
    spokes = [np.stack([q[:, i], q[:, (i + 1) % 4], middle], 1) for i in range(4)]
    return (
        np.concatenate([points, centres]),
        np.concatenate([parts, owner]),
        np.concatenate([first, second, *spokes]),
    )


def _mano_numbering(points: np.ndarray, parts: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Old vertex at each new index: the fingers' ends at MANO's tip indices, the rest in order."""
    fixed: dict[int, int] = {}
    for finger, name in enumerate(FINGERS):
        along = skeleton().frames[3 + 3 * finger, :, 0]
        tip = int(np.argmax(np.where(parts == finger, points @ along, -np.inf)))
        fixed[TIP_VERTICES[f"{name}_4"]] = tip
    middle = fixed[TIP_VERTICES["Middle_4"]]
    beside = np.unique(triangles[(triangles == middle).any(axis=1)])
    beside = beside[beside != middle]
    fixed[TIP_VERTICES["Middle_4"] - 1] = int(beside[np.argmax(points[beside, 0])])
    taken = set(fixed.values())
    rest = iter(v for v in range(len(points)) if v not in taken)
    return np.array([fixed[i] if i in fixed else next(rest) for i in range(len(points))])
