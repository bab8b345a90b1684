"""Own data in the JSON-lines format, made of a built dataset's records."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_pipeline.datasets import RecordSource
from er_jax.mano.joints import HANDS

Entry = dict[str, Any]


def entry_of(record: dict[str, Any]) -> Entry:
    """All that a record knows, in the world's axes, as a line of the file."""
    entry: Entry = {
        "image": Path(record["file_name"].decode()).name,
        "camera": {
            "focal_px": record["focal_px"].tolist(),
            "princpt_px": record["princpt_px"].tolist(),
            "rotation": record["camera_rotation"].tolist(),
            "translation_m": (record["camera_translation_mm"] / 1000).tolist(),
        },
        "box_px": record["bbox_px"].tolist(),
        "hand_type": ("right", "left", "interacting")[record["hand_type"]],
    }
    for index, side in enumerate(HANDS):
        valid = record["joint_valid_world"][index]
        if not valid.any():
            continue
        joints = record["joint_world_mm"][index] / 1000
        entry[side] = {
            "joints_m": [j.tolist() if v else None for j, v in zip(joints, valid, strict=True)],
            "seen": record["joint_valid_view"][index].tolist(),
        }
        if record["mano_valid"][index]:
            entry[side]["mano"] = {
                "pose": record["mano_pose"][index].tolist(),
                "betas": record["mano_betas"][index].tolist(),
                "translation_m": record["mano_trans_m"][index].tolist(),
            }
    return entry


def in_camera_axes(entry: Entry) -> Entry:
    """The same with joints in the camera's axes, and without fits."""
    rotation, translation = (
        np.array(entry["camera"][name]) for name in ("rotation", "translation_m")
    )
    changed = {**entry, "camera": {k: entry["camera"][k] for k in ("focal_px", "princpt_px")}}
    for side in HANDS:
        if side in entry:
            joints = [
                j if j is None else (rotation @ j + translation).tolist()
                for j in entry[side]["joints_m"]
            ]
            changed[side] = {"joints_m": joints, "seen": entry[side]["seen"]}
    return changed


def in_pixels(entry: Entry) -> Entry:
    """The same with joints in the image alone, and without a camera."""
    camera_axes = in_camera_axes(entry)
    focal, middle = (np.array(entry["camera"][name]) for name in ("focal_px", "princpt_px"))
    changed = {k: v for k, v in camera_axes.items() if k != "camera"}
    for side in HANDS:
        if side in entry:
            joints = [
                j if j is None else (np.array(j[:2]) / j[2] * focal + middle).tolist()
                for j in camera_axes[side]["joints_m"]
            ]
            changed[side] = {"joints_px": joints}
    return changed


def fits_alone(entry: Entry) -> Entry:
    """The same with MANO's parameters alone."""
    others = {key: value for key, value in entry.items() if key not in HANDS}
    fits = {s: {"mano": entry[s]["mano"]} for s in HANDS if "mano" in entry.get(s, {})}
    return others | fits


def write_own_data(
    folder: Path,
    source: RecordSource,
    count: int,
    change: Callable[[Entry], Entry] = lambda entry: entry,
) -> list[Entry]:
    """Images and `annotations.jsonl` of a dataset's first records, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index in range(count):
        record = dict(source[index])
        entry = change(entry_of(record))
        entry["image"] = f"{index:02d}.jpg"
        (folder / entry["image"]).write_bytes(record["image"])
        entries.append(entry)
    write_lines(folder / "annotations.jsonl", entries)
    return entries


def write_lines(path: Path, entries: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def write_noise(path: Path, width: int = 96, height: int = 64) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
