"""A raw tree in InterHand2.6M's layout of any size, with invented numbers and few distinct images.

For measuring time and memory only: nothing in it looks like a hand.
"""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

WIDTH, HEIGHT = 512, 334
DISTINCT_IMAGES = 100
_CAPTURES = 20


def write_raw_tree(
    raw_dir: Path, *, annotations: int, cameras: int = 80, with_images: bool, split: str = "train"
) -> None:
    """Writes `annotations` images' annotations, `cameras` views of each frame.

    Args:
      with_images: also the images, as hard links to `DISTINCT_IMAGES` files.
    """
    random = np.random.default_rng(0)
    folder = raw_dir / "annotations" / split
    folder.mkdir(parents=True)
    camera_names = [str(400000 + i) for i in range(cameras)]
    frames = -(-annotations // cameras)
    per_capture = -(-frames // _CAPTURES)
    keys = [(str(i // per_capture), str(20000 + 3 * (i % per_capture))) for i in range(frames)]

    captures = {capture: _cameras(camera_names, random) for capture, _ in keys}
    _write(folder / f"InterHand2.6M_{split}_camera.json", captures)
    joints: dict[str, dict[str, object]] = {}
    fits: dict[str, dict[str, object]] = {}
    for capture, frame in keys:
        joints.setdefault(capture, {})[frame] = {
            "world_coord": random.normal(0, 50, (42, 3)).tolist(),
            "joint_valid": [[1]] * 42,
            "hand_type": "interacting",
            "hand_type_valid": True,
        }
        fits.setdefault(capture, {})[frame] = {
            hand: {
                "pose": random.normal(0, 0.3, 48).tolist(),
                "shape": random.normal(0, 1, 10).tolist(),
                "trans": random.normal(0, 0.05, 3).tolist(),
            }
            for hand in ("right", "left")
        }
    _write(folder / f"InterHand2.6M_{split}_joint_3d.json", joints)
    _write(folder / f"InterHand2.6M_{split}_MANO_NeuralAnnot.json", fits)
    names = _write_data_file(
        folder / f"InterHand2.6M_{split}_data.json", keys, camera_names, annotations
    )
    if with_images:
        _link_images(raw_dir, split, names, random)


def _cameras(names: list[str], random: np.random.Generator) -> dict[str, object]:
    """Cameras that look at the origin from all sides."""
    rotations, positions = {}, {}
    for name in names:
        back = random.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 1.0, 0.0], -back)
        right /= np.linalg.norm(right)
        rotations[name] = np.stack([right, np.cross(-back, right), -back]).tolist()
        positions[name] = (back * 1000).tolist()
    return {
        "campos": positions,
        "camrot": rotations,
        "focal": {name: [1300.0, 1300.0] for name in names},
        "princpt": {name: [256.0, 167.0] for name in names},
    }


def _write_data_file(
    path: Path, keys: list[tuple[str, str]], cameras: list[str], count: int
) -> list[str]:
    names = []
    valid = ", ".join(["1"] * 42)
    with path.open("w") as file:
        file.write('{"images": [')
        for i in range(count):
            capture, frame = keys[i // len(cameras)]
            camera = cameras[i % len(cameras)]
            sequence = f"{int(capture):04d}_two_hands_close_together"
            names.append(f"Capture{capture}/{sequence}/cam{camera}/image{frame}.jpg")
            file.write(
                f'{", " if i else ""}{{"id": {i}, "file_name": "{names[-1]}", "width": {WIDTH}, '
                f'"height": {HEIGHT}, "capture": {capture}, "subject": {capture}, "seq_name": '
                f'"{sequence}", "camera": "{camera}", "frame_idx": {frame}}}'
            )
        file.write('], "annotations": [')
        for i in range(count):
            file.write(
                f'{", " if i else ""}{{"id": {i}, "image_id": {i}, "bbox": [101.13, 52.75, 183.21,'
                f' 201.88], "joint_valid": [{valid}], "hand_type": "interacting", '
                '"hand_type_valid": 1}'
            )
        file.write("]}")
    return names


def _link_images(raw_dir: Path, split: str, names: list[str], random: np.random.Generator) -> None:
    distinct = raw_dir / "distinct"
    distinct.mkdir()
    for i in range(DISTINCT_IMAGES):
        (distinct / f"{i}.jpg").write_bytes(noisy_jpeg(random))
    for i, name in enumerate(names):
        path = raw_dir / "images" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(distinct / f"{i % DISTINCT_IMAGES}.jpg", path)


def noisy_jpeg(random: np.random.Generator) -> bytes:
    """A JPEG of the dataset's size in pixels and, at about 45 KB, not below its size in bytes."""
    coarse = random.integers(0, 256, (42, 64, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return simplejpeg.encode_jpeg(noisy, quality=85, colorsubsampling="420")


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
