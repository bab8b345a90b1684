"""Bones of the stand-in hand: where its joints lie, and the axes each joint bends about.

Everything here is the right hand, in anatomical axes (distal, radial, dorsal), in millimetres,
wrist at the origin: the fingers point to +distal, the thumb side is +radial, the back of the hand
+dorsal. Lengths are those of an adult hand (wrist to middle tip 187 mm).
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FINGERS = ("Index", "Middle", "Pinky", "Ring", "Thumb")
"""MANO's order of the fingers; joint 1 + 3·finger + k is the finger's k-th joint."""

# Position of the first joint, then for each of the three bones its length, its azimuth (towards
# the thumb side) and its elevation (towards the back of the hand) in degrees.
_BONES = {
    "Index": ((91.0, 23.5, 1.5), (42.0, 24.5, 21.5), (7.0, 7.0, 6.0), (1.0, -3.0, -6.0)),
    "Middle": ((92.0, 2.5, 3.5), (46.0, 29.0, 22.5), (0.5, 0.5, 0.5), (0.0, -4.0, -7.0)),
    "Pinky": ((77.5, -35.0, -3.0), (34.0, 20.0, 19.5), (-15.0, -13.0, -10.0), (0.0, -4.0, -7.0)),
    "Ring": ((86.5, -17.5, 1.5), (42.5, 27.0, 22.0), (-7.0, -6.5, -4.5), (0.0, -4.0, -7.0)),
    "Thumb": ((21.0, 20.0, -8.0), (45.0, 33.0, 27.0), (50.0, 37.0, 30.0), (-17.0, -11.0, -9.0)),
}
_THUMB_ROLL_DEGREES = 52.0
GIRTH = {"Index": 1.04, "Middle": 1.07, "Pinky": 0.9, "Ring": 1.02, "Thumb": 1.04}
"""How stout each finger is, relative to the measures of `contact` and of the drawn flesh."""


@dataclass(frozen=True)
class Skeleton:
    """Joints, fingertips and joint axes of the flat right hand, (distal, radial, dorsal), mm."""

    joints: Float[np.ndarray, "16 3"]
    tips: Float[np.ndarray, "5 3"]
    """Ends of the fingers, in the order of `FINGERS`."""
    frames: Float[np.ndarray, "16 3 3"]
    """Columns: along the bone; the flexion axis; the outward normal of the finger's back."""


@functools.cache
def skeleton() -> Skeleton:
    """The stand-in hand's bones."""
    joints, tips = np.zeros((16, 3)), np.zeros((5, 3))
    frames = np.tile(np.eye(3), (16, 1, 1))
    for finger, name in enumerate(FINGERS):
        position, lengths, azimuths, elevations = _BONES[name]
        point = np.array(position)
        roll = np.radians(_THUMB_ROLL_DEGREES if name == "Thumb" else 0.0)
        for k in range(3):
            joint = 1 + 3 * finger + k
            joints[joint] = point
            frames[joint] = _bone_frame(np.radians(azimuths[k]), np.radians(elevations[k]), roll)
            point = point + lengths[k] * frames[joint, :, 0]
        tips[finger] = point
    return Skeleton(joints, tips, frames)


def _bone_frame(azimuth: float, elevation: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Axes of a bone as columns (along, flexion axis, back); angles in radians.

    `roll` turns the back of the finger about the bone, to the thumb side.
    """
    along = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    level = np.cross([0.0, 0.0, 1.0], along)
    level /= np.linalg.norm(level)
    upright = np.cross(along, level)
    back = np.cos(roll) * upright + np.sin(roll) * level
    return np.stack([along, np.cross(back, along), back], axis=1)


def to_mano_axes(points_mm: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """Directions (distal, radial, dorsal) in mm to the axes of MANO's right hand, metres.

    MANO's flat right hand points its fingers to −x, its back to +y and its thumb to +z.
    """
    distal, radial, dorsal = np.moveaxis(points_mm, -1, 0)
    return np.stack([-distal, dorsal, radial], axis=-1) * 1e-3


def rotation_matrices(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rodrigues' formula for rotation vectors in radians."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = cross.reshape(*vectors.shape, 3)
    # sin(θ)/θ and (1 − cos θ)/θ², both finite at zero
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)
