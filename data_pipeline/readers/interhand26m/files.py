"""Reads the annotation files of InterHand2.6M v1.0 into compact arrays, each file once.

The big file lists millions of images and annotations: it is mapped into memory and decoded entry
by entry, so that only the columns stay.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data_pipeline.readers.interhand26m.schema import (
    JOINTS,
    AnnotationEntry,
    CameraEntry,
    DataFile,
    FrameEntry,
    ImageEntry,
    ManoFrameEntry,
    RootnetEntry,
    decode,
    flags,
    key_text,
    mapped,
    shaped,
    whole_number,
    wrong,
)
from data_pipeline.records import HAND_TYPES
from er_jax.utils.errors import DataError

Key = tuple[str, str]  # capture and frame, or capture and camera


@dataclasses.dataclass(frozen=True)
class Images:
    """Columns of `images[]`, sorted by id."""

    id: np.ndarray
    file_name: np.ndarray  # bytes
    size_px: np.ndarray  # (N, 2) width, height
    text: dict[str, np.ndarray]  # capture, subject, seq_name, camera: row into `names`
    names: np.ndarray  # bytes
    frame_idx: np.ndarray


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Columns of `annotations[]`, sorted by id; joints in the dataset's order."""

    id: np.ndarray
    image_id: np.ndarray
    joint_valid_view: np.ndarray  # (N, 42) bool
    hand_type: np.ndarray  # index into HAND_TYPES
    hand_type_valid: np.ndarray


@dataclasses.dataclass(frozen=True)
class Cameras:
    rows: dict[Key, int]  # capture, camera
    rotation: np.ndarray  # (M, 3, 3)
    translation_mm: np.ndarray  # (M, 3) float64, −R·position
    focal_px: np.ndarray  # (M, 2)
    princpt_px: np.ndarray  # (M, 2)


@dataclasses.dataclass(frozen=True)
class Frames:
    """Joints and MANO fits by frame; hand axis (right, left)."""

    rows: dict[Key, int]  # capture, frame
    joint_world_mm: np.ndarray  # (M, 42, 3), the dataset's joint order
    joint_valid: np.ndarray  # (M, 42) bool
    mano_valid: np.ndarray  # (M, 2) bool
    mano_pose: np.ndarray  # (M, 2, 48)
    mano_betas: np.ndarray  # (M, 2, 10)
    mano_trans_m: np.ndarray  # (M, 2, 3)


@dataclasses.dataclass(frozen=True)
class Rootnet:
    """RootNet's boxes and depths, sorted by annotation id."""

    annotation_id: np.ndarray
    bbox_px: np.ndarray  # (N, 4)
    abs_depth_mm: np.ndarray  # (N, 2) right, left


Captures = dict[str, dict[str, msgspec.Raw] | None]
"""Capture → frame → entry."""

Progress = Callable[[str, int, int], None]
"""Called now and then with what is read, entries done and entries in all."""


def read_data_file(path: Path, progress: Progress) -> tuple[Images, Annotations]:
    """Columns of `InterHand2.6M_{split}_data.json`.

    Raises:
      DataError: the file is missing, cut short, or not of InterHand2.6M v1.0.
    """
    data = decode(path, msgspec.json.Decoder(DataFile), mapped(path))
    if not data.images or not data.annotations:
        raise wrong(path, "images[] or annotations[] is empty")
    return (
        _read_images(path, data.images, progress),
        _read_annotations(path, data.annotations, progress),
    )


def read_camera_file(path: Path) -> Cameras:
    """Columns of `InterHand2.6M_{split}_camera.json`; raises as `read_data_file`."""
    captures = decode(path, msgspec.json.Decoder(dict[str, CameraEntry]), mapped(path))
    keys: list[Key] = []
    rotation: list[np.ndarray] = []
    position: list[np.ndarray] = []
    focal: list[np.ndarray] = []
    princpt: list[np.ndarray] = []
    for capture, cameras in captures.items():
        for camera in cameras.campos:
            keys.append((key_text(capture), key_text(camera)))
            for values, field, shape in (
                (rotation, cameras.camrot, (3, 3)),
                (position, cameras.campos, (3,)),
                (focal, cameras.focal, (2,)),
                (princpt, cameras.princpt, (2,)),
            ):
                if camera not in field:
                    raise wrong(path, f"camera {camera} of capture {capture} is incomplete")
                values.append(shaped(path, f"{capture}/{camera}", field[camera], shape))
    if not keys:
        raise wrong(path, "it has no camera")
    rotations = np.stack(rotation)
    return Cameras(
        rows={key: row for row, key in enumerate(keys)},
        rotation=rotations,
        translation_mm=-np.einsum("mij,mj->mi", rotations, np.stack(position)),
        focal_px=np.stack(focal),
        princpt_px=np.stack(princpt),
    )


