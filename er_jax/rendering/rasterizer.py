"""Shaded images of meshes on the CPU: numpy, OpenCV's polygon filler, no GPU and no OpenGL.

Vertices are shaded; front faces are painted from the farthest to the nearest at twice the image's
resolution, each point with the colour between its face's corners, then averaged down: meshes hide
one another face by face. Refined, a face becomes four on curved edges, and outlines are round. Two
hands in a 512×334 image take about 15 ms on one core, refined about 25.

Axes: the camera's, as in `er_jax.rendering.cameras`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from er_jax.rendering.cameras import Camera, PerspectiveCamera, WeakPerspectiveCamera
from er_jax.rendering.mesh_surface import Surface, prepared_surface

__all__ = [
    "Light",
    "Mesh",
    "PerspectiveCamera",
    "Rendering",
    "WeakPerspectiveCamera",
    "render_meshes",
]

_SUBPIXEL_BITS = 4
_SHADOW_CELL_M = 0.002
_SHADOW_BIAS_M = 0.004


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed or open triangle mesh; holes are painted shut, as a wrist that is cut off.

    vertices: (V, 3) metres, camera axes. faces: (F, 3), anticlockwise seen from outside.
    colour: RGB in [0, 1], one (3,) or one a vertex (V, 3).
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    colour: Float[np.ndarray, "3"] | Float[np.ndarray, "V 3"] | tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """One distant light, light from all around, and their shares of the brightness.

    direction: the way the light travels, camera axes, any length. wrap: how far the light creeps
    around the shaded side, as in skin (0: a matt solid). shadow: share of the distant light that
    a mesh takes from what lies behind it (0 saves the time of looking).
    """

    direction: tuple[float, float, float] = (0.35, 0.6, 0.75)
    ambient: float = 0.35
    diffuse: float = 0.65
    specular: float = 0.12
    shininess: float = 16.0
    wrap: float = 0.25
    shadow: float = 0.0


class Rendering(NamedTuple):
    """image: (H, W, 3) uint8 RGB. labels: (H, W) int16, the mesh seen at a pixel's centre or -1."""

    image: UInt8[np.ndarray, "H W 3"]
    labels: Int[np.ndarray, "H W"]


def render_meshes(
    background: UInt8[np.ndarray, "H W 3"],
    meshes: Sequence[Mesh],
    camera: Camera,
    *,
    light: Light | None = None,
    opacity: float = 1.0,
    refine: bool = True,
    supersampling: int = 2,
) -> Rendering:
    """Paint meshes over an image; of two faces the nearer to the camera is seen.

    background is left as it is. opacity below 1 lets it shine through the meshes (not one mesh
    through another). refine rounds the outlines by curved edges, for twice the time.
    Raises ValueError for a background that is no RGB image or for more than 254 meshes.
    """
    if background.ndim != 3 or background.shape[2] != 3 or background.dtype != np.uint8:
        raise ValueError(
            f"background is {background.dtype} {background.shape}; an image (H, W, 3) of uint8 "
            "is needed (cv2.cvtColor makes three channels of one)"
        )
    if len(meshes) > 254:
        raise ValueError(f"{len(meshes)} meshes; an image takes at most 254")
    height, width = background.shape[:2]
    image, labels = background.copy(), np.full((height, width), -1, np.int16)
    if not meshes:
        return Rendering(image, labels)

    faces = _front_faces(meshes, camera, light or Light(), refine)
    region = _region(faces.corners_px, width, height)
    if region is None:
        return Rendering(image, labels)
    left, top, right, bottom = region
    size = ((right - left) * supersampling, (bottom - top) * supersampling)
    corners = (faces.corners_px - (left, top) + 0.5) * supersampling - 0.5
    seen = _nearest_face(np.clip(corners, -1e5, 1e5), faces.depth, *size)
    colours = np.zeros((*seen.shape, 3), np.uint8)
    colours[seen >= 0] = np.clip(_interpolated(seen, corners, faces.colours), 0, 255)

    size = (right - left, bottom - top)
    coverage = np.where(seen >= 0, np.uint8(255), np.uint8(0))
    colours = cv2.resize(colours, size, interpolation=cv2.INTER_AREA)
    coverage = cv2.resize(coverage, size, interpolation=cv2.INTER_AREA)[..., None]
    part = image[top:bottom, left:right]
    clear = 1.0 - coverage.astype(np.float32) * np.float32(opacity / 255.0)
    part[:] = np.rint(part * clear + colours * np.float32(opacity)).astype(np.uint8)
    middle = supersampling // 2
    seen_there = seen[middle::supersampling, middle::supersampling]
    labels[top:bottom, left:right] = np.append(faces.labels, -1)[seen_there]
    return Rendering(image, labels)


