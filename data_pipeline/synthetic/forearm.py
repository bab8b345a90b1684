"""A forearm for a hand mesh that ends at the wrist: rings that carry its open edge on."""

import numpy as np
from jaxtyping import Float, Int

_RING_STEPS_M = np.array([0.02, 0.025, 0.03, 0.03, 0.035, 0.04, 0.05, 0.07, 0.09, 0.11])
RING_DISTANCES_M = np.cumsum(_RING_STEPS_M)
"""Distance of each ring from the wrist's edge along the forearm."""


def open_edge(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, " K"]:
    """Vertices of the mesh's one hole in order, along its faces' own direction.

    Raises ValueError for a mesh without a hole.
    """
    sides = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()
    present = set(map(tuple, sides))
    after = {start: end for start, end in present if (end, start) not in present}
    if not after:
        raise ValueError("the hand has no open edge at the wrist to carry a forearm")
    ring = [min(after)]
    while (following := after[ring[-1]]) != ring[0]:
        ring.append(following)
    return np.array(ring)


def forearm_faces(rim: Int[np.ndarray, " K"], vertex_count: int) -> Int[np.ndarray, "F 3"]:
    """Faces between the rings, whose vertices follow the hand's `vertex_count`."""
    around = len(rim)
    rings = np.concatenate([rim, vertex_count + np.arange(len(_RING_STEPS_M) * around)]).reshape(
        -1, around
    )
    near, far = rings[:-1].ravel(), rings[1:].ravel()
    near_next, far_next = (np.roll(r, -1, axis=1).ravel() for r in (rings[:-1], rings[1:]))
    return np.concatenate(
        [np.stack([near_next, near, far], axis=1), np.stack([near_next, far, far_next], axis=1)]
    )


def forearm_rings(
    vertices: Float[np.ndarray, "V 3"],
    rim: Int[np.ndarray, " K"],
    elbow: Float[np.ndarray, "3"],
    sleeve_from_m: float,
) -> Float[np.ndarray, "RK 3"]:
    """Rings that carry the wrist's edge on towards the elbow, wider from the sleeve on.

    elbow: unit vector, less than a right angle from the wrist's own axis.
    """
    edge = vertices[rim]
    centre = edge.mean(axis=0)
    start = np.cross(edge - centre, np.roll(edge, -1, axis=0) - centre).sum(axis=0)
    start /= np.linalg.norm(start)
    start = start if start @ (centre - vertices.mean(axis=0)) > 0 else -start
    rings, middle = [], centre
    for ring, (step_m, distance_m) in enumerate(zip(_RING_STEPS_M, RING_DISTANCES_M, strict=True)):
        bend = min(1.0, (ring + 1) / 4)
        way = (1 - bend) * start + bend * elbow
        way /= np.linalg.norm(way)
        middle = middle + step_m * way
        wider = 1 + 1.5 * min(distance_m, 0.25) + 0.1 * (distance_m > sleeve_from_m)
        rings.append(middle + (edge - centre) @ _turn(start, way).T * wider)
    return np.concatenate(rings)


def _turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes one unit vector to another, not its opposite."""
    axis = np.cross(start, end)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)
