"""Best, median and worst samples as images, the hands where the camera saw them."""

import base64
import dataclasses
from collections.abc import Callable, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_pipeline.annotated_split import AnnotatedSplit, Sample
from er_jax.evaluation.results import Evaluated
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HandModel, joints_from_vertices
from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.rendering.overlays import HAND_COLOURS, side_view
from er_jax.rendering.rasterizer import Mesh, render_meshes
from er_jax.supervision.targets import INTERACTING, make_targets

IMAGES_EACH = 4
CELL_PX = 224
JPEG_QUALITY = 88

Image = UInt8[np.ndarray, "H W 3"]
Reconstruct = Callable[[Int[np.ndarray, "N"]], ReconstructedMeshes]
"""From indices of a split's records to the predictor's meshes of them."""


@dataclasses.dataclass(frozen=True)
class SampleImage:
    """One sample drawn: crop, prediction, truth, both from the side."""

    group: str
    """"best", "median" or "worst"."""
    caption: str
    jpeg: bytes

    @property
    def data_uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def ranked(predictor: Evaluated) -> tuple[str, Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Samples from the best to the worst by the mean error of their joints.

    Returns:
      The protocol, indices of the samples that count under it, and their errors in mm. It is
      `scale_aligned` where any sample has fits, else `wrist_aligned`; no sample may count.
    """
    for protocol in ("scale_aligned", "wrist_aligned"):
        errors = getattr(predictor.errors, protocol)
        count = np.asarray(errors.joint_valid).sum((1, 2))
        total = np.asarray(errors.joint_mm).sum((1, 2), dtype=np.float64)
        counting = np.flatnonzero(count)
        if counting.size:
            break
    mean = total[counting] / count[counting]
    order = np.argsort(mean, kind="stable")
    return protocol, counting[order], mean[order]


def sample_images(
    predictor: Evaluated, split: AnnotatedSplit, hands: HandModel, reconstruct: Reconstruct
) -> list[SampleImage]:
    """Draws the samples at both ends and in the middle of the ranking; none where none counts.

    Args:
      predictor: its samples are of `split`.
      split: gives images and annotations.
      hands: both hands.
      reconstruct: the predictor's meshes; relative to their wrists.
    """
    protocol, order, errors = ranked(predictor)
    record_of = {sample_id: index for index, sample_id in enumerate(split.sample_ids)}
    result = []
    for group, places in _places(len(order)).items():
        records = np.array([record_of[int(predictor.sample_id[order[p]])] for p in places])
        meshes = jax.device_get(reconstruct(records))
        for row, (place, record) in enumerate(zip(places, records, strict=True)):
            mesh = jax.tree.map(lambda x, row=row: np.asarray(x[row]), meshes)
            image, sample = split.image(int(record))
            caption = (
                f"sample {predictor.sample_id[order[place]]}, {protocol} joint error "
                f"{errors[place]:.1f} mm, rank {place + 1} of {len(order)}"
            )
            drawing = _draw(image, sample, mesh, hands)
            result.append(SampleImage(group, caption, _jpeg(drawing)))
    return result


def _places(count: int) -> dict[str, Sequence[int]]:
    """Places in the ranking; fewer where there are not enough samples, none twice."""
    if not count:
        return {}
    each = min(IMAGES_EACH, max(count // 3, 1))
    middle = (count - each) // 2
    places = {
        "best": range(each),
        "median": range(middle, middle + each),
        "worst": range(count - each, count),
    }
    return {group: place for group, place in places.items() if count >= 3 or group == "best"}


def _draw(image: Image, sample: Sample, prediction: ReconstructedMeshes, hands: HandModel) -> Image:
    """Crop, prediction and truth over it, and both seen from the camera's right.

    The prediction's right hand stands at its true wrist, the left where the predicted relative
    translation puts it; of a single hand the wrist is the true one.
    """
    targets = jax.jit(make_targets)(hands, {name: x[None] for name, x in sample.items()})
    true_mesh, true_rel_trans, fitted = (
        np.asarray(x)[0]
        for x in (targets.mano_mesh_cam, targets.rel_trans, targets.mano_hand_valid)
    )
    mesh, rel_trans = np.asarray(prediction.vertices), np.asarray(prediction.rel_trans)
    kind = int(sample["hand_type"])
    shown = (0, 1) if kind == INTERACTING else (kind,)
    fits = [hand for hand in shown if fitted[hand]]
    wrists = _true_wrists(sample, hands)
    own_wrists = np.stack([wrists[0], wrists[0] + rel_trans]) if len(shown) == 2 else wrists

    faces, (crop, camera) = np.asarray(hands.faces), _crop(image, sample)
    blank = np.full((CELL_PX, CELL_PX, 3), 255, np.uint8)
    cells = [
        crop,
        _overlay(crop, camera, mesh + own_wrists[:, None], faces, shown),
        _overlay(crop, camera, true_mesh + wrists[:, None], faces, fits),
        side_view(mesh, faces, rel_trans, CELL_PX, hands=shown),
        side_view(true_mesh, faces, true_rel_trans, CELL_PX, hands=fits) if fits else blank,
    ]
    return np.hstack(cells)


def _true_wrists(sample: Sample, hands: HandModel) -> Float[np.ndarray, "2 3"]:
    """Wrists in camera axes, metres: annotated, or of the meshes where those are the annotation."""
    if "mano_vertices_m" in sample and sample["mano_vertices_valid"].any():
        return np.asarray(joints_from_vertices(hands, jnp.asarray(sample["mano_vertices_m"])))[:, 0]
    world_mm = sample["joint_world_mm"][:, 0]
    camera_mm = world_mm @ sample["camera_rotation"].T + sample["camera_translation_mm"]
    return camera_mm / 1000


def _crop(image: Image, sample: Sample) -> tuple[Image, PerspectiveCamera]:
    """The sample's box at the size of a cell, and the camera that sees it."""
    x, y, side, _ = sample["bbox_px"].astype(np.float64)
    scale = CELL_PX / side
    affine = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
    crop = cv2.warpAffine(image, affine, (CELL_PX, CELL_PX), flags=cv2.INTER_LINEAR)
    focal, centre = sample["focal_px"] * scale, (sample["princpt_px"] - (x, y)) * scale
    return crop, PerspectiveCamera(tuple(focal), tuple(centre))


def _overlay(
    crop: Image,
    camera: PerspectiveCamera,
    vertices_cam: Float[np.ndarray, "2 778 3"],
    faces: Int[np.ndarray, "2 F 3"],
    shown: Sequence[int],
) -> Image:
    meshes = [Mesh(vertices_cam[hand], faces[hand], HAND_COLOURS[hand]) for hand in shown]
    return render_meshes(crop, meshes, camera, opacity=0.85).image


def _jpeg(image: Image) -> bytes:
    written, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape}")
    return data.tobytes()
