"""Which bones move which skin of the stand-in hand, and which skin tells where a joint is."""

import functools

import numpy as np
from jaxtyping import Float

from data_pipeline.synthetic.skeleton import FINGERS, skeleton
from er_jax.mano import PARENTS
from tools.stand_in_hand.surface import hand_surface, neighbour_mean


def _smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below −1, 1 above 1, with the slope of a cosine between."""
    return 0.5 + 0.5 * np.sin(0.5 * np.pi * np.clip(x, -1.0, 1.0))


@functools.cache
def skinning_weights() -> Float[np.ndarray, "778 16"]:
    """Smooth shares of the bones; across a joint they change over about the finger's thickness."""
    points, hand = hand_surface().vertices, skeleton()
    membership = _finger_membership()
    weights = np.zeros((len(points), 16))
    weights[:, 0] = 1.0
    for finger, name in enumerate(FINGERS):
        reach = (17.0, 12.0, 10.5) if name == "Thumb" else (17.0, 12.5, 8.5)
        share = membership[:, finger]
        for k in range(3):
            joint = 1 + 3 * finger + k
            before = hand.frames[joint - 1 if k else joint, :, 0]
            across = before + hand.frames[joint, :, 0]
            past = (points - hand.joints[joint]) @ (across / np.linalg.norm(across))
            moved = share * _smooth_step(past / reach[k])
            weights[:, joint] += moved
            weights[:, joint - 1 if k else 0] -= moved
            share = moved
    weights[weights < 1e-4] = 0.0
    return weights / weights.sum(axis=1, keepdims=True)


def _finger_membership() -> Float[np.ndarray, "778 5"]:
    """How far each vertex follows each finger, were it beyond that finger's first joint."""
    surface, hand = hand_surface(), skeleton()
    points, parts = surface.vertices, surface.parts
    aside = np.empty((len(points), 5))
    for finger in range(5):
        first = 1 + 3 * finger
        along, side, _ = hand.frames[first].T
        offset = points - hand.joints[first]
        if FINGERS[finger] == "Thumb":
            along_mm = np.maximum(offset @ along, 0.0)
            aside[:, finger] = np.linalg.norm(offset - along_mm[:, None] * along, axis=1)
        else:
            aside[:, finger] = np.abs(offset @ side)
    fingers, thumb = slice(0, 4), 4
    share = np.exp(-(aside[:, fingers] ** 2) / (2 * 4.5**2))
    share /= share.sum(axis=1, keepdims=True) + 1e-30
    own = (parts[:, None] == np.arange(4)).astype(float)
    share = np.where((parts >= 0)[:, None], own, share)
    index_bone = hand.joints[1] / np.linalg.norm(hand.joints[1])
    along_mm = np.clip(points @ index_bone, 20.0, 90.0)
    from_index = np.linalg.norm(points - along_mm[:, None] * index_bone, axis=1)
    near_thumb = _smooth_step((from_index - aside[:, thumb]) / 18.0)
    near_thumb *= _smooth_step((points[:, 0] - 14.0) / 14.0)
    near_thumb = np.where((parts >= 0) & (parts != thumb), 0.0, near_thumb)
    membership = np.column_stack([share * (1.0 - near_thumb[:, None]), near_thumb])
    mean = neighbour_mean(len(points), surface.faces)
    pace = 0.6 * (mean @ (mean @ (parts < 0).astype(float)))[:, None]
    for _ in range(4):
        membership += pace * (mean @ membership - membership)
    return membership


def joint_regressor(weights: np.ndarray) -> Float[np.ndarray, "16 778"]:
    """Positive shares of the skin around each joint whose mean is exactly that joint.

    Of all such shares those nearest to a Gaussian about the joint: w ∝ g·exp(λ·v) (maximum
    entropy), λ by Newton's method.
    """
    points, hand = hand_surface().vertices, skeleton()
    regressor = np.zeros((16, len(points)))
    moved = moved_by(weights)
    for joint in range(16):
        if joint == 0:
            near = np.abs(points[:, 0]) < 14.0
            spread = 30.0
        else:
            near = (moved[:, joint] > 0.01) & (moved[:, joint] < 0.99)
            spread = 9.0
        chosen = np.flatnonzero(near)
        offset = (points[chosen] - hand.joints[joint]) / spread
        prior = -0.5 * (offset**2).sum(axis=1)
        slope = np.zeros(3)
        for _ in range(60):
            share = np.exp(prior + offset @ slope - (prior + offset @ slope).max())
            share /= share.sum()
            miss = share @ offset
            spread_matrix = (offset * share[:, None]).T @ offset - np.outer(miss, miss)
            slope = slope - np.linalg.solve(spread_matrix + 1e-9 * np.eye(3), miss)
            if np.abs(miss).max() < 1e-14:
                break
        regressor[joint, chosen] = share
    return regressor


def moved_by(weights: np.ndarray) -> Float[np.ndarray, "778 16"]:
    """Each vertex's weight on a joint and all that hangs on it."""
    moved = weights.copy()
    for joint in range(15, 0, -1):
        moved[:, PARENTS[joint]] += moved[:, joint]
    return moved