class _Faces(NamedTuple):
    """Triangles to paint: corners_px (N, 3, 2), colours (N, 3, 3) 0..255, depth, mesh (N,)."""

    corners_px: np.ndarray
    colours: np.ndarray
    depth: np.ndarray
    labels: np.ndarray


def _front_faces(meshes: Sequence[Mesh], camera: Camera, light: Light, refine: bool) -> _Faces:
    surfaces = [
        prepared_surface(mesh.vertices, mesh.faces, mesh.colour, refine=refine) for mesh in meshes
    ]
    lit = _lit_shares(surfaces, light) if light.shadow > 0 else [np.ones(1)] * len(surfaces)
    parts = []
    for label, (surface, share) in enumerate(zip(surfaces, lit, strict=True)):
        corners_px = camera.project(surface.vertices)[surface.faces]
        depths = surface.vertices[:, 2][surface.faces]
        ahead = camera.sees(surface.vertices)[surface.faces].all(axis=1)
        front = (_signed_area(corners_px) < 0) & ahead
        colours = np.clip(_shade(surface, share, camera, light) * 255.0, 0, 255)
        parts.append(
            (
                corners_px[front],
                colours[surface.faces[front]],
                _middle(depths[front]),
                np.full(front.sum(), label),
            )
        )
    return _Faces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _middle(corners: np.ndarray) -> np.ndarray:
    """Mean over a triangle's corners (N, 3, …); several times faster than numpy's."""
    return (corners[:, 0] + corners[:, 1] + corners[:, 2]) / 3


