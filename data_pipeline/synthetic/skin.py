"""Skin of the stand-in data's hands: where a hand is pale, red, creased, where its nails are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.synthetic.forearm import RING_DISTANCES_M, forearm_faces, open_edge
from er_jax.mano.joints import HAND21

_FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")
_TONES = np.array(
    [
        [0.95, 0.79, 0.71],
        [0.9, 0.7, 0.59],
        [0.77, 0.57, 0.45],
        [0.57, 0.4, 0.31],
        [0.4, 0.28, 0.22],
    ]
)
_BACK, _THUMB_BACK = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.62, 0.79])


@dataclass(frozen=True)
class HandSurface:
    """The surface of one hand with its forearm that does not move: connectivity and kinds of skin.

    faces: of the V hand vertices followed by the forearm's rings. rim: the wrist's open edge in
    order. red, palm, nail, crease: (V,) in [0, 1]. rest: (V, 3) vertices of the flat hand.
    """

    faces: Int[np.ndarray, "F 3"]
    rim: Int[np.ndarray, "K"]
    rest: Float[np.ndarray, "V 3"]
    red: Float[np.ndarray, "V"]
    palm: Float[np.ndarray, "V"]
    nail: Float[np.ndarray, "V"]
    crease: Float[np.ndarray, "V"]


@dataclass(frozen=True)
class Subject:
    """A person's hands: colours, RGB in [0, 1]; the sleeve begins at a distance from the wrist."""

    skin: tuple[float, float, float]
    sleeve: tuple[float, float, float]
    sleeve_from_m: float
    mottle_seed: int


def sample_subject(rng: np.random.Generator) -> Subject:
    """A skin tone from pale to dark; a sleeve, or a bare arm to the picture's edge."""
    place = (len(_TONES) - 1) * rng.beta(0.9, 1.3)
    skin = [np.interp(place, range(len(_TONES)), channel) for channel in _TONES.T]
    skin = np.clip(skin * rng.normal(1, 0.015, 3), 0, 1)
    sleeve = rng.uniform(0.03, 0.6) * rng.uniform(0.5, 1.0, 3)
    sleeve_from_m = rng.uniform(0.02, 0.12) if rng.random() < 0.6 else 1.0
    return Subject(tuple(skin), tuple(sleeve), float(sleeve_from_m), int(rng.integers(2**31)))


def hand_surface(
    rest: Float[np.ndarray, "V 3"], joints: Float[np.ndarray, "21 3"], faces: Int[np.ndarray, "F 3"]
) -> HandSurface:
    """Surface of a hand from its flat vertices, its joints (Hand-21) and faces.

    The back of a flat MANO hand looks to +y. Raises ValueError for a hand closed at the wrist.
    """
    rim = open_edge(faces)
    normals = _vertex_normals(rest, faces)

    def near(radius_m: float, *numbers: int) -> np.ndarray:
        centres = joints[[HAND21.index(f"{f}_{k}") for f in _FINGERS for k in numbers]]
        distance = np.linalg.norm(rest[:, None] - centres, axis=-1).min(axis=1)
        return np.exp(-((distance / radius_m) ** 2))

    back = normals[:, 1]
    nail = _nails(rest, normals, joints)
    red = 0.7 * near(0.012, 1, 2, 3) * (back > 0) + 0.8 * near(0.016, 4) * (1 - nail)
    return HandSurface(
        faces=np.concatenate([faces, forearm_faces(rim, len(rest))]).astype(np.int32),
        rim=rim,
        rest=rest,
        red=np.clip(red, 0, 1),
        palm=np.clip(0.5 - back, 0, 1),
        nail=nail,
        crease=near(0.0085, 2, 3) * np.clip(-back, 0, 1),
    )


def skin_colours(surface: HandSurface, subject: Subject) -> Float[np.ndarray, "V 3"]:
    """Colour (V, 3) of the hand's vertices."""
    skin = np.asarray(subject.skin)
    rng = np.random.default_rng(subject.mottle_seed)
    waves = np.sin(surface.rest @ rng.normal(0, 130, (3, 5)) + rng.uniform(0, 6.3, 5)).sum(1) / 5
    dark = 1 - skin.mean()
    palm = skin + dark * np.array([0.32, 0.26, 0.24])
    colour = skin + (palm - skin) * surface.palm[:, None]
    colour = colour * (1 + 0.05 * waves[:, None])
    colour *= 1 + surface.red[:, None] * np.array([0.04, -0.1, -0.1])
    colour *= 1 - surface.crease[:, None] * np.array([0.12, 0.18, 0.18])
    nail = skin * 0.5 + np.array([0.56, 0.42, 0.42])
    return colour + (nail - colour) * 0.9 * surface.nail[:, None]


def forearm_colours(surface: HandSurface, subject: Subject) -> Float[np.ndarray, "RK 3"]:
    """Colour of the forearm's rings: skin, then the sleeve."""
    sleeved = RING_DISTANCES_M[:, None] > subject.sleeve_from_m
    colours = np.where(sleeved, np.asarray(subject.sleeve), np.asarray(subject.skin))
    return np.repeat(colours, len(surface.rim), axis=0)


def _nails(rest: np.ndarray, normals: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """1 for vertices (V,) on the fingers' nails, 0 elsewhere."""
    nail = np.zeros(len(rest))
    for finger in _FINGERS:
        last, tip = (joints[HAND21.index(f"{finger}_{k}")] for k in (3, 4))
        along = (tip - last) / np.linalg.norm(tip - last)
        up = _THUMB_BACK if finger == "Thumb" else _BACK
        up = up - (up @ along) * along
        up /= np.linalg.norm(up)
        offset = rest - (last + 0.68 * (tip - last))
        close = np.linalg.norm(offset, axis=1) < 0.014
        within_width = np.abs(offset @ np.cross(up, along)) < 0.0055
        within_length = np.abs(offset @ along) < 0.0065
        nail[close & within_width & within_length & (normals @ up > 0.55)] = 1.0
    return nail


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    np.add.at(normals, faces.ravel(), np.repeat(face_normals, 3, axis=0))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
