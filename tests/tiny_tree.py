"""A raw tree of a few small images in InterHand2.6M's layout, whose annotations a test may edit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from er_jax.mano import HANDS, HandModel, joint_order, mano_forward
from er_jax.mano.joints import HAND21, INTERHAND21

WIDTH, HEIGHT = 96, 64
FOCAL = 300.0
PRINCPT = (48.0, 32.0)
DISTANCE_MM = 1000.0


@dataclasses.dataclass
class TinyTree:
    """The content of a split's files, as JSON objects."""

    split: str
    data: dict[str, Any]
    camera: dict[str, Any]
    joint_3d: dict[str, Any]
    mano: dict[str, Any]
    brightness: dict[str, int] = dataclasses.field(default_factory=dict)  # by file_name

    def write(self, raw_dir: Path) -> Path:
        """Writes the annotation files, and those images that are not there."""
        self.write_annotations(raw_dir)
        for image in self.data["images"]:
            path = raw_dir / "images" / self.split / image["file_name"]
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(image["id"], self.brightness.get(image["file_name"], 120)))
        return raw_dir

    def write_annotations(self, raw_dir: Path) -> Path:
        contents = {
            "data": self.data,
            "camera": self.camera,
            "joint_3d": self.joint_3d,
            "MANO_NeuralAnnot": self.mano,
        }
        for name, content in contents.items():
            path = annotation_path(raw_dir, name, self.split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return raw_dir

    def write_rootnet(self, raw_dir: Path, entries: list[Any], folder: str = "rootnet") -> None:
        path = raw_dir / folder / f"rootnet_interhand2.6m_output_{self.split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entries))


def annotation_path(raw_dir: Path, name: str, split: str = "train") -> Path:
    return raw_dir / "annotations" / split / f"InterHand2.6M_{split}_{name}.json"


def tiny_tree(
    split: str = "train",
    frames: int = 2,
    cameras: int = 2,
    seed: int = 0,
    captures: tuple[str, ...] = ("0", "1"),
) -> TinyTree:
    """Captures, `frames` frames each, seen by `cameras` cameras; two hands, all valid.

    The first camera looks along the world's z axis from 1 m before its origin.
    """
    random = np.random.default_rng(seed)
    names = [str(400260 + i) for i in range(cameras)]
    rotations = [np.eye(3), *(_rotation(random) for _ in names[1:])]
    tree = TinyTree(split, {"images": [], "annotations": []}, {}, {}, {})
    for capture in captures:
        tree.camera[capture] = {
            "campos": {
                name: (-DISTANCE_MM * rotation[2]).tolist()
                for name, rotation in zip(names, rotations, strict=True)
            },
            "camrot": {
                name: rotation.tolist() for name, rotation in zip(names, rotations, strict=True)
            },
            "focal": {name: [FOCAL, FOCAL] for name in names},
            "princpt": {name: list(PRINCPT) for name in names},
        }
        tree.joint_3d[capture], tree.mano[capture] = {}, {}
        for frame in range(20000, 20000 + 3 * frames, 3):
            _add_frame(tree, capture, frame, names, random)
    return tree


def take_joints_of_fits(tree: TinyTree, hands: HandModel, noise_mm: float = 0.0) -> None:
    """Makes the annotated joints those of the fits, but for some noise."""
    random = np.random.default_rng(0)
    for capture, frames in tree.mano.items():
        for frame, fits in frames.items():
            values = ([fits[side][key] for side in HANDS] for key in ("shape", "pose", "trans"))
            mesh = mano_forward(hands, *(np.array(value, np.float32) for value in values))
            joints_mm = 1000 * np.asarray(mesh.joints)[:, joint_order(HAND21, INTERHAND21)]
            joints_mm = joints_mm.reshape(42, 3) + random.normal(0, noise_mm, (42, 3))
            tree.joint_3d[capture][frame]["world_coord"] = joints_mm.tolist()


def squash(tree: TinyTree, raw_dir: Path, folder: str) -> None:
    """Resizes a camera's images to the turned shape, as camera 400412's were, where they lie.

    Args:
      tree: written before; its annotations give the new size, its calibration stays.
      raw_dir: that it was written to.
      folder: of the images, such as `Capture0/ROM01/cam400261`.
    """
    for image in tree.data["images"]:
        path = raw_dir / "images" / tree.split / image["file_name"]
        if image["file_name"].startswith(f"{folder}/"):
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            turned = cv2.resize(pixels, (image["height"], image["width"]))
            path.write_bytes(cv2.imencode(".jpg", turned)[1].tobytes())
            image["width"], image["height"] = image["height"], image["width"]
    tree.write_annotations(raw_dir)


def _add_frame(
    tree: TinyTree, capture: str, frame: int, cameras: list[str], random: np.random.Generator
) -> None:
    tree.joint_3d[capture][str(frame)] = {
        "world_coord": random.uniform(-40, 40, (42, 3)).tolist(),
        "joint_valid": [[1]] * 42,
        "hand_type": "interacting",
        "hand_type_valid": True,
    }
    tree.mano[capture][str(frame)] = {
        hand: {
            "pose": random.normal(0, 0.3, 48).tolist(),
            "shape": random.normal(0, 1, 10).tolist(),
            "trans": random.normal(0, 0.05, 3).tolist(),
        }
        for hand in ("right", "left")
    }
    for camera in cameras:
        number = len(tree.data["images"])
        tree.data["images"].append(
            {
                "id": 100 + number,
                "file_name": f"Capture{capture}/ROM01/cam{camera}/image{frame}.jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "capture": int(capture),
                "subject": int(capture),
                "seq_name": "ROM01",
                "camera": camera,
                "frame_idx": frame,
            }
        )
        tree.data["annotations"].append(
            {
                "id": number,
                "image_id": 100 + number,
                "bbox": [1.0, 2.0, 3.0, 4.0],
                "joint_valid": [1] * 42,
                "hand_type": "interacting",
                "hand_type_valid": 1,
            }
        )


def jpeg(seed: int, brightness: int = 120, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A noisy image of about that mean brightness."""
    noise = np.random.default_rng(seed).integers(-brightness // 2, brightness // 2 + 1, (8, 8, 3))
    coarse = (brightness + noise).astype(np.uint8)
    image = np.kron(coarse, np.ones((height // 8, width // 8, 1), np.uint8))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90)


def _rotation(random: np.random.Generator) -> np.ndarray:
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return rotation * np.sign(np.linalg.det(rotation))
