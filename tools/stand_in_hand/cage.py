"""Connectivity of the stand-in hand: a cage of quadrilaterals, subdivided once.

The palm is a tube from the wrist to the fingers, whose eight columns at the wrist become sixteen at
the knuckles (a finger or a web each, on both sides); each finger is a tube of four columns pulled
out of its end, the thumb one pulled out of its thumb side. One Catmull–Clark step doubles all of
it. Positions are only a start: `surface` moves every vertex onto the hand's surface.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.synthetic.skeleton import FINGERS, skeleton

PALM = -1
END_MM = -20.0
"""Where the forearm is cut, on the distal axis."""
_ACROSS = ("Index", "Middle", "Ring", "Pinky")
_WEB_MM = {"Index": 25.0, "Middle": 27.0, "Ring": 25.0, "Pinky": 21.0, "Thumb": 0.0}
"""Distance of the finger's first free ring from its first joint."""
_CORNERS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
"""Corners of a finger's ring (side, back): thumb side first, anticlockwise seen from the tip."""


@dataclass
class Cage:
    """A growing mesh of quadrilaterals: positions in mm, and the finger each vertex belongs to."""

    points: list[Float[np.ndarray, "3"]] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    faces: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, point: object, part: int = PALM) -> int:
        self.points.append(np.asarray(point, float))
        self.parts.append(part)
        return len(self.points) - 1

    def join(self, near: list[int], far: list[int], without: int | None = None) -> None:
        """A band of quadrilaterals between two closed rings, but for the one at `without`."""
        for i in range(len(near)):
            k = (i + 1) % len(near)
            if i != without:
                self.faces.append((near[i], near[k], far[k], far[i]))


def hand_cage() -> Cage:
    """The coarse hand, open at the wrist: one boundary loop of eight edges."""
    cage = Cage()
    webs, thumb_hole = _add_palm(cage)
    for name, root in zip(_ACROSS, webs, strict=True):
        _add_finger(cage, name, root)
    _add_finger(cage, "Thumb", thumb_hole)
    return cage


def _add_palm(cage: Cage) -> tuple[list[list[int]], list[int]]:
    """The palm; returns the rings that the four fingers and the thumb grow out of."""
    end, wrist, heel, middle, palm, knuckles, roots = _palm_rings(cage)
    for near, far, hole in ((end, wrist, None), (wrist, heel, None), (heel, middle, 7)):
        cage.join(near, far, hole)
    for near, far in ((middle[:4], palm[:8]), (middle[4:], palm[8:])):
        _join_narrowing(cage, near, far)
    cage.faces.append((middle[3], middle[4], palm[8], palm[7]))
    cage.faces.append((middle[7], middle[0], palm[0], palm[15]))
    cage.join(palm, knuckles)
    cage.join(knuckles, roots)
    for i in (1, 3, 5):
        cage.faces.append((roots[i], roots[i + 1], roots[14 - i], roots[15 - i]))
    fingers = [[roots[i], roots[i + 1], roots[14 - i], roots[15 - i]] for i in (0, 2, 4, 6)]
    return fingers, [heel[0], middle[0], middle[7], heel[7]]


def _palm_rings(cage: Cage) -> list[list[int]]:
    """From the forearm to the fingers: four rings of eight corners, three of sixteen.

    A ring runs over the back from the thumb side to the little finger's, and back over the palm.
    """
    hand = skeleton()
    firsts = [1 + 3 * FINGERS.index(name) for name in _ACROSS]

    def finger_ring(along_mm: list[float], half_width: float, half_height: float) -> list[int]:
        back, front = [], []
        for joint, distance in zip(firsts, along_mm, strict=True):
            along, side, up = hand.frames[joint].T
            if distance < 0:
                along = hand.joints[joint] * (1.0, 0.55, 0.0)
                along = along / np.linalg.norm(along)
            centre = hand.joints[joint] + distance * along
            for sign in (1.0, -1.0):
                back.append(centre + sign * half_width * side + half_height * up)
                front.append(centre + sign * half_width * side - half_height * up)
        return [cage.add(point) for point in back + front[::-1]]

    def level_ring(distal: float, lines: list[float], half_height: float) -> list[int]:
        back = [(distal, line, half_height) for line in lines]
        front = [(distal, line, -half_height) for line in lines]
        return [cage.add(point) for point in back + front[::-1]]

    roots = finger_ring([_WEB_MM[name] for name in _ACROSS], 8.0, 7.0)
    knuckles = finger_ring([2.0, 2.0, 2.0, 2.0], 8.0, 11.0)
    palm = finger_ring([-20.0, -20.0, -19.0, -17.0], 7.5, 12.0)
    middle = level_ring(54.0, [31.0, 9.0, -10.0, -31.0], 13.0)
    heel = level_ring(16.0, [27.0, 9.0, -10.0, -29.0], 15.0)
    wrist = level_ring(-4.0, [24.0, 9.0, -9.0, -24.0], 15.0)
    end = level_ring(END_MM, [24.0, 9.0, -9.0, -24.0], 16.0)
    # the corners at the web of the thumb
    for corner in (middle[0], middle[7]):
        cage.points[corner][0] += 6.0
    return [end, wrist, heel, middle, palm, knuckles, roots]


