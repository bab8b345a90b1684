"""Plausible finger postures for the stand-in data: gestures as joint angles, mixed and varied.

A posture is, for each of MANO's 15 finger joints, how far it bends (towards the palm), spreads
(towards the thumb side) and twists, in degrees from the flat hand.
"""

import numpy as np
from jaxtyping import Float

from er_jax.mano.stand_in_skeleton import skeleton, to_mano_axes

_FINGERS = ("Index", "Middle", "Pinky", "Ring", "Thumb")
_FULL_BEND_DEGREES = np.array([82.0, 100.0, 62.0])
_SPREAD_DEGREES = {"Index": 13.0, "Middle": 2.0, "Pinky": -20.0, "Ring": -9.0}
_THUMB_BEND_DEGREES = np.array([42.0, 50.0, 62.0])

# How far each finger is closed: knuckle and middle joint, in _FINGERS' order; 1 is a fist.
_GESTURES: dict[str, tuple[tuple[float, float], ...]] = {
    "flat": ((0.02, 0.03), (0.02, 0.03), (0.02, 0.05), (0.02, 0.03), (0.05, 0.1)),
    "relaxed": ((0.2, 0.25), (0.3, 0.3), (0.4, 0.4), (0.35, 0.35), (0.3, 0.3)),
    "fist": ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.8, 0.75)),
    "point": ((0.05, 0.08), (0.9, 0.95), (0.95, 1.0), (0.95, 1.0), (0.75, 0.7)),
    "two": ((0.05, 0.06), (0.05, 0.06), (0.95, 1.0), (0.9, 1.0), (0.85, 0.7)),
    "three": ((0.05, 0.06), (0.05, 0.06), (0.95, 0.95), (0.1, 0.1), (0.95, 0.6)),
    "pinch": ((0.58, 0.5), (0.3, 0.3), (0.2, 0.2), (0.25, 0.25), (0.75, 0.3)),
    "claw": ((0.1, 0.65), (0.1, 0.65), (0.15, 0.6), (0.1, 0.65), (0.2, 0.5)),
    "grip": ((0.55, 0.55), (0.6, 0.55), (0.65, 0.6), (0.62, 0.55), (0.6, 0.3)),
    "bent": ((0.75, 0.1), (0.75, 0.1), (0.75, 0.15), (0.75, 0.1), (0.5, 0.1)),
    "thumb_up": ((0.95, 1.0), (0.97, 1.0), (1.0, 1.0), (1.0, 1.0), (-0.25, -0.1)),
    "shaka": ((0.95, 1.0), (0.95, 1.0), (0.05, 0.05), (0.85, 0.95), (-0.1, 0.0)),
}


def sample_posture(
    rng: np.random.Generator, gestures: tuple[str, ...] = tuple(_GESTURES)
) -> Float[np.ndarray, "45"]:
    """One right hand's finger pose: axis-angle from the flat hand, radians.

    A gesture of `gestures` is drawn part of the way back to the relaxed hand, and every finger and
    joint varies around it; neighbouring fingers vary together.
    """
    gesture = np.array(_GESTURES[str(rng.choice(gestures))])
    closed = np.array(_GESTURES["relaxed"]) * (share := 0.35 * rng.random()) + gesture * (1 - share)
    closed = (
        closed + rng.normal(0, 0.05) + rng.normal(0, 0.07, (5, 1)) + rng.normal(0, 0.05, (5, 2))
    )
    closed[:4] = np.clip(closed[:4], -0.08, 1.02)
    closed[4] = np.clip(closed[4], -0.4, 1.0)
    opened = rng.uniform(-0.35, 1.0)

    bend, spread, twist = np.zeros((3, 5, 3))
    bend[:, 0], bend[:, 1] = closed.T
    bend[:, 2] = np.maximum(closed[:, 1], 0) * rng.uniform(0.8, 1.0, 5)
    bend[:4] *= _FULL_BEND_DEGREES
    bend[4] *= _THUMB_BEND_DEGREES
    for finger, name in enumerate(_FINGERS[:4]):
        # A bent knuckle hardly spreads.
        straight = 1 - 0.8 * np.clip(closed[finger, 0], 0, 1)
        spread[finger, 0] = (_SPREAD_DEGREES[name] * opened + rng.normal(0, 2)) * straight
    twist[:, 0] = rng.normal(0, 2, 5)
    thumb_across = np.clip(closed[4, 0], 0, 1)
    spread[4, 0] = rng.normal(4 - 16 * thumb_across, 6)
    twist[4, 0] = rng.normal(14 * thumb_across, 4)
    return _axis_angle(bend, spread, twist)


def mirrored(pose: Float[np.ndarray, "45"]) -> Float[np.ndarray, "45"]:
    """The other hand's pose: rotation vectors reflected in the plane x = 0."""
    return (pose.reshape(15, 3) * (1.0, -1.0, -1.0)).ravel()


def _axis_angle(
    bend: Float[np.ndarray, "5 3"],
    spread: Float[np.ndarray, "5 3"],
    twist: Float[np.ndarray, "5 3"],
) -> Float[np.ndarray, "45"]:
    """Degrees about each joint's own axes -> rotation vectors in MANO's axes, radians."""
    frames = skeleton().frames[1:].reshape(5, 3, 3, 3)
    along, across, back = np.moveaxis(frames, -1, 0)
    angles = np.radians(np.stack([bend, spread, twist], axis=-1))
    vectors = angles[..., :1] * across + angles[..., 1:2] * back + angles[..., 2:] * along
    return (to_mano_axes(vectors) * 1e3).ravel()
