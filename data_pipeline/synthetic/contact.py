"""Contact measures how far a posed stand-in hand runs into itself, on bones padded with flesh."""

import functools

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.synthetic.skeleton import FINGERS, GIRTH, skeleton
from er_jax.mano import PARENTS

# Radius of the flesh around the bones, mm: half the thickness, since soft flesh gives way.
_FINGER_RADII = (8.6, 8.2, 6.8)
_THUMB_RADII = (10.6, 9.6, 8.1)
_PALM_RADIUS = 12.5


def overlap_mm(rotations: Float[np.ndarray, "n 15 3 3"]) -> Float[np.ndarray, " n"]:
    """Depth by which two parts of a pose overlap at most, mm; 0 or less where nothing touches.

    `rotations` are those of MANO's 15 joints relative to the flat hand, in the anatomical axes of
    `skeleton`.
    """
    starts, ends = _bones(rotations)
    first, second, allowed = _pairs()
    deepest = np.full(len(rotations), -np.inf)
    for begin in range(0, len(rotations), 1024):
        part = slice(begin, begin + 1024)
        gap = segment_distance(
            starts[part, first], ends[part, first], starts[part, second], ends[part, second]
        )
        deepest[part] = (allowed - gap).max(axis=1)
    return deepest


def _bones(
    rotations: Float[np.ndarray, "n 15 3 3"],
) -> tuple[Float[np.ndarray, "n 19 3"], Float[np.ndarray, "n 19 3"]]:
    """Ends of the 15 posed bones of the fingers and of the palm's four."""
    hand, n = skeleton(), len(rotations)
    positions = np.zeros((n, 16, 3))
    turned = np.tile(np.eye(3), (n, 16, 1, 1))
    ends = np.zeros((n, 19, 3))
    for joint in range(1, 16):
        parent = PARENTS[joint]
        arm = hand.joints[joint] - hand.joints[parent]
        positions[:, joint] = positions[:, parent] + turned[:, parent] @ arm
        turned[:, joint] = turned[:, parent] @ rotations[:, joint - 1]
        if joint % 3:
            continue
        finger = joint // 3 - 1
        ends[:, joint - 1] = positions[:, joint] + turned[:, joint] @ (
            0.8 * (hand.tips[finger] - hand.joints[joint])
        )
    for joint in range(1, 16):
        if joint % 3:
            ends[:, joint - 1] = positions[:, joint + 1]
    knuckles = hand.joints[[1, 4, 7, 10]]
    ends[:, 15:] = knuckles * 0.92 + (0, 0, -1.0)
    starts = np.concatenate([positions[:, 1:], np.tile(knuckles * 0.3, (n, 1, 1))], axis=1)
    return starts, ends


@functools.cache
def _pairs() -> tuple[
    Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]
]:
    """Bones that must keep apart, and the distance of their axes at which they touch."""
    radii = np.array([*_FINGER_RADII * 4, *_THUMB_RADII, *([_PALM_RADIUS] * 4)])
    radii[:15] *= np.repeat([GIRTH[name] for name in FINGERS], 3)
    pairs = []
    for a in range(19):
        for b in range(a + 1, 19):
            same_finger = a // 3 == b // 3 and b < 15
            in_palm = b >= 15 and (a >= 15 or a == 12 or (a % 3 == 0 and a < 12))
            if not (same_finger or in_palm):
                pairs.append((a, b))
    first, second = np.array(pairs).T
    return first, second, radii[first] + radii[second]


def segment_distance(
    p: Float[np.ndarray, "*k 3"],
    p_end: Float[np.ndarray, "*k 3"],
    q: Float[np.ndarray, "*k 3"],
    q_end: Float[np.ndarray, "*k 3"],
) -> Float[np.ndarray, "*k"]:
    """Distance of two segments (Ericson, "Real-Time Collision Detection", 5.1.9)."""
    u, v, w = p_end - p, q_end - q, p - q
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    slant = np.maximum(uu * vv - uv * uv, 1e-9)
    s = np.clip((uv * vw - uw * vv) / slant, 0.0, 1.0)
    t = np.clip((uv * s + vw) / vv, 0.0, 1.0)
    s = np.clip((uv * t - uw) / uu, 0.0, 1.0)
    return np.linalg.norm(w + s[..., None] * u - t[..., None] * v, axis=-1)