def _signed_area(corners: np.ndarray) -> np.ndarray:
    """Twice the area of triangles (N, 3, 2); negative for a face turned towards the viewer."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _region(corners_px: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the part of the image that is painted; None for nothing."""
    if not len(corners_px):
        return None
    x, y = corners_px[..., 0], corners_px[..., 1]
    low = np.floor((x.min(), y.min())).astype(int)
    high = np.ceil((x.max(), y.max())).astype(int) + 1
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (width, height))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _nearest_face(
    corners: Float[np.ndarray, "N 3 2"], depth: Float[np.ndarray, " N"], width: int, height: int
) -> Int[np.ndarray, "height width"]:
    """Index of the face seen at each point, -1 for none: painted from far to near."""
    order = np.argsort(-depth, kind="stable")
    polygons = np.rint(corners[order] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    seen = np.full((height, width), -1, np.int32)
    for place, polygon in enumerate(polygons):
        cv2.fillConvexPoly(seen, polygon, place, cv2.LINE_8, _SUBPIXEL_BITS)
    return np.append(order, -1).astype(np.int32).take(seen, mode="wrap")


def _interpolated(
    seen: Int[np.ndarray, "height width"],
    corners: Float[np.ndarray, "N 3 2"],
    values: Float[np.ndarray, "N 3 C"],
) -> Float[np.ndarray, "P C"]:
    """Values at the P points where a face is seen, row by row, linear between its corners.

    A point is painted that lies up to one from its face, so the slope of a face narrower than
    that is lessened: a value leaves the corners' range by that range at most.
    """
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    rise, fall = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    area = _signed_area(corners)[:, None]
    slope_x = (rise * second[:, 1:] - fall * first[:, 1:]) / area
    slope_y = (fall * first[:, :1] - rise * second[:, :1]) / area
    value_range = np.maximum(np.abs(rise), np.abs(fall))
    steepest = np.maximum(np.abs(slope_x) + np.abs(slope_y), 1e-9)
    share = np.minimum(value_range / steepest, 1)
    slope_x, slope_y = slope_x * share, slope_y * share
    middle = _middle(corners)
    start = _middle(values) - slope_x * middle[:, :1] - slope_y * middle[:, 1:]

    place = np.flatnonzero(seen >= 0)
    face = seen.ravel()[place]
    y, x = np.divmod(place.astype(np.int32), np.int32(seen.shape[1]))
    y, x = y.astype(np.float32), x.astype(np.float32)
    found = np.empty((len(place), values.shape[2]), np.float32)
    for channel in range(values.shape[2]):
        # One channel at a time: numpy is slow on a short last axis.
        planes = np.stack([a[:, channel] for a in (start, slope_x, slope_y)]).astype(np.float32)
        at_origin, along_x, along_y = (plane.take(face) for plane in planes)
        found[:, channel] = at_origin + along_x * x + along_y * y
    return found


def _shade(surface: Surface, lit: np.ndarray, camera: Camera, light: Light) -> np.ndarray:
    """Colour (V, 3) of each vertex, 0..1 and above where it glares."""
    to_light = -np.asarray(light.direction) / np.linalg.norm(light.direction)
    to_viewer = camera.towards(surface.vertices)
    halfway = to_light + to_viewer
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    facing = (surface.normals @ to_light + light.wrap) / (1 + light.wrap)
    diffuse = light.ambient + light.diffuse * lit * np.maximum(facing, 0)
    glare = np.maximum((surface.normals * halfway).sum(axis=1), 0) ** light.shininess
    return surface.colours * diffuse[:, None] + (light.specular * lit * glare)[:, None]


def _lit_shares(surfaces: Sequence[Surface], light: Light) -> list[np.ndarray]:
    """The share (V,) of the distant light that reaches each vertex of each surface.

    A map of the nearest surface seen from the light, 2 mm a cell, is compared with the vertices'
    own distance at nine cells around each, which makes the shadows' edges soft.
    """
    forward = np.asarray(light.direction) / np.linalg.norm(light.direction)
    across = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(forward, across), forward])
    seen = [surface.vertices @ axes.T for surface in surfaces]
    low = np.min([points.min(axis=0) for points in seen], axis=0)
    cells = [(points[:, :2] - low[:2]) / _SHADOW_CELL_M + 5 for points in seen]
    size = np.ceil(np.max([cell.max(axis=0) for cell in cells], axis=0)).astype(int) + 6
    corners, distances = [], []
    for surface, points, cell in zip(surfaces, seen, cells, strict=True):
        front = _signed_area(cell[surface.coarse_faces]) < 0
        corners.append(cell[surface.coarse_faces[front]])
        distances.append(points[:, 2][surface.coarse_faces[front]])
    corner, distance = np.concatenate(corners), np.concatenate(distances)
    face_seen = _nearest_face(corner, _middle(distance), *size)
    nearest = np.full(face_seen.shape, np.inf, np.float32)
    nearest[face_seen >= 0] = _interpolated(face_seen, corner, distance[..., None])[:, 0]

    shares = []
    for surface, points, cell in zip(surfaces, seen, cells, strict=True):
        # Looked up a little off the surface, which does not shade itself by the map's coarseness.
        off = _SHADOW_BIAS_M * (surface.normals @ axes.T)
        column, row = np.rint(cell + off[:, :2] / _SHADOW_CELL_M).astype(int).T
        distance_off = points[:, 2] + off[:, 2] - _SHADOW_BIAS_M
        lit = np.zeros(len(points))
        for down in (-2, 0, 2):
            for right in (-2, 0, 2):
                lit += distance_off < nearest[row + down, column + right]
        shares.append(1 - light.shadow * (1 - lit / 9))
    return shares