def _join_narrowing(cage: Cage, near: list[int], far: list[int]) -> None:
    """Three columns that become seven: the outer two spread into three each."""
    for n, f in ((0, 0), (2, 4)):
        first, second = (
            cage.add(0.6 * cage.points[far[f + k]] + 0.4 * cage.points[near[n + k - 1]])
            for k in (1, 2)
        )
        cage.faces.append((near[n], near[n + 1], second, first))
        cage.faces.append((near[n], first, far[f + 1], far[f]))
        cage.faces.append((first, second, far[f + 2], far[f + 1]))
        cage.faces.append((second, near[n + 1], far[f + 3], far[f + 2]))
    cage.faces.append((near[1], near[2], far[4], far[3]))


def _ring_distances(name: str) -> list[float]:
    """Where a finger's rings lie, mm from its first joint: on both sides of each free joint."""
    hand, first = skeleton(), 1 + 3 * FINGERS.index(name)
    joints = np.append(hand.joints[first : first + 3], hand.tips[None, FINGERS.index(name)], axis=0)
    near, far, tip = np.cumsum(np.linalg.norm(np.diff(joints, axis=0), axis=1))
    if name == "Thumb":
        return [24.0, near - 9.0, near + 9.0, far - 8.0, far + 9.0, tip - 1.5]
    start = [0.5 * (_WEB_MM[name] + near - 8.0)] if name == "Middle" else []
    return [*start, near - 8.0, near + 8.0, far - 7.0, far + 7.5, tip - 1.4]


def _add_finger(cage: Cage, name: str, root: list[int]) -> None:
    finger = FINGERS.index(name)
    ring = root
    distances = _ring_distances(name)
    for distance in distances:
        centre, frame = along_finger(finger, distance)
        size = 13.0 if name == "Thumb" and distance < 30 else 10.0
        lean = 9.0 if name == "Thumb" and distance < 30 else 0.0
        if distance == distances[-1]:
            size = 7.0 if name == "Thumb" else 5.5
        outer = [
            cage.add(
                centre + frame @ (-lean * corner[0], size * corner[0], size * corner[1]), finger
            )
            for corner in _CORNERS
        ]
        cage.join(ring, outer)
        ring = outer
    cage.faces.append((ring[0], ring[1], ring[2], ring[3]))


def along_finger(
    finger: int, distance: float
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
    """Point on a finger's bones `distance` mm from its first joint, and the axes there."""
    hand, first = skeleton(), 1 + 3 * finger
    corners = np.append(hand.joints[first : first + 3], hand.tips[None, finger], axis=0)
    starts = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    k = int(np.clip(np.searchsorted(starts, distance, side="right") - 1, 0, 2))
    frame = hand.frames[first + k]
    return corners[k] + (distance - starts[k]) * frame[:, 0], frame


def subdivide(cage: Cage) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, " v"], np.ndarray]:
    """One Catmull–Clark step: (positions, the finger of each vertex or −1, faces (4·n, 4)).

    Catmull and Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes",
    1978, with the usual cubic rule along the boundary.
    """
    points, parts, faces = np.array(cage.points), np.array(cage.parts), np.array(cage.faces)
    sides = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1)
    edges, edge_of = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(faces.shape)
    n_points, n_edges = len(points), len(edges)

    face_points = points[faces].mean(axis=1)
    faces_at_edge = np.bincount(edge_of.ravel(), minlength=n_edges)[:, None]
    middles = points[edges].mean(axis=1)
    beside = np.zeros((n_edges, 3))
    np.add.at(beside, edge_of, face_points[:, None])
    border = faces_at_edge[:, 0] == 1
    edge_points = np.where(border[:, None], middles, 0.5 * middles + 0.5 * beside / faces_at_edge)

    around = np.zeros((n_points, 3))
    np.add.at(around, faces, face_points[:, None])
    valence = np.bincount(faces.ravel(), minlength=n_points)[:, None]
    middle_sum, edge_count = np.zeros((n_points, 3)), np.zeros((n_points, 1))
    np.add.at(middle_sum, edges, middles[:, None])
    np.add.at(edge_count, edges, 1.0)
    moved = around / valence + 2 * middle_sum / edge_count + (valence - 3) * points
    moved /= valence
    border_sum = np.zeros((n_points, 3))
    np.add.at(border_sum, edges[border], middles[border, None])
    on_border = np.unique(edges[border])
    moved[on_border] = 0.5 * points[on_border] + 0.25 * border_sum[on_border]

    corner = faces.ravel()
    face_vertex = n_points + n_edges + np.repeat(np.arange(len(faces)), 4)
    after = n_points + edge_of.ravel()
    before = n_points + np.roll(edge_of, 1, axis=1).ravel()
    quads = np.stack([corner, after, face_vertex, before], axis=1)
    owners = np.concatenate([parts, parts[edges].max(axis=1), parts[faces].max(axis=1)])
    return np.concatenate([moved, edge_points, face_points]), owners, quads