def read_frame_files(joint_path: Path, mano_path: Path, progress: Progress) -> Frames:
    """Columns of `…_joint_3d.json` and of `…_MANO_NeuralAnnot.json`, by frame.

    Frames without joints are left out, whatever fits they have: their annotations cannot be used.
    Raises as `read_data_file`.
    """
    rows, joints, valid = _read_joints(joint_path, progress)
    mano_valid = np.zeros((len(rows), 2), bool)
    pose = np.zeros((len(rows), 2, 48), np.float32)
    betas = np.zeros((len(rows), 2, 10), np.float32)
    trans = np.zeros((len(rows), 2, 3), np.float32)
    try:
        content = mapped(mano_path)
    except DataError as error:
        raise DataError(
            f"{error} For a dataset of joints alone, without fits, let this file hold {{}}."
        ) from None
    fits = decode(mano_path, msgspec.json.Decoder(Captures), content)
    decoder = msgspec.json.Decoder(ManoFrameEntry | None)
    for key, raw in _frames(fits, "MANO fits", progress):
        frame = decode(mano_path, decoder, raw, "/".join(key))
        row = rows.get(key)
        if row is None or frame is None:
            continue
        for hand, fit in enumerate((frame.right, frame.left)):
            if fit is not None:
                place = "/".join((*key, HAND_TYPES[hand]))
                pose[row, hand] = shaped(mano_path, place + "/pose", fit.pose, (48,))
                betas[row, hand] = shaped(mano_path, place + "/shape", fit.shape, (10,))
                trans[row, hand] = shaped(mano_path, place + "/trans", fit.trans, (3,))
                mano_valid[row, hand] = True
    return Frames(rows, joints, valid, mano_valid, pose, betas, trans)


def read_rootnet_file(path: Path) -> Rootnet:
    """Columns of `rootnet_interhand2.6m_output_{split}.json`; raises as `read_data_file`."""
    raws = decode(path, msgspec.json.Decoder(list[msgspec.Raw]), mapped(path))
    if not raws:
        raise wrong(path, "it is empty")
    decoder = msgspec.json.Decoder(RootnetEntry)
    ids = np.empty(len(raws), np.int64)
    boxes = np.empty((len(raws), 4))
    depths = np.empty((len(raws), 2))
    for row, raw in enumerate(raws):
        entry = decode(path, decoder, raw, f"[{row}]")
        ids[row] = whole_number(path, f"[{row}].annot_id", entry.annot_id)
        boxes[row] = shaped(path, f"[{row}].bbox", entry.bbox, (4,))
        depths[row] = shaped(path, f"[{row}].abs_depth", entry.abs_depth, (2,))
    order = np.argsort(ids, kind="stable")
    return Rootnet(ids[order], boxes[order], depths[order])


def _read_images(path: Path, raws: list[msgspec.Raw], progress: Progress) -> Images:
    decoder = msgspec.json.Decoder(ImageEntry)
    count = len(raws)
    ids = np.empty(count, np.int64)
    sizes = np.empty((count, 2), np.int32)
    frame_idx = np.empty(count, np.int64)
    texts = {
        name: np.empty(count, np.int32) for name in ("capture", "subject", "seq_name", "camera")
    }
    rows: dict[str, int] = {}
    file_names: list[np.ndarray] = []
    pending: list[bytes] = []
    for row, raw in enumerate(raws):
        entry = decode(path, decoder, raw, f"images[{row}]")
        place = f"images[{row}]"
        ids[row] = whole_number(path, f"{place}.id", entry.id)
        sizes[row] = [
            whole_number(path, f"{place}.{side}", getattr(entry, side))
            for side in ("width", "height")
        ]
        frame_idx[row] = whole_number(path, f"{place}.frame_idx", entry.frame_idx)
        for name, column in texts.items():
            column[row] = rows.setdefault(_text(name, getattr(entry, name)), len(rows))
        pending.append(entry.file_name.encode())
        if len(pending) == 1 << 16:
            file_names.append(np.array(pending))
            pending.clear()
            progress("images", row + 1, count)
    file_names.append(np.array(pending, dtype=np.bytes_))
    order = _order_by_id(path, "images", ids)
    return Images(
        id=ids[order],
        file_name=np.concatenate(file_names)[order],
        size_px=sizes[order],
        text={name: column[order] for name, column in texts.items()},
        names=np.array([name.encode() for name in rows], dtype=np.bytes_),
        frame_idx=frame_idx[order],
    )


