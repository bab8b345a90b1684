"""From pictures of any size to two hand meshes each: OBJ, GLB, JSON and a picture."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import trimesh
from jaxtyping import Float, UInt8

from data_pipeline.augmentation import Crop
from data_pipeline.images import read_photograph
from er_jax.inference.attention_maps import draw_inside, outputs_to_draw
from er_jax.inference.reconstructor import Reconstructor
from er_jax.mano import HAND21, HANDS, HandModel
from er_jax.models import ERNet, Prediction
from er_jax.models.config import BACKBONE_STRIDE
from er_jax.rendering.overlays import (
    HAND_COLOURS,
    overlay,
    side_by_side,
    turned_view,
    write_picture,
)
from er_jax.utils.errors import BadImageError, ConfigError
from er_jax.utils.progress import progress_bar

logger = logging.getLogger(__name__)

# glTF's axes are x right, y up, z towards the viewer; the camera's x right, y down, z forward.
CAMERA_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclasses.dataclass(frozen=True)
class PixelCamera:
    """The network's weak-perspective cameras in the pixels of the picture."""

    scale_px: Float[np.ndarray, "2"]  # pixels per metre
    wrist_px: Float[np.ndarray, "2 2"]


def predict_pictures(
    net: ERNet,
    hands: HandModel,
    pictures: Sequence[Path],
    boxes: Sequence[Sequence[float]] | None,
    output: Path,
    *,
    inside: bool = False,
) -> list[Path]:
    """Reconstructs the hands in each picture and writes the results into `output`.

    Named as the picture (see `output_names`): `_right.obj` and `_left.obj` (metres, camera axes,
    right wrist at the origin), `.glb` (the same with glTF's axes), `.json` (parameters and joints)
    and `.png` (input, overlay, turned view).

    Args:
      net: the trained network.
      hands: both hand models.
      pictures: files of any picture format.
      boxes: x, y, width, height in pixels around both hands, one a picture; None: the whole
        picture.
      output: folder, made if absent.
      inside: also write `_inside.png`, what goes on in the network (see `draw_inside`).

    Returns:
      The pictures that were written.

    Raises:
      ConfigError: boxes that are not one a picture or have no area; nothing is done.
      BadImageError: some pictures are missing or cannot be read; all others are done.
    """
    chosen: Sequence[Sequence[float] | None] = boxes or [None] * len(pictures)
    _check(pictures, chosen)
    size = net.config.input_size
    collect = outputs_to_draw(net.config) if inside else ()
    reconstruct = Reconstructor(net, hands, collect=collect)
    output.mkdir(parents=True, exist_ok=True)
    written, left_out = [], []
    with progress_bar("Predicting", len(pictures), "pictures") as bar:
        for path, box, name in zip(pictures, chosen, output_names(pictures), strict=True):
            bar.advance()
            try:
                image = read_photograph(path)
            except BadImageError as error:
                logger.error("%s", error)
                left_out.append(path)
                continue
            bbox = square_box(box or (0, 0, image.shape[1], image.shape[0]))
            crop = Crop.of(image, bbox, size)
            prediction = jax.tree.map(lambda x: x[0], reconstruct(crop.image[None]))
            camera = pixel_camera(prediction, crop)
            _write(output / name, image, bbox, prediction, camera, np.asarray(hands.faces))
            if inside:
                draw_inside(output / f"{name}_inside.png", crop.image, prediction)
            written.append(output / f"{name}.png")
    if left_out:
        raise BadImageError(
            f"{len(left_out)} of {len(pictures)} pictures were left out, see above: "
            + ", ".join(map(str, left_out[:5]))
            + (", …" if len(left_out) > 5 else "")
        )
    return written


def square_box(box: Sequence[float]) -> Float[np.ndarray, "4"]:
    """The square x, y, side, side around a box's centre that holds all of it."""
    x, y, width, height = box
    side = max(width, height)
    return np.array([x + (width - side) / 2, y + (height - side) / 2, side, side])


def pixel_camera(prediction: Prediction, crop: Crop) -> PixelCamera:
    """The cameras of one prediction, without a batch axis, in pixels of the uncropped picture."""
    wrist_crop = np.asarray(prediction.joint_proj)[:, 0] * BACKBONE_STRIDE
    return PixelCamera(
        scale_px=np.asarray(prediction.camera)[:, 0] * BACKBONE_STRIDE / crop.scale,
        wrist_px=crop.to_picture(wrist_crop),
    )


def output_names(pictures: Sequence[Path]) -> list[str]:
    """The pictures' names without their endings, numbered where several share one."""
    stems = [path.stem for path in pictures]
    return [
        stem if stems.count(stem) == 1 else f"{stem}_{number}"
        for number, stem in enumerate(stems, start=1)
    ]


def _check(pictures: Sequence[Path], boxes: Sequence[Sequence[float] | None]) -> None:
    if not pictures:
        raise ConfigError("no picture given: use --images=FILE, as often as there are pictures")
    if len(boxes) != len(pictures):
        raise ConfigError(
            f"{len(boxes)} boxes for {len(pictures)} pictures: give one --box x,y,w,h a picture, "
            "in the same order, or none at all"
        )
    for box in boxes:
        if box is not None and (len(box) != 4 or min(box[2:]) <= 0):
            raise ConfigError(f"box {tuple(box)}: need x,y,w,h in pixels with w and h above zero")


def _write(
    path: Path,
    image: UInt8[np.ndarray, "H W 3"],
    bbox: Float[np.ndarray, "4"],
    prediction: Prediction,
    camera: PixelCamera,
    faces: np.ndarray,
) -> None:
    vertices, rel_trans = np.asarray(prediction.vertices), np.asarray(prediction.rel_trans)
    scene = trimesh.Scene()
    offsets = (np.zeros(3), rel_trans)
    for hand, (name, offset) in enumerate(zip(HANDS, offsets, strict=True)):
        mesh = trimesh.Trimesh(
            vertices[hand] + offset,
            faces[hand],
            vertex_colors=np.tile(HAND_COLOURS[hand], (len(vertices[hand]), 1)),
            process=False,
        )
        mesh.export(f"{path}_{name}.obj", include_color=False)
        scene.add_geometry(mesh, node_name=name, geom_name=name, transform=CAMERA_TO_GLTF)
    scene.export(f"{path}.glb")
    parameters = _parameters(prediction, camera, bbox)
    Path(f"{path}.json").write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
    painted = overlay(image, vertices, faces, camera.scale_px, camera.wrist_px, float(rel_trans[2]))
    side = turned_view(vertices, faces, rel_trans, 384)
    write_picture(Path(f"{path}.png"), side_by_side([image, painted, side]))


def _parameters(
    prediction: Prediction, camera: PixelCamera, bbox: Float[np.ndarray, "4"]
) -> dict[str, Any]:
    """What the meshes follow from, and where they lie in the picture, as plain JSON."""
    per_hand = {
        name: {
            "betas": prediction.betas[hand].tolist(),
            "pose_axis_angle_without_mean": prediction.pose[hand].tolist(),
            "joints_wrist_relative_m": prediction.joints[hand].tolist(),
            "camera_scale_px_per_m": float(camera.scale_px[hand]),
            "wrist_px": camera.wrist_px[hand].tolist(),
        }
        for hand, name in enumerate(HANDS)
    }
    return {
        "axes": "camera: x right, y down, z forward; metres",
        "joint_names": list(HAND21),
        "left_wrist_minus_right_wrist_m": prediction.rel_trans.tolist(),
        "box_xywh_px": bbox.tolist(),
        **per_hand,
    }
