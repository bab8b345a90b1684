"""What is known of an image's hands, and a table of records from many of them.

For readers: whatever is not known stays None, and the rules that every dataset has in common are
applied here once. A hand's wrist gives its place, so that a hand in 3D without it has no joint in
3D; the box is given, or drawn around the joints; an image whose box misses it is dropped.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from data_pipeline import boxes
from data_pipeline.build.request import SplitTable
from data_pipeline.records import (
    BOX_SOURCES,
    FIELDS,
    HAND_TYPES,
    REQUIRED_FIELDS,
    TEXT_FIELDS,
    Column,
    RecordTable,
)
from er_jax.mano.joints import HAND21
from er_jax.utils.errors import DataError

WRIST = HAND21.index("Wrist")
FARTHEST_M = 50.0
"""Beyond it a length is taken for one in other units."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManoFit:
    """MANO's parameters of a hand, in the axes of its joints.

    Attributes:
      pose: axis-angles, the wrist's first; the other 15 without the model's mean pose
        (`flat_hand_mean=False` in smplx).
      betas: shape.
      translation_m: added to the posed vertices, as smplx's `transl`.
    """

    pose: Float[np.ndarray, "48"]
    betas: Float[np.ndarray, "10"]
    translation_m: Float[np.ndarray, "3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandLabels:
    """What is known of one hand. Joints in the Hand 21 order, unknown ones NaN.

    Attributes:
      joints_m: in the world's axes, which are the camera's if `Camera` gives no other.
      joints_px: x and y in the image, from its upper left corner.
      seen: joints that are visible; None: all that are known.
      mano: the fit's parameters.
      vertices_m: the fit's mesh, in the camera's axes.
      confidence: of all of this, from 0 to 1; weighs its part of the loss.
    """

    joints_m: Float[np.ndarray, "21 3"] | None = None
    joints_px: Float[np.ndarray, "21 2"] | None = None
    seen: Bool[np.ndarray, "21"] | None = None
    mano: ManoFit | None = None
    vertices_m: Float[np.ndarray, "778 3"] | None = None
    confidence: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera: X_camera = rotation·X_world + translation_m."""

    focal_px: Float[np.ndarray, "2"]
    princpt_px: Float[np.ndarray, "2"]
    rotation: Float[np.ndarray, "3 3"] | None = None
    translation_m: Float[np.ndarray, "3"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """An image and what is known of its hands.

    Attributes:
      file_name: relative to the folder of the table.
      annotation_id: its number in its dataset, none twice.
      size_px: width and height.
      right, left: the hands; None: not there, or nothing is known of it.
      hands_there: `right`, `left` or `interacting`; None: `right` and `left` are not all.
      camera: None: not known.
      box_px: x, y, width and height around the hands; None: around their joints or vertices.
      capture, subject, seq_name, camera_name, frame_idx: what reports group by.
      where: names the annotation in errors.
    """

    file_name: str
    annotation_id: int
    size_px: tuple[int, int]
    right: HandLabels | None = None
    left: HandLabels | None = None
    hands_there: str | None = None
    camera: Camera | None = None
    box_px: Float[np.ndarray, "4"] | None = None
    capture: str | None = None
    subject: str | None = None
    seq_name: str | None = None
    camera_name: str | None = None
    frame_idx: int | None = None
    where: str = ""

    @property
    def hands(self) -> Iterator[tuple[int, HandLabels]]:
        """Returns the hands of which something is known, each with its index."""
        return ((i, hand) for i, hand in enumerate((self.right, self.left)) if hand is not None)


def fields_of(images: Sequence[ImageLabels]) -> tuple[str, ...]:
    """The fields that records of these images hold: what any of them has."""
    hands = [hand for image in images for _, hand in image.hands]
    cameras = [image.camera for image in images if image.camera is not None]
    has_joints = any(hand.joints_m is not None for hand in hands)
    has_marks = any(hand.joints_px is not None for hand in hands)
    held = {
        "capture": any(image.capture is not None for image in images),
        "subject": any(image.subject is not None for image in images),
        "seq_name": any(image.seq_name is not None for image in images),
        "camera": any(image.camera_name is not None for image in images),
        "frame_idx": any(image.frame_idx is not None for image in images),
        "camera_valid": len(cameras) < len(images),
        "focal_px": bool(cameras),
        "princpt_px": bool(cameras),
        "camera_rotation": any(camera.rotation is not None for camera in cameras),
        "camera_translation_mm": any(camera.translation_m is not None for camera in cameras),
        "joint_world_mm": has_joints,
        "joint_valid_world": has_joints,
        "joint_valid_view": has_joints or has_marks,
        "joint_px": has_marks,
        "joint_px_valid": has_marks,
        "mano_valid": any(hand.mano is not None for hand in hands),
        "mano_pose": any(hand.mano is not None for hand in hands),
        "mano_betas": any(hand.mano is not None for hand in hands),
        "mano_trans_m": any(hand.mano is not None for hand in hands),
        "mano_vertices_m": any(hand.vertices_m is not None for hand in hands),
        "mano_vertices_valid": any(hand.vertices_m is not None for hand in hands),
        "label_confidence": any(hand.confidence is not None for hand in hands),
    }
    return (*REQUIRED_FIELDS, *(name for name in held if held[name]))


def table_of(images: Sequence[ImageLabels], image_dir: Path, fields: Sequence[str]) -> SplitTable:
    """The records of images, and how many were dropped by which rule.

    Args:
      images: of one split.
      image_dir: that `file_name` is relative to.
      fields: of the dataset, by `fields_of` all of its images.

    Raises:
      DataError: an annotation is not what it should be; or no record is left.
    """
    repeated = [i for i, n in Counter(image.annotation_id for image in images).items() if n > 1]
    if repeated:
        raise DataError(f"annotation_id {repeated[0]} occurs twice: give each image its own.")
    columns: dict[str, Any] = {
        name: np.broadcast_to(FIELDS[name].default(), (len(images), *FIELDS[name].shape)).copy()
        for name in (*fields, *boxes.JOINT_FIELDS, "joint_valid_view", "joint_px", "joint_px_valid")
        if name in FIELDS
    }
    for row, image in enumerate(images):
        _fill_image(columns, row, image)
        for index, hand in image.hands:
            _fill_hand(columns, row, index, image, hand)
    box, usable = _boxes(columns, images)
    columns |= {
        "bbox_px": box.astype(np.float32),
        "bbox_source": np.array([_box_source(image) for image in images], np.int8),
        **_texts(images),
    }
    known = np.array([any(True for _ in image.hands) for image in images], bool)
    counts = {
        "annotations": len(images),
        "dropped: nothing is known of a hand": int((~known).sum()),
        "dropped: box misses the image": int((known & ~usable).sum()),
    }
    kept = np.flatnonzero(known & usable)
    if not kept.size:
        raise DataError(f"{image_dir}: no annotated image is left ({counts}).")
    held: dict[str, Column] = {name: columns[name] for name in fields}
    return SplitTable(RecordTable(image_dir, held).select(kept), counts)


def _fill_image(columns: dict[str, Any], row: int, image: ImageLabels) -> None:
    hands = [index for index, _ in image.hands]
    known = HAND_TYPES[hands[0] if len(hands) == 1 else 2]
    columns["annotation_id"][row] = image.annotation_id
    columns["image_size_px"][row] = image.size_px
    columns["hand_type"][row] = HAND_TYPES.index(image.hands_there or known)
    columns["hand_type_valid"][row] = image.hands_there is not None
    if "frame_idx" in columns:
        columns["frame_idx"][row] = image.frame_idx or 0
    if "camera_valid" in columns:
        columns["camera_valid"][row] = image.camera is not None
    if image.camera is not None:
        camera = image.camera
        columns["focal_px"][row] = checked(image.where, "focal length", camera.focal_px, (2,))
        columns["princpt_px"][row] = checked(
            image.where, "principal point", camera.princpt_px, (2,)
        )
        if camera.rotation is not None:
            columns["camera_rotation"][row] = _rotation(image, camera.rotation)
        if camera.translation_m is not None:
            translation = checked(image.where, "camera's translation", camera.translation_m, (3,))
            columns["camera_translation_mm"][row] = 1000 * translation


def _fill_hand(
    columns: dict[str, Any],
    row: int,
    index: int,
    image: ImageLabels,
    hand: HandLabels,
) -> None:
    here = row, index
    seen = (
        np.ones(21, bool) if hand.seen is None else checked(image.where, "seen", hand.seen, (21,))
    )
    if hand.joints_m is not None:
        joints = checked(image.where, "joints in metres", hand.joints_m, (21, 3), may_lack=True)
        _check_metres(image, "joints", joints)
        valid = np.isfinite(joints).all(axis=-1)
        valid &= valid[WRIST]
        columns["joint_world_mm"][here] = np.where(valid[:, None], 1000 * joints, 0)
        columns["joint_valid_world"][here] = valid
        columns["joint_valid_view"][here] |= valid & seen
    if hand.joints_px is not None:
        pixels = checked(image.where, "joints in pixels", hand.joints_px, (21, 2), may_lack=True)
        valid = np.isfinite(pixels).all(axis=-1)
        columns["joint_px"][here] = np.where(valid[:, None], pixels, 0)
        columns["joint_px_valid"][here] = valid & seen
        columns["joint_valid_view"][here] |= valid & seen
    if hand.mano is not None:
        columns["mano_valid"][here] = True
        columns["mano_pose"][here] = checked(image.where, "MANO pose", hand.mano.pose, (48,))
        columns["mano_betas"][here] = checked(image.where, "MANO betas", hand.mano.betas, (10,))
        translation = checked(image.where, "MANO translation", hand.mano.translation_m, (3,))
        _check_metres(image, "MANO translation", translation)
        columns["mano_trans_m"][here] = translation
    if hand.vertices_m is not None:
        mesh = checked(image.where, "vertices", hand.vertices_m, (778, 3))
        _check_metres(image, "vertices", mesh)
        columns["mano_vertices_m"][here] = mesh
        columns["mano_vertices_valid"][here] = True
    if hand.confidence is not None:
        if not 0 <= hand.confidence <= 1:
            raise DataError(f"{image.where}: confidence {hand.confidence} is not from 0 to 1.")
        columns["label_confidence"][here] = hand.confidence


def _boxes(columns: dict[str, Any], images: Sequence[ImageLabels]) -> tuple[np.ndarray, np.ndarray]:
    """Each image's square box, and whether it meets the image."""
    size = columns["image_size_px"]
    camera = np.array([image.camera is not None for image in images], bool)[:, None, None]
    joints, joints_valid = boxes.joint_pixels({n: columns[n] for n in boxes.JOINT_FIELDS})
    points = np.concatenate([columns["joint_px"], joints], axis=2)
    valid = np.concatenate([columns["joint_px_valid"], joints_valid & camera], axis=2)
    if "mano_vertices_m" in columns:
        depth = columns["mano_vertices_m"][..., 2:]
        mesh = columns["mano_vertices_m"][..., :2] / np.where(depth > 0, depth, 1)
        mesh = mesh * columns["focal_px"][:, None, None] + columns["princpt_px"][:, None, None]
        points = np.concatenate([points, mesh], axis=2)
        valid = np.concatenate([valid, (depth[..., 0] > 0) & camera], axis=2)
    found, usable = boxes.joint_boxes(points, valid, size)
    for row, image in enumerate(images):
        if image.box_px is not None:
            x, y, width, height = checked(image.where, "box", image.box_px, (4,)).tolist()
            if min(width, height) <= 0:
                raise DataError(
                    f"{image.where}: its box {[x, y, width, height]} has no area. Give x, y, width "
                    "and height in pixels."
                )
            side = max(width, height)
            found[row] = x + (width - side) / 2, y + (height - side) / 2, side, side
    given = np.array([image.box_px is not None for image in images], bool)
    missing = ~given & ~valid.any(axis=(1, 2)) & [any(True for _ in i.hands) for i in images]
    if missing.any():
        raise DataError(
            f"{images[int(np.argmax(missing))].where}: nothing says where in the image its hands "
            "are. Give a box (x, y, width, height), joints in pixels, or joints or vertices in "
            "metres with the camera's focal length and principal point."
        )
    return found, np.where(given, boxes.meets_image(found, size), usable)


def _box_source(image: ImageLabels) -> int:
    if image.box_px is not None:
        return BOX_SOURCES.index("given")
    has_joints = any(h.joints_m is not None or h.joints_px is not None for _, h in image.hands)
    return BOX_SOURCES.index("joints" if has_joints else "mesh")


def _texts(images: Sequence[ImageLabels]) -> dict[str, np.ndarray]:
    attributes = {name: name for name in TEXT_FIELDS} | {"camera": "camera_name"}
    return {
        name: np.array([(getattr(i, attribute) or "").encode() for i in images], np.bytes_)
        for name, attribute in attributes.items()
    }


def checked(
    where: str,
    what: str,
    value: Any,
    shape: tuple[int, ...],
    *,
    may_lack: bool = False,
) -> np.ndarray:
    """An array of this shape, of finite numbers (or, where some may lack, of NaN too).

    Raises:
      DataError: it is not.
    """
    array = np.asarray(value)
    if array.shape != shape:
        raise DataError(f"{where}: {what}: shape {array.shape} instead of {shape}.")
    if not (may_lack or np.isfinite(array).all()):
        raise DataError(f"{where}: {what}: has values that are not finite.")
    return array


def _rotation(image: ImageLabels, value: Any) -> np.ndarray:
    rotation = checked(image.where, "camera's rotation", value, (3, 3))
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise DataError(
            f"{image.where}: camera's rotation is no rotation: R·Rᵀ is not the identity, or it "
            "mirrors. Give X_camera = R·X_world + t with x right, y down, z forward."
        )
    return rotation


def _check_metres(image: ImageLabels, what: str, values: np.ndarray) -> None:
    if np.nanmax(np.abs(values), initial=0) > FARTHEST_M:
        raise DataError(
            f"{image.where}: {what} up to {np.nanmax(np.abs(values)):.0f} m from the origin: these "
            "look like millimetres. Give metres."
        )
