"""A triangle mesh made ready to be drawn: holes shut, refined on curved edges, with normals."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse


class Surface(NamedTuple):
    """A mesh made ready: vertices, faces, the faces before refinement, unit normals, RGB."""

    vertices: np.ndarray
    faces: np.ndarray
    coarse_faces: np.ndarray
    normals: np.ndarray
    colours: np.ndarray


def prepared_surface(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colour: Float[np.ndarray, "3"] | Float[np.ndarray, "V 3"] | tuple[float, float, float],
    *,
    refine: bool,
) -> Surface:
    """Shut the holes and, to refine, make four faces of one.

    Refinement is one step of PN triangles (Vlachos et al. 2001): an edge's mid-point lies on the
    cubic whose ends are the two vertices and whose tangents there are perpendicular to their
    normals.
    """
    vertices = np.asarray(vertices, np.float64)
    topology = _topology(np.ascontiguousarray(faces, np.int32).tobytes(), len(vertices))
    colours = np.broadcast_to(np.asarray(colour, np.float64), vertices.shape)
    vertices = np.concatenate([vertices, topology.hole_centres @ vertices])
    colours = np.concatenate([colours, topology.hole_centres @ colours])
    corners = vertices[topology.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = _unit(topology.faces_to_vertices @ face_normals)
    if not refine:
        return Surface(vertices, topology.faces, topology.faces, normals, colours)

    start, end = topology.edges.T
    along = vertices[end] - vertices[start]
    rise = (along * normals[start]).sum(1, keepdims=True) * normals[start]
    fall = (along * normals[end]).sum(1, keepdims=True) * normals[end]
    middles = (vertices[start] + vertices[end]) / 2 - (rise - fall) / 8
    return Surface(
        np.concatenate([vertices, middles]),
        topology.refined_faces,
        topology.faces,
        np.concatenate([normals, _unit(normals[start] + normals[end])]),
        np.concatenate([colours, (colours[start] + colours[end]) / 2]),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class _Topology(NamedTuple):
    """Indices that follow from the faces alone; V vertices are followed by H centres of holes.

    hole_centres (H, V) averages a hole's rim; faces (F', 3) includes the fans over the holes;
    faces_to_vertices (V + H, F') sums the normals of the faces around a vertex, without the
    fans' at the rims; edges (E, 2); refined_faces (4 F', 3) index V + H + E vertices.
    """

    hole_centres: sparse.csr_array
    faces: np.ndarray
    faces_to_vertices: sparse.csr_array
    edges: np.ndarray
    refined_faces: np.ndarray


@functools.lru_cache(maxsize=32)
def _topology(face_bytes: bytes, vertex_count: int) -> _Topology:
    faces = np.frombuffer(face_bytes, np.int32).reshape(-1, 3)
    hole_centres, fans = _holes(faces, vertex_count)
    hole_count = hole_centres.shape[0]
    all_faces = np.concatenate([faces, fans])

    # Rows are vertices, columns faces; of a fan's three corners only the centre counts.
    rows = np.concatenate([faces.ravel(), fans[:, 2]])
    columns = np.concatenate(
        [np.repeat(np.arange(len(faces)), 3), len(faces) + np.arange(len(fans))]
    )
    shape = (vertex_count + hole_count, len(all_faces))
    faces_to_vertices = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)

    sides = np.sort(all_faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, inverse = np.unique(sides, axis=0, return_inverse=True)
    a, b, c = all_faces.T
    ab, bc, ca = (inverse.reshape(-1, 3) + vertex_count + hole_count).T
    refined = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
    return _Topology(hole_centres, all_faces, faces_to_vertices, edges, refined)


def _holes(faces: np.ndarray, vertex_count: int) -> tuple[sparse.csr_array, np.ndarray]:
    """The averaging matrix (H, V) of the holes' rims and the fans (K, 3) that shut them."""
    sides = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    present = {(start, end) for start, end in sides.tolist()}
    rim = np.array([side for side in present if side[::-1] not in present], np.int32)
    rim = rim.reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(rim)), rim.T), shape=(vertex_count, vertex_count))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    _, hole = np.unique(component[rim[:, 0]], return_inverse=True)
    hole_count = int(np.max(hole)) + 1 if len(rim) else 0
    centres = sparse.csr_array(
        (np.ones(len(rim)), (hole, rim[:, 0])), shape=(hole_count, vertex_count)
    )
    if hole_count:
        centres = sparse.csr_array(centres.multiply(1 / centres.sum(axis=1)[:, None]))
    fans = np.stack([rim[:, 1], rim[:, 0], vertex_count + hole], axis=1)
    return centres, fans.astype(np.int32)
