"""A folder in FreiHAND's format, of drawn right hands, by formulas written out here.

Of each of `MOMENTS` moments there are two views, so that two entries share shape and fingers.
Joints follow FreiHAND's own hand model: ends of the turned bones, and its vertices for the
fingertips, which on the stand-in hand, whose vertices are its own, lie elsewhere.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from reference import JOINTS, REGRESSED, hand_mesh, rotation_matrix, rotation_vector

from data_pipeline.synthetic.picture import View, draw_view, encode
from data_pipeline.synthetic.poses import sample_pose
from data_pipeline.synthetic.recording import hand_surfaces
from data_pipeline.synthetic.skin import sample_subject
from er_jax.mano import load_hands
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.rendering.cameras import PerspectiveCamera

SIDE = 224
MOMENTS, VIEWS, BACKGROUNDS, EVALUATION = 4, 2, 4, 4
TRAINING = MOMENTS * VIEWS
TIPS = {"Thumb_4": 744, "Index_4": 320, "Middle_4": 443, "Ring_4": 555, "Pinky_4": 672}


def bones_of(mano: dict, betas: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Ends of the turned bones (16, 3), by 4×4 matrices along the tree."""
    rest = mano["J_regressor"] @ (mano["v_template"] + mano["shapedirs"] @ betas)
    angles = np.concatenate([pose[:3], pose[3:] + mano["hands_mean"]]).reshape(16, 3)
    world: list[np.ndarray] = []
    for joint in range(16):
        local = np.eye(4)
        local[:3, :3] = rotation_matrix(angles[joint])
        parent = int(mano["kintree_table"][0, joint]) if joint else None
        local[:3, 3] = rest[joint] - (rest[parent] if parent is not None else 0)
        world.append(local if parent is None else world[parent] @ local)
    return np.array([matrix[:3, 3] for matrix in world])


def joints_of(bones: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """FreiHAND's 21 joints."""
    return np.array([vertices[TIPS[n]] if n in TIPS else bones[REGRESSED.index(n)] for n in JOINTS])


def entries(count: int, views: int, seed: int) -> dict[str, list[Any]]:
    """The annotation files' entries by their keys, of `count` moments."""
    random = np.random.default_rng(seed)
    mano = stand_in_arrays("right")
    found: dict[str, list[Any]] = {key: [] for key in ("K", "xyz", "mano", "verts", "scale")}
    for fingers in sample_pose(random, count).reshape(count, 45):
        betas = random.normal(0, 0.7, 10)
        for _ in range(views):
            # Fingers up, the palm to the camera, then turned a little.
            up = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
            turn = rotation_matrix(random.normal(0, 0.5, 3)) @ up
            pose = np.concatenate([rotation_vector(turn), fingers])
            focal = random.uniform(440, 520) * np.array([1, random.normal(1, 0.01)])
            centre = random.normal(SIDE / 2, 3, 2)
            bones = bones_of(mano, betas, pose)
            middle = bones[REGRESSED.index("Middle_1")]
            root = np.array([*random.normal(0, 0.01, 2), random.uniform(0.55, 0.75)])
            vertices = hand_mesh(mano, betas, pose, root - middle)
            joints = joints_of(bones + root - middle, vertices)
            # z = f / scale, and the pixel by the mean focal length f.
            scale = focal.mean() / root[2]
            pixel = centre + root[:2] * scale
            found["K"].append([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
            found["xyz"].append(joints.tolist())
            found["verts"].append(vertices.tolist())
            found["mano"].append([[*pose, *betas, *pixel, scale]])
            found["scale"].append(float(np.linalg.norm(joints[10] - joints[9])))
    return found


def write_tree(raw_dir: Path) -> dict[str, dict[str, list[Any]]]:
    """Writes the folder; returns what its annotation files hold."""
    content = {
        "training": entries(MOMENTS, VIEWS, seed=1),
        "evaluation": entries(EVALUATION, 1, seed=2),
    }
    surfaces = hand_surfaces(load_hands())
    for folder, found in content.items():
        for key, value in found.items():
            write(raw_dir, folder, key, value)
        count = len(found["K"])
        (raw_dir / folder / "rgb").mkdir(parents=True)
        for number in range(count * (BACKGROUNDS if folder == "training" else 1)):
            entry, background = number % count, number // count
            k = np.array(found["K"][entry])
            view = View(
                vertices=(np.array(found["verts"][entry], np.float32), None),
                elbows=np.array([[0.0, 0.9, 0.4]] * 2),
                camera=PerspectiveCamera((k[0, 0], k[1, 1]), (k[0, 2], k[1, 2])),
                grey=False,
                seed=(number, background),
            )
            subject = sample_subject(np.random.default_rng(entry))
            image = draw_view(view, surfaces, subject, (SIDE, SIDE)).image
            path = raw_dir / folder / "rgb" / f"{number:08d}.jpg"
            path.write_bytes(encode(image, grey=False))
    return content


def write(raw_dir: Path, folder: str, key: str, value: Any) -> Path:
    path = raw_dir / f"{folder}_{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
