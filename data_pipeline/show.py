"""Draws samples of a built dataset, because an annotation is trusted only when seen.

    python -m data_pipeline.show interhand26m --data_dir=… [--split=train --mano_dir=… --count=12]

Each sample with its box, joints and bones (hollow joints are not visible in this view); below it,
where it has fits, its hand meshes projected into the image. Right hands are orange, left hands
blue.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.images import decode_image
from data_pipeline.records import BOX_SOURCES, HAND_TYPES
from er_jax.mano import (
    HandFileError,
    HandModel,
    joints_from_vertices,
    load_hands,
    mano_forward,
)
from er_jax.rendering.overlays import HAND_COLOURS, draw_skeleton
from er_jax.rendering.rasterizer import Mesh, PerspectiveCamera, render_meshes
from er_jax.utils.arguments import at_least
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import DataError

_COLUMNS = 4
_WIDTH = 512
_CAPTION = 40
_SMALL_BOX = 0.4  # of the longer side: only what is near it is shown
_BOX_COLOUR = (250, 250, 250)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.show",
        description="Draws samples of a built dataset with their boxes, joints and hand meshes.",
    )
    parser.add_argument("dataset", help="name or name/config of a built dataset")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--mano_dir", help="folder of the MANO files; the stand-in hand if not given"
    )
    parser.add_argument("--count", type=at_least(1), default=12, help="samples on the page")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the choice of samples")
    parser.add_argument(
        "--output", type=Path, help="image to write; default: <dataset>_<split>.jpg"
    )
    options = parser.parse_args(arguments)
    path = options.output or Path(f"{options.dataset.replace('/', '_')}_{options.split}.jpg")
    try:
        source = RecordSource(find_dataset(options.data_dir, options.dataset), options.split)
        hands = load_hands(options.mano_dir)
        chosen = np.random.default_rng(options.seed).permutation(len(source))[: options.count]
        _write_image(path, draw_page([source[int(i)] for i in chosen], hands))
    except (DataError, HandFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def draw_page(
    records: Sequence[Mapping[str, Any]], hands: HandModel
) -> UInt8[np.ndarray, "height width 3"]:
    """A page of samples, four in a row."""
    vertices, fitted = hand_vertices_m(records, hands)
    mesh_joints = np.asarray(joints_from_vertices(hands, jnp.asarray(vertices)))
    tiles = [
        _draw_tile(
            record,
            _joints(record, mesh_joints[i], fitted[i]),
            vertices[i],
            fitted[i],
            np.asarray(hands.faces),
        )
        for i, record in enumerate(records)
    ]
    columns = min(_COLUMNS, len(records))
    rows = [_row(tiles[i : i + columns], columns) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _row(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.pad(tile, ((0, height - tile.shape[0]), (0, 0), (0, 0))) for tile in tiles]
    padded += [np.zeros_like(padded[0])] * (columns - len(tiles))
    return np.hstack(padded)


def hand_vertices_m(
    records: Sequence[Mapping[str, Any]], hands: HandModel
) -> tuple[Float[np.ndarray, "N 2 778 3"], np.ndarray]:
    """Vertices in camera axes, from the fits' parameters or meshes, and which hands have a fit.

    Without a camera nothing tells where in the image they are, and no hand has one.
    """

    def stacked(name: str) -> np.ndarray:
        return np.stack([record[name] for record in records])

    names = ("mano_betas", "mano_pose", "mano_trans_m")
    mesh = mano_forward(hands, *(jnp.asarray(stacked(name)) for name in names))
    vertices = np.einsum("nij,nhvj->nhvi", stacked("camera_rotation"), np.asarray(mesh.vertices))
    vertices += stacked("camera_translation_mm")[:, None, None] / 1000
    fitted = stacked("mano_valid")
    if "mano_vertices_m" in records[0]:
        given = stacked("mano_vertices_valid")
        vertices = np.where(given[..., None, None], stacked("mano_vertices_m"), vertices)
        fitted = fitted | given
    return vertices, fitted & stacked("camera_valid")[:, None]


class Joints(NamedTuple):
    """The joints of both hands, or of one, in the image, and which are known and visible."""

    pixels: Float[np.ndarray, "*hands 21 2"]
    known: Bool[np.ndarray, "*hands 21"]
    visible: Bool[np.ndarray, "*hands 21"]


def annotated_joints(record: Mapping[str, Any]) -> Joints:
    """A record's joints as they were annotated, those in the image before those in 3D."""
    camera_mm = record["joint_world_mm"] @ record["camera_rotation"].T
    camera_mm = camera_mm + record["camera_translation_mm"]
    marked = record["joint_px_valid"]
    pixels = np.where(marked[..., None], record["joint_px"], _project(record, camera_mm / 1000))
    known = marked | (record["joint_valid_world"] & record["camera_valid"])
    return Joints(pixels, known, record["joint_valid_view"])


