"""Poses of the stand-in hand: joint limits, and plausible poses to draw datasets from.

Anatomical angles of a joint are (flexion, towards the thumb side, twist) about the axes of its
bone; as axis-angle they are put together as one rotation vector. Joints are MANO's 15 in its order.
All of it describes the right hand: the left one's axis-angle is (x, −y, −z).
"""

import functools

import numpy as np
from jaxtyping import Float

from data_pipeline.synthetic.contact import overlap_mm
from data_pipeline.synthetic.skeleton import FINGERS, rotation_matrices, skeleton, to_mano_axes

# Degrees: lower and upper of flexion, towards the thumb side, twist.
_FINGER_LIMITS = (
    ((-20.0, 92.0), (-16.0, 16.0), (-8.0, 8.0)),
    ((-5.0, 105.0), (-3.0, 3.0), (-3.0, 3.0)),
    ((-8.0, 75.0), (-3.0, 3.0), (-3.0, 3.0)),
)
_THUMB_LIMITS = (
    ((-20.0, 38.0), (-32.0, 28.0), (-22.0, 22.0)),
    ((-12.0, 60.0), (-8.0, 8.0), (-6.0, 6.0)),
    ((-15.0, 80.0), (-4.0, 4.0), (-4.0, 4.0)),
)
_REST = {
    "Index": ((9.0, 0.0, 0.0), (19.0, 0.0, 0.0), (10.0, 0.0, 0.0)),
    "Middle": ((13.0, 0.0, 0.0), (23.0, 0.0, 0.0), (12.0, 0.0, 0.0)),
    "Pinky": ((18.0, 2.0, 0.0), (25.0, 0.0, 0.0), (13.0, 0.0, 0.0)),
    "Ring": ((16.0, 1.0, 0.0), (25.0, 0.0, 0.0), (13.0, 0.0, 0.0)),
    "Thumb": ((4.0, -6.0, 3.0), (8.0, 0.0, 0.0), (12.0, 0.0, 0.0)),
}


@functools.cache
def joint_axes() -> Float[np.ndarray, "15 3 3"]:
    """Columns: axes of flexion, of turning towards the thumb side, of twist, in MANO's axes."""
    along, flexion, back = np.moveaxis(skeleton().frames[1:], -1, 0)
    axes = np.stack([flexion, back, along], axis=1)
    return np.swapaxes(1e3 * to_mano_axes(axes), 1, 2)


@functools.cache
def angle_limits() -> tuple[Float[np.ndarray, "15 3"], Float[np.ndarray, "15 3"]]:
    """(lower, upper) anatomical angles in radians."""
    limits = [
        limit
        for name in FINGERS
        for limit in (_THUMB_LIMITS if name == "Thumb" else _FINGER_LIMITS)
    ]
    lower, upper = np.moveaxis(np.radians(np.array(limits)), -1, 0)
    return lower, upper


def axis_angle_from(angles: Float[np.ndarray, "*n 15 3"]) -> Float[np.ndarray, "*n 45"]:
    """Axis-angle relative to the flat right hand from anatomical angles in radians."""
    vectors = np.einsum("jxa,...ja->...jx", joint_axes(), angles)
    return vectors.reshape(*vectors.shape[:-2], 45)


@functools.cache
def resting_pose() -> Float[np.ndarray, "45"]:
    """`hands_mean` of the right hand: gently curled."""
    return axis_angle_from(
        np.radians(np.array([joint for name in FINGERS for joint in _REST[name]]))
    )


def _gesture(
    near: tuple[float, ...],
    middle: tuple[float, ...],
    far: tuple[float, ...],
    aside: tuple[float, ...],
    thumb: tuple[tuple[float, float, float], ...],
) -> Float[np.ndarray, "15 3"]:
    """Angles in radians from degrees; fingers: index, middle, ring, little."""
    angles = np.zeros((15, 3))
    for i, name in enumerate(("Index", "Middle", "Ring", "Pinky")):
        first = 3 * FINGERS.index(name)
        angles[first : first + 3, 0] = near[i], middle[i], far[i]
        angles[first, 1] = aside[i]
    angles[12:] = thumb
    return np.radians(angles)


