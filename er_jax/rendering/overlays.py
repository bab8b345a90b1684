"""Images of reconstructed hands: overlays, turned views, skeletons, and sheets of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from er_jax.mano.joints import HAND21
from er_jax.rendering.rasterizer import Mesh, WeakPerspectiveCamera, render_meshes

HAND_COLOURS = ((0.94, 0.66, 0.42), (0.46, 0.66, 0.94))  # right amber, left blue
Image = UInt8[np.ndarray, "H W 3"]  # RGB

_PIXELS = WeakPerspectiveCamera(scale_px=1.0, translation_px=(0.0, 0.0))


def overlay(
    image: Image,
    vertices: Float[np.ndarray, "2 V 3"],
    faces: Int[np.ndarray, "2 F 3"],
    scale_px: Float[np.ndarray, "2"],
    wrist_px: Float[np.ndarray, "2 2"],
    rel_depth_m: float,
    *,
    opacity: float = 0.9,
    hands: Sequence[int] = (0, 1),
) -> Image:
    """Hands painted over the image that they were seen in, each by its weak-perspective camera.

    Args:
      image: RGB bytes.
      vertices: wrist-relative, metres, camera axes; right, left.
      faces: right, left.
      scale_px: pixels per metre of each hand's camera.
      wrist_px: where each hand's wrist is seen.
      rel_depth_m: depth of the left wrist minus that of the right one.
      opacity: below 1 the image shines through.
      hands: which of the two to paint.
    """
    depth_px = np.array([0.0, rel_depth_m * np.mean(scale_px)])
    offset = np.column_stack([wrist_px, depth_px])
    placed = vertices * np.reshape(scale_px, (2, 1, 1)) + offset[:, None]
    return _paint(image, placed, faces, hands, opacity)


def side_view(
    vertices: Float[np.ndarray, "2 V 3"],
    faces: Int[np.ndarray, "2 F 3"],
    rel_trans: Float[np.ndarray, "3"],
    size_px: int,
    *,
    degrees: float = 90.0,
    hands: Sequence[int] = (0, 1),
) -> Image:
    """Both hands on white, seen after a turn of the viewer about the vertical axis.

    Args:
      vertices: wrist-relative, metres, camera axes; right, left.
      faces: right, left.
      rel_trans: left wrist minus right wrist, metres.
      size_px: side of the image, which the hands fill.
      degrees: of the turn; 90 is the view from the camera's right.
      hands: which of the two to paint.
    """
    placed = _turned(vertices, rel_trans, size_px, degrees, hands)
    return _paint(np.full((size_px, size_px, 3), 255, np.uint8), placed, faces, hands, 1.0)


def turned_view(meshes: Sequence[Mesh], size_px: int, *, degrees: float = 90.0) -> Image:
    """Meshes in camera axes, metres, on white, seen as `side_view` shows two hands.

    Args:
      meshes: at least one.
      size_px: side of the image, which the meshes fill.
      degrees: of the viewer's turn about the vertical axis; 90 is the view from the right.
    """
    joined = np.concatenate([mesh.vertices for mesh in meshes])
    ends = np.cumsum([len(mesh.vertices) for mesh in meshes])[:-1]
    placed = np.split(_fitting(joined @ _turn(degrees).T, size_px), ends)
    turned = [replace(mesh, vertices=points) for mesh, points in zip(meshes, placed, strict=True)]
    white = np.full((size_px, size_px, 3), 255, np.uint8)
    return render_meshes(white, turned, _PIXELS).image


def side_skeletons(
    joints: Float[np.ndarray, "2 21 3"],
    known: Bool[np.ndarray, "2 21"],
    rel_trans: Float[np.ndarray, "3"],
    size_px: int,
    *,
    degrees: float = 90.0,
) -> Image:
    """Draws the joints and bones that are known as `side_view` draws meshes."""
    image = np.full((size_px, size_px, 3), 255, np.uint8)
    hands = np.flatnonzero(known.any(1)).tolist()
    if hands:
        placed = _turned(np.where(known[..., None], joints, 0), rel_trans, size_px, degrees, hands)
        for hand in hands:
            draw_skeleton(image, placed[hand, :, :2], known[hand], HAND_COLOURS[hand])
    return image


def _turned(
    points: Float[np.ndarray, "2 N 3"],
    rel_trans: Float[np.ndarray, "3"],
    size_px: int,
    degrees: float,
    hands: Sequence[int],
) -> Float[np.ndarray, "2 N 3"]:
    """Wrist-relative points after a turn about the vertical axis, those of `hands` in a square."""
    placed = (points + np.array([[0.0, 0.0, 0.0], rel_trans])[:, None]) @ _turn(degrees).T
    return _fitting(placed, size_px, placed[list(hands)])


def _turn(degrees: float) -> Float[np.ndarray, "3 3"]:
    angle = np.deg2rad(degrees)
    return np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )


def _fitting(
    points: Float[np.ndarray, "*n 3"],
    size_px: int,
    shown: Float[np.ndarray, "*m 3"] | None = None,
) -> Float[np.ndarray, "*n 3"]:
    """Points scaled and moved so that those shown, or all, fill a square of pixels."""
    shown = (points if shown is None else shown).reshape(-1, 3)
    low, high = shown.min(0), shown.max(0)
    scale_px = 0.86 * size_px / max(*(high[:2] - low[:2]), 1e-6)
    middle = np.array([size_px / 2, size_px / 2, 0.0])
    return (points - (low + high) / 2) * scale_px + middle


def _paint(
    image: Image,
    placed_px: Float[np.ndarray, "2 V 3"],
    faces: Int[np.ndarray, "2 F 3"],
    hands: Sequence[int],
    opacity: float,
) -> Image:
    meshes = [Mesh(placed_px[hand], faces[hand], HAND_COLOURS[hand]) for hand in hands]
    return render_meshes(image, meshes, _PIXELS, opacity=opacity).image


def image_grid(
    rows: Sequence[Sequence[Image]],
    titles: Sequence[str],
    cell_px: int = 224,
    cell_height_px: int | None = None,
) -> Image:
    """Images in a table with a title above each column; cells are square if no height is given."""
    header = np.full((28, cell_px * len(titles), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        corner = (column * cell_px + 6, 20)
        cv2.putText(header, title, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    size = (cell_px, cell_height_px or cell_px)
    return np.vstack([header, *(np.hstack([fitted(cell, size) for cell in row]) for row in rows)])


def fitted(image: Image, size_px: tuple[int, int]) -> Image:
    """The image in a white rectangle, its proportions kept."""
    height, width = image.shape[:2]
    scale = min(size_px[0] / width, size_px[1] / height)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    cell = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    left, top = (size_px[0] - size[0]) // 2, (size_px[1] - size[1]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def write_image(path: Path, image: Image) -> None:
    """Writes a PNG.

    Raises:
      OSError: if the file cannot be written.
    """
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f"cannot write the image {path}: is the folder there, and the disk full?")


def draw_skeleton(
    image: Image,
    points_px: Float[np.ndarray, "21 2"],
    known: Bool[np.ndarray, "21"],
    colour: Sequence[float],
    *,
    seen: Bool[np.ndarray, "21"] | None = None,
) -> None:
    """Draws one hand's joints and bones into an image; joints that are not seen are hollow.

    Args:
      image: drawn into.
      points_px: Hand 21 joints.
      known: which of them, and of the bones between them, are drawn.
      colour: RGB in [0, 1].
      seen: which joints are filled; None: all.
    """
    rgb = tuple(round(255 * part) for part in colour)
    points = np.rint(np.clip(points_px, -1e4, 1e4)).astype(int).tolist()
    for joint, name in enumerate(HAND21):
        parent = 0 if name.endswith("_1") else joint - 1
        if joint and known[joint] and known[parent]:
            cv2.line(image, points[parent], points[joint], rgb, 1, cv2.LINE_AA)
    for joint in np.flatnonzero(known).tolist():
        thickness = cv2.FILLED if seen is None or seen[joint] else 1
        cv2.circle(image, points[joint], 3, rgb, thickness, cv2.LINE_AA)
