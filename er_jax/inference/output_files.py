"""From images of any size to two hand meshes each: OBJ, GLB, JSON and an image."""

import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from data_pipeline.images import read_photograph
from er_jax.inference.attention_maps import draw_attention_maps, outputs_to_visualize
from er_jax.inference.pipeline import Box, Image, Pipeline, TwoHands, square_box
from er_jax.mano import HAND21, HANDS, HandModel
from er_jax.models import ERNet
from er_jax.rendering.overlays import (
    HAND_COLOURS,
    overlay,
    side_by_side,
    side_view,
    write_image,
)
from er_jax.utils.errors import BadImageError, ConfigError
from er_jax.utils.progress import progress_bar

logger = logging.getLogger(__name__)

# glTF's axes are x right, y up, z towards the viewer; the camera's x right, y down, z forward.
CAMERA_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])


def predict_images(
    net: ERNet,
    hands: HandModel,
    images: Sequence[Path],
    boxes: Sequence[Box] | None,
    output: Path,
    *,
    visualize: bool = False,
) -> list[Path]:
    """Reconstructs the hands in each image and writes the results into `output`.

    Named as the image (see `output_names`): `_right.obj` and `_left.obj` (metres, camera axes,
    right wrist at the origin), `.glb` (the same with glTF's axes), `.json` (parameters and joints)
    and `.png` (input, overlay, turned view).

    Args:
      net: the trained network.
      hands: both hand models.
      images: files of any image format.
      boxes: x, y, width, height in pixels around both hands, one an image; None: the whole
        image.
      output: folder, made if absent.
      visualize: also write `_attention.png`, see `draw_attention_maps`.

    Returns:
      The images that were written.

    Raises:
      ConfigError: boxes that are not one an image or have no area; nothing is done.
      BadImageError: some images are missing or cannot be read; all others are done.
    """
    chosen: Sequence[Box | None] = boxes or [None] * len(images)
    _check(images, chosen)
    collect = outputs_to_visualize(net.config) if visualize else ()
    pipeline = Pipeline(net, hands, collect=collect)
    output.mkdir(parents=True, exist_ok=True)
    written, left_out = [], []
    with progress_bar("Predicting", len(images), "images") as bar:
        for path, box, name in zip(images, chosen, output_names(images), strict=True):
            try:
                image = read_photograph(path)
            except BadImageError as error:
                logger.error("%s", error)
                left_out.append(path)
            else:
                found = pipeline(image, box)
                _write(output / name, image, found, np.asarray(hands.faces))
                if visualize:
                    file = output / f"{name}_attention.png"
                    draw_attention_maps(file, found.crop.image, found.prediction)
                written.append(output / f"{name}.png")
            bar.advance()
    if left_out:
        raise BadImageError(
            f"{len(left_out)} of {len(images)} images were left out, see above: "
            + ", ".join(map(str, left_out[:5]))
            + (", …" if len(left_out) > 5 else "")
        )
    return written


def output_names(images: Sequence[Path]) -> list[str]:
    """The images' names without their endings, numbered where one is taken already."""
    stems = [path.stem for path in images]
    taken = {stem for stem in stems if stems.count(stem) == 1}
    names = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        name = stem if stems.count(stem) == 1 else next(n for n in numbered if n not in taken)
        taken.add(name)
        names.append(name)
    return names


def _check(images: Sequence[Path], boxes: Sequence[Box | None]) -> None:
    if not images:
        raise ConfigError("no image given: use --images=FILE, as often as there are images")
    if len(boxes) != len(images):
        raise ConfigError(
            f"{len(boxes)} boxes for {len(images)} images: give one --box x,y,w,h an image, "
            "in the same order, or none at all"
        )
    for box in boxes:
        if box is not None:
            square_box(box)


def _write(path: Path, image: Image, found: TwoHands, faces: np.ndarray) -> None:
    prediction, camera = found.prediction, found.camera
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
    parameters = _parameters(found)
    Path(f"{path}.json").write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
    painted = overlay(image, vertices, faces, camera.scale_px, camera.wrist_px, float(rel_trans[2]))
    side = side_view(vertices, faces, rel_trans, 384)
    write_image(Path(f"{path}.png"), side_by_side([image, painted, side]))


def _parameters(found: TwoHands) -> dict[str, Any]:
    """Returns what the meshes follow from, and where they lie in the image, as plain JSON."""
    prediction, camera = found.prediction, found.camera
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
        "box_xywh_px": found.box_px.tolist(),
        **per_hand,
    }