@functools.cache
def gestures() -> dict[str, Float[np.ndarray, "15 3"]]:
    """Anatomical angles of poses that people know by name."""
    none = (0.0, 0.0, 0.0, 0.0)
    return {
        "relaxed": np.radians([joint for name in FINGERS for joint in _REST[name]]),
        "flat": np.zeros((15, 3)),
        "spread": _gesture(
            (-8, -6, -6, -6), none, none, (10, 1, -8, -13), ((-14, 15, 0), (-5, 0, 0), (-10, 0, 0))
        ),
        "fist": _gesture(
            (82, 84, 84, 82),
            (98, 100, 100, 98),
            (52, 52, 52, 52),
            (-4, 0, 4, 9),
            ((24, 10, -4), (30, 0, 0), (44, 0, 0)),
        ),
        "point": _gesture(
            (6, 78, 84, 82),
            (6, 98, 100, 98),
            (4, 52, 52, 52),
            (0, 0, 4, 9),
            ((33, -2, 3), (26, 0, 0), (32, 0, 0)),
        ),
        "victory": _gesture(
            (2, 2, 80, 80),
            (3, 3, 98, 98),
            (2, 2, 52, 52),
            (6, -5, 3, 8),
            ((30, -8, 6), (44, 0, 0), (34, 0, 0)),
        ),
        "pinch": _gesture(
            (48, 30, 22, 16),
            (52, 34, 28, 24),
            (30, 17, 14, 12),
            (0, 0, 0, 0),
            ((22, 0, 9), (14, 0, 0), (4, 0, 0)),
        ),
        "grasp": _gesture(
            (38, 42, 46, 50),
            (45, 48, 50, 50),
            (26, 28, 28, 28),
            (3, 0, -2, -2),
            ((20, 2, 10), (12, 0, 0), (14, 0, 0)),
        ),
        "thumb up": _gesture(
            (80, 84, 84, 82),
            (98, 100, 100, 98),
            (52, 52, 52, 52),
            (-4, 0, 4, 9),
            ((-14, 18, 0), (-6, 0, 0), (-8, 0, 0)),
        ),
        "hook": _gesture(
            (8, 8, 8, 8),
            (88, 92, 92, 88),
            (48, 50, 50, 48),
            none,
            ((6, -4, 0), (12, 0, 0), (20, 0, 0)),
        ),
    }


_SHARES = {
    "relaxed": 0.22,
    "flat": 0.08,
    "spread": 0.14,
    "fist": 0.10,
    "point": 0.10,
    "victory": 0.05,
    "pinch": 0.10,
    "grasp": 0.13,
    "thumb up": 0.04,
    "hook": 0.04,
}
"""How often each gesture is the one that a sampled pose starts from."""


def sample_pose(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 45"]:
    """Plausible poses of the right hand: axis-angle without the mean, as the layer takes them.

    A gesture, drawn part of the way to another one, with unrest in which a finger's joints flex
    together, within `angle_limits()`. What then runs into itself is taken back towards its gesture.
    For the left hand multiply by (1, −1, −1), joint by joint.
    """
    known = np.stack(list(gestures().values()))
    start = known[rng.choice(len(known), size=n, p=[_SHARES[name] for name in gestures()])]
    other = known[rng.choice(len(known), size=n)]
    blend = rng.beta(0.7, 2.2, size=(n, 1)) + 0.06 * rng.standard_normal((n, 5))
    angles = start + np.repeat(blend.clip(0.0, 1.0), 3, axis=1)[..., None] * (other - start)
    angles += _unrest(rng, n, angles)
    lower, upper = angle_limits()
    angles = _taken_apart(angles.clip(lower, upper), start)
    return axis_angle_from(angles) - resting_pose()


def _unrest(
    rng: np.random.Generator, n: int, angles: Float[np.ndarray, "n 15 3"]
) -> Float[np.ndarray, "n 15 3"]:
    """Random change of the anatomical angles, radians: whole hand, finger, joint."""
    unrest = np.zeros((n, 5, 3, 3))
    together = 5.0 * rng.standard_normal((n, 1)) + 6.0 * rng.standard_normal((n, 5))
    unrest[..., 0] = together[..., None] * (0.8, 1.0, 0.6)
    unrest[..., 0] += rng.standard_normal((n, 5, 3)) * (5.0, 4.0, 2.0)
    fanned = 3.0 * rng.standard_normal((n, 1)) * (1.0, 0.0, -1.3, -0.6)
    loose = 1.0 - 0.9 * np.clip(angles[:, 0:12:3, 0] / np.radians(80.0), 0.0, 1.0)
    unrest[:, :4, 0, 1] = loose * (fanned + 1.5 * rng.standard_normal((n, 4)))
    unrest[:, 4, 0, 1:] = rng.standard_normal((n, 2)) * (6.0, 4.0)
    return np.radians(unrest).reshape(n, 15, 3)


def _taken_apart(
    angles: Float[np.ndarray, "n 15 3"], gesture: Float[np.ndarray, "n 15 3"]
) -> Float[np.ndarray, "n 15 3"]:
    """Poses moved towards their gesture until they run into themselves by 1.5 mm at most."""
    result = angles.copy()
    for kept in (0.8, 0.6, 0.4, 0.2, 0.0):
        bad = np.flatnonzero(self_overlap_mm(result) > 1.5)
        if not len(bad):
            break
        result[bad] = gesture[bad] + kept * (angles[bad] - gesture[bad])
    return result


def self_overlap_mm(angles: Float[np.ndarray, "n 15 3"]) -> Float[np.ndarray, " n"]:
    """Depth in mm by which each pose runs into itself, from anatomical angles in radians."""
    frames = skeleton().frames[1:]
    vectors = np.einsum("jxa,nja->njx", frames[:, :, [1, 2, 0]], angles)
    return overlap_mm(rotation_matrices(vectors))
