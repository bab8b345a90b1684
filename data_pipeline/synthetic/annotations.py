"""The stand-in data's annotation files, as InterHand2.6M has them, with its kinds of gaps."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from data_pipeline.synthetic.recording import SIZE_PX, Frame, Recording
from er_jax.mano.joints import HAND21, HANDS, INTERHAND21, joint_order

_ABSENT_MM = 1.0
_JOINT_LOST, _WRIST_LOST, _UNSEEN = 0.015, 0.004, 0.01
_HAND_TYPE_UNSURE, _FIT_FAILED, _FIT_MISSING = 0.01, 0.03, 0.015
_TO_FILE = joint_order(HAND21, INTERHAND21)


def annotation_files(recording: Recording) -> dict[str, Any]:
    """Contents of the split's files by their path in the dataset's folder."""
    rng = np.random.default_rng((*recording.seed, 1))
    valid = _joints_valid(recording, rng)
    hand_type_valid = (rng.random(len(recording.frames)) > _HAND_TYPE_UNSURE).astype(int)
    data, rootnet = _data(recording, valid, hand_type_valid.tolist(), rng)
    prefix = f"annotations/{recording.split}/InterHand2.6M_{recording.split}"
    files: dict[str, Any] = {
        f"{prefix}_data.json": data,
        f"{prefix}_camera.json": _cameras(recording),
        f"{prefix}_joint_3d.json": _joints(recording, valid, hand_type_valid.tolist()),
        f"{prefix}_MANO_NeuralAnnot.json": _fits(recording, rng),
    }
    if recording.split != "train":
        files[f"rootnet_output/rootnet_interhand2.6m_output_{recording.split}.json"] = rootnet
    return files


def _joints_valid(recording: Recording, rng: np.random.Generator) -> list[Bool[np.ndarray, "2 21"]]:
    """Returns which joints of a frame the annotators have, Hand-21."""
    valid = []
    for frame in recording.frames:
        kept = rng.random((2, 21)) > np.where(np.arange(21) == 0, _WRIST_LOST, _JOINT_LOST)
        valid.append(kept & frame.present[:, None])
    return valid


def _data(
    recording: Recording,
    valid: list[np.ndarray],
    hand_type_valid: list[int],
    rng: np.random.Generator,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The COCO-style file, and the boxes and depths that a detector would give."""
    images, annotations, rootnet = [], [], []
    for number, image in enumerate(recording.images):
        frame, capture = recording.frames[image.frame], recording.captures[image.capture]
        camera = capture.cameras[image.camera]
        joints = camera.to_camera(frame.joints.astype(np.float64))
        pixels = camera.projection.project(joints)
        inside = ((pixels >= 0) & (pixels < SIZE_PX)).all(axis=-1)
        seen = valid[image.frame] & inside & (rng.random((2, 21)) > _UNSEEN)
        box = _enlarged(_box(pixels[frame.present]), 1.25)
        images.append(
            {
                "id": number,
                "file_name": image.file_name,
                "width": SIZE_PX[0],
                "height": SIZE_PX[1],
                "capture": capture.number,
                "subject": capture.number,
                "seq_name": frame.sequence,
                "camera": image.camera,
                "frame_idx": frame.frame_idx,
            }
        )
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "bbox": box.tolist(),
                "joint_valid": seen[:, _TO_FILE].astype(int).ravel().tolist(),
                "hand_type": _hand_type(frame),
                "hand_type_valid": hand_type_valid[image.frame],
            }
        )
        rootnet.append(
            {
                "annot_id": number,
                "bbox": _detected(box, rng).tolist(),
                "abs_depth": (joints[:, 0, 2] * 1e3 + rng.normal(0, 15, 2)).tolist(),
            }
        )
    return {"images": images, "annotations": annotations}, rootnet


def _cameras(recording: Recording) -> dict[str, Any]:
    return {
        str(number): {
            "campos": {n: (c.position_m * 1e3).tolist() for n, c in capture.cameras.items()},
            "camrot": {n: c.rotation.tolist() for n, c in capture.cameras.items()},
            "focal": {n: list(c.focal_px) for n, c in capture.cameras.items()},
            "princpt": {n: list(c.princpt_px) for n, c in capture.cameras.items()},
        }
        for number, capture in recording.captures.items()
    }


def _joints(
    recording: Recording, valid: list[np.ndarray], hand_type_valid: list[int]
) -> dict[str, Any]:
    joints: dict[str, Any] = {str(number): {} for number in recording.captures}
    for frame, kept, type_valid in zip(recording.frames, valid, hand_type_valid, strict=True):
        world_mm = frame.joints.astype(np.float64)[:, _TO_FILE] * 1e3
        world_mm[~frame.present] = _ABSENT_MM
        joints[str(frame.capture)][str(frame.frame_idx)] = {
            "world_coord": world_mm.reshape(42, 3).tolist(),
            "joint_valid": kept[:, _TO_FILE].astype(int).reshape(42, 1).tolist(),
            "hand_type": _hand_type(frame),
            "hand_type_valid": type_valid,
        }
    return joints


def _fits(recording: Recording, rng: np.random.Generator) -> dict[str, Any]:
    """MANO fits; of some frames there is none, of some only one hand's."""
    fits: dict[str, Any] = {str(number): {} for number in recording.captures}
    for frame in recording.frames:
        missing, failed = rng.random() < _FIT_MISSING, rng.random(2) < _FIT_FAILED
        betas = recording.captures[frame.capture].betas
        if not missing:
            fits[str(frame.capture)][str(frame.frame_idx)] = {
                side: {
                    "pose": frame.pose[hand].tolist(),
                    "shape": betas[hand].tolist(),
                    "trans": frame.trans_m[hand].tolist(),
                }
                if frame.present[hand] and not failed[hand]
                else None
                for hand, side in enumerate(HANDS)
            }
    return fits


def _hand_type(frame: Frame) -> str:
    return "interacting" if frame.present.all() else HANDS[int(frame.present[1])]


def _box(pixels: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "4"]:
    low, high = pixels.reshape(-1, 2).min(axis=0), pixels.reshape(-1, 2).max(axis=0)
    return np.concatenate([low, high - low])


def _enlarged(box: Float[np.ndarray, "4"], factor: float) -> Float[np.ndarray, "4"]:
    size = box[2:] * factor
    return np.concatenate([box[:2] + box[2:] / 2 - size / 2, size])


def _detected(box: Float[np.ndarray, "4"], rng: np.random.Generator) -> Float[np.ndarray, "4"]:
    """The box of the hands as a detector finds it: clipped, made square, enlarged; not exact."""
    low = np.clip(box[:2], 0, SIZE_PX)
    high = np.clip(box[:2] + box[2:], 0, SIZE_PX)
    side = (high - low).max() * 1.25 * rng.normal(1, 0.03)
    centre = (low + high) / 2 + rng.normal(0, 0.015, 2) * side
    return np.concatenate([centre - side / 2, [side, side]])