def _joints(
    record: Mapping[str, Any],
    mesh_joints: Float[np.ndarray, "2 21 3"],
    fitted: Bool[np.ndarray, "2"],
) -> Joints:
    """The annotated joints; those of the mesh of a hand that has no others."""
    annotated = annotated_joints(record)
    alone = (fitted & ~annotated.known.any(axis=-1))[:, None]
    return Joints(
        np.where(alone[..., None], _project(record, mesh_joints), annotated.pixels),
        annotated.known | alone,
        annotated.visible | alone,
    )


def _project(record: Mapping[str, Any], points_cam: np.ndarray) -> np.ndarray:
    depth = np.maximum(points_cam[..., 2:], 1e-3)
    return points_cam[..., :2] / depth * record["focal_px"] + record["princpt_px"]


def _write_image(path: Path, image: UInt8[np.ndarray, "height width 3"]) -> None:
    if not cv2.haveImageWriter(str(path)):
        raise DataError(f"{path}: no image format has this ending. Take .jpg or .png.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())


def _draw_tile(
    record: Mapping[str, Any],
    joints: Joints,
    vertices: np.ndarray,
    fitted: np.ndarray,
    faces: np.ndarray,
) -> np.ndarray:
    image, corner = _around_box(decode_image(record["image"]), record["bbox_px"])
    focal_x, focal_y = record["focal_px"].tolist()
    middle_x, middle_y = (record["princpt_px"] - corner).tolist()
    camera = PerspectiveCamera((focal_x, focal_y), (middle_x, middle_y))
    meshes = [
        Mesh(vertices[hand], faces[hand], HAND_COLOURS[hand]) for hand in range(2) if fitted[hand]
    ]
    projected = render_meshes(image, meshes, camera, opacity=0.8).image if meshes else image
    annotated = image.copy()
    _draw_box(annotated, record["bbox_px"] - [*corner, 0, 0])
    for hand in range(2):
        pixels, known, visible = (values[hand] for values in joints)
        draw_skeleton(annotated, pixels - corner, known, HAND_COLOURS[hand], seen=visible)
    images = [annotated, projected] if meshes else [annotated]
    tile = np.vstack([*map(_at_width, images), _caption(record, fitted)])
    return np.pad(tile, ((2, 2), (2, 2), (0, 0)))


def _around_box(image: np.ndarray, bbox_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is near a small box, and its upper left corner in the image; else all of it."""
    x, y, side, _ = bbox_px.tolist()
    height, width = image.shape[:2]
    if side > _SMALL_BOX * max(width, height):
        return image, np.zeros(2)
    left, top = (int(np.clip(v - side / 2, 0, n - 1)) for v, n in ((x, width), (y, height)))
    right, bottom = (int(np.clip(v + 1.5 * side, 1, n)) for v, n in ((x, width), (y, height)))
    return image[top:bottom, left:right].copy(), np.array([left, top], float)


def _draw_box(image: np.ndarray, bbox_px: np.ndarray) -> None:
    x, y, width, height = bbox_px.tolist()
    corner, opposite = (round(x), round(y)), (round(x + width), round(y + height))
    cv2.rectangle(image, corner, opposite, _BOX_COLOUR, 1, cv2.LINE_AA)


def _at_width(image: np.ndarray) -> np.ndarray:
    height = round(image.shape[0] * _WIDTH / image.shape[1])
    return cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)


def _caption(record: Mapping[str, Any], fitted: np.ndarray) -> np.ndarray:
    strip = np.zeros((_CAPTION, _WIDTH, 3), np.uint8)
    fits = ", ".join(name for name, valid in zip(HAND_TYPES, fitted, strict=False) if valid)
    lines = (
        f"{record['annotation_id']}: {record['file_name'].decode()}",
        f"{HAND_TYPES[record['hand_type']]}; fits: {fits or 'none'}; "
        f"box of {BOX_SOURCES[record['bbox_source']]}{_doubt(record)}",
    )
    for row, line in enumerate(lines):
        where = (4, 15 + 17 * row)
        cv2.putText(strip, line, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (220, 220, 220), 1)
    return strip


def _doubt(record: Mapping[str, Any]) -> str:
    unsure = record["label_confidence"] < 1
    return f"; confidence {record['label_confidence'][unsure].min():.2f}" if unsure.any() else ""


if __name__ == "__main__":
    sys.exit(main())
