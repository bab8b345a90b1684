"""Persons' hands in random poses before a camera, with their joints and keypoints."""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic import poses
from er_jax.mano import HANDS, load_hands, mano_forward
from er_jax.rendering.cameras import PerspectiveCamera

FOCAL, MIDDLE = np.array([620.0, 600.0]), np.array([255.5, 199.5])
CAMERA = PerspectiveCamera(tuple(FOCAL), tuple(MIDDLE))


@dataclasses.dataclass
class Truth:
    """Hands of persons (n, H) with their joints in the camera's metres and their keypoints."""

    sides: np.ndarray
    betas: np.ndarray
    joints: np.ndarray
    keypoints: np.ndarray


def drawn(count: int, sides: tuple[int, ...], seed: int = 0, apart: float = 0.16) -> Truth:
    random = np.random.default_rng(seed)
    shape = (count, len(sides))
    mirrored = np.where(np.array(sides)[:, None] == 1, np.tile([1.0, -1.0, -1.0], 15), 1.0)
    fingers = poses.sample_pose(random, count * len(sides)).reshape(*shape, 45) * mirrored
    root = Rotation.random(count * len(sides), random_state=seed).as_rotvec().reshape(*shape, 3)
    betas = random.normal(0, 0.7, (count, 1, 10))
    place = np.concatenate(
        [random.normal(0, 0.05, (*shape, 2)), random.uniform(0.5, 0.7, (*shape, 1))], -1
    )
    place[..., 0] += apart * (np.arange(len(sides)) - 0.5 * (len(sides) - 1))
    hands = load_hands()
    joints = np.zeros((*shape, 21, 3))
    for column, side in enumerate(sides):
        pose = np.concatenate([root[:, column], fingers[:, column]], -1)
        hand = hands.hand(HANDS[side])
        moved = mano_forward(hand, betas[:, 0], pose, np.zeros(3)).joints
        joints[:, column] = moved - moved[:, :1] + place[:, column, None]
    return Truth(np.array(sides), betas[:, 0], joints, CAMERA.project(joints))