def _text(name: str, value: Any) -> str:
    """A word of an image; what is looked up by it is written in one way."""
    return key_text(value) if name in ("capture", "camera") else str(value)


def _read_annotations(path: Path, raws: list[msgspec.Raw], progress: Progress) -> Annotations:
    decoder = msgspec.json.Decoder(AnnotationEntry)
    count = len(raws)
    ids = np.empty(count, np.int64)
    image_ids = np.empty(count, np.int64)
    valid = np.empty((count, JOINTS), bool)
    hand_type = np.empty(count, np.int8)
    hand_type_valid = np.empty(count, bool)
    codes = {name: code for code, name in enumerate(HAND_TYPES)}
    for row, raw in enumerate(raws):
        entry = decode(path, decoder, raw, f"annotations[{row}]")
        place = f"annotations[{row}]"
        ids[row] = whole_number(path, f"{place}.id", entry.id)
        image_ids[row] = whole_number(path, f"{place}.image_id", entry.image_id)
        valid[row] = flags(path, f"{place}.joint_valid", entry.joint_valid, JOINTS)
        if entry.hand_type not in codes:
            raise wrong(
                path, f"{place}.hand_type is {entry.hand_type!r}, not one of {', '.join(codes)}"
            )
        hand_type[row] = codes[entry.hand_type]
        hand_type_valid[row] = flags(
            path, f"{place}.hand_type_valid", entry.hand_type_valid, 1
        ).item()
        if (row + 1) % (1 << 16) == 0:
            progress("annotations", row + 1, count)
    order = _order_by_id(path, "annotations", ids)
    return Annotations(
        ids[order], image_ids[order], valid[order], hand_type[order], hand_type_valid[order]
    )


def _read_joints(path: Path, progress: Progress) -> tuple[dict[Key, int], np.ndarray, np.ndarray]:
    captures = decode(path, msgspec.json.Decoder(Captures), mapped(path))
    decoder = msgspec.json.Decoder(FrameEntry)
    count = _count(captures)
    rows: dict[Key, int] = {}
    joints = np.empty((count, JOINTS, 3), np.float32)
    valid = np.empty((count, JOINTS), bool)
    for row, (key, raw) in enumerate(_frames(captures, "joints", progress)):
        place = "/".join(key)
        entry = decode(path, decoder, raw, place)
        joints[row] = shaped(path, f"{place}/world_coord", entry.world_coord, (JOINTS, 3))
        valid[row] = flags(path, f"{place}/joint_valid", entry.joint_valid, JOINTS)
        rows[key] = row
    return rows, joints, valid


def _count(captures: Captures) -> int:
    return sum(len(frames or ()) for frames in captures.values())


def _frames(captures: Captures, what: str, progress: Progress) -> Iterator[tuple[Key, msgspec.Raw]]:
    total = _count(captures)
    done = 0
    for capture, frames in captures.items():
        for frame, raw in (frames or {}).items():
            yield (key_text(capture), key_text(frame)), raw
            done += 1
            if done % 1024 == 0:
                progress(what, done, total)


def _order_by_id(path: Path, what: str, ids: np.ndarray) -> np.ndarray:
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if repeated.size:
        raise wrong(path, f"id {ids[order][repeated[0]]} occurs twice in {what}[]")
    if ids.size and (ids[order[0]] < 0 or ids[order[-1]] > np.iinfo(np.int32).max):
        raise wrong(path, f"an id of {what}[] does not fit 32 bits")
    return order
