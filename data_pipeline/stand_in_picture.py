"""One picture of the stand-in data: skin, forearms, light, background, and the camera's defects."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, Int, UInt8

from data_pipeline.stand_in_background import background
from er_jax.cameras import PerspectiveCamera
from er_jax.mano.joints import HAND21
from er_jax.rendering import Light, Mesh, Rendering, render_meshes

_RING_STEPS_M = np.array([0.02, 0.025, 0.03, 0.03, 0.035, 0.04, 0.05, 0.07, 0.09, 0.11])


@dataclass(frozen=True)
class HandSurface:
    """What does not move of one hand with its forearm: connectivity and where the skin differs.

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
    """How a person's hands look: RGB in [0, 1]; the sleeve begins at a distance from the wrist."""

    skin: tuple[float, float, float]
    sleeve: tuple[float, float, float]
    sleeve_from_m: float
    mottle_seed: int


class View(NamedTuple):
    """What a camera sees of a frame: hands right, left (None: absent), camera axes, metres."""

    vertices: tuple[Float[np.ndarray, "V 3"] | None, ...]
    elbows: Float[np.ndarray, "2 3"]
    camera: PerspectiveCamera
    grey: bool
    seed: tuple[int, ...]


def sample_subject(rng: np.random.Generator) -> Subject:
    """A skin tone from pale to dark; a sleeve, or a bare arm to the picture's edge."""
    tones = np.array(
        [
            [0.95, 0.79, 0.71],
            [0.9, 0.7, 0.59],
            [0.77, 0.57, 0.45],
            [0.57, 0.4, 0.31],
            [0.4, 0.28, 0.22],
        ]
    )
    place = 4 * rng.beta(0.9, 1.3)
    skin = [np.interp(place, range(5), channel) for channel in tones.T]
    skin = np.clip(skin * rng.normal(1, 0.025, 3), 0, 1)
    sleeve = rng.uniform(0.03, 0.6) * rng.uniform(0.5, 1.0, 3)
    sleeve_from_m = rng.uniform(0.02, 0.12) if rng.random() < 0.6 else 1.0
    return Subject(tuple(skin), tuple(sleeve), float(sleeve_from_m), int(rng.integers(2**31)))


def hand_surface(
    rest: Float[np.ndarray, "V 3"], joints: Float[np.ndarray, "21 3"], faces: Int[np.ndarray, "F 3"]
) -> HandSurface:
    """Surface of a hand from its flat vertices, its joints (Hand-21) and faces.

    The back of a flat MANO hand looks to +y. Raises ValueError for a hand closed at the wrist.
    """
    rim = _open_edge(faces)
    normals = np.zeros_like(rest)
    corners = rest[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.add.at(normals, faces.ravel(), np.repeat(face_normals, 3, axis=0))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def near(names: tuple[str, ...], radius: float) -> np.ndarray:
        centres = joints[[HAND21.index(name) for name in names]]
        distance = np.linalg.norm(rest[:, None] - centres, axis=-1).min(axis=1)
        return np.exp(-((distance / radius) ** 2))

    fingers = ("Thumb", "Index", "Middle", "Ring", "Pinky")
    back = normals[:, 1]
    knuckles = near(tuple(f"{f}_{k}" for f in fingers for k in (1, 2, 3)), 0.012)
    tips = near(tuple(f"{f}_4" for f in fingers), 0.016)
    bends = near(tuple(f"{f}_{k}" for f in fingers for k in (2, 3)), 0.0085)
    nail = np.zeros(len(rest))
    for finger in fingers:
        last, tip = (joints[HAND21.index(f"{finger}_{k}")] for k in (3, 4))
        along = (tip - last) / np.linalg.norm(tip - last)
        # The thumb is rolled: its own back is the direction its vertices there look on average.
        middle = last + 0.68 * (tip - last)
        offset = rest - middle
        close = np.linalg.norm(offset, axis=1) < 0.014
        up = np.array([0.0, 1.0, 0.0]) if finger != "Thumb" else np.array([0.0, 0.62, 0.79])
        up -= (up @ along) * along
        up /= np.linalg.norm(up)
        side = np.abs(offset @ np.cross(up, along)) < 0.0055
        length = np.abs(offset @ along) < 0.0065
        nail[close & side & length & (normals @ up > 0.55)] = 1.0
    return HandSurface(
        faces=np.concatenate([faces, _forearm_faces(rim, len(rest))]).astype(np.int32),
        rim=rim,
        rest=rest,
        red=np.clip(0.7 * knuckles * (back > 0) + 0.8 * tips * (1 - nail), 0, 1),
        palm=np.clip(0.5 - back, 0, 1),
        nail=nail,
        crease=bends * np.clip(-back, 0, 1),
    )


def draw_view(
    view: View,
    surfaces: tuple[HandSurface, HandSurface],
    subject: Subject,
    size_px: tuple[int, int],
) -> Rendering:
    """The picture (width, height = size_px) and, per pixel, which hand is seen (-1: none)."""
    rng = np.random.default_rng(view.seed)
    meshes, hands = [], []
    for hand, (vertices, surface) in enumerate(zip(view.vertices, surfaces, strict=True)):
        if vertices is None:
            continue
        rings = _forearm(vertices, surface.rim, view.elbows[hand], subject.sleeve_from_m)
        colour = np.concatenate(
            [_skin(surface, subject), _forearm_colour(subject, len(surface.rim))]
        )
        meshes.append(Mesh(np.concatenate([vertices, rings]), surface.faces, colour))
        hands.append(hand)
    ambient = rng.uniform(0.3, 0.55)
    light = Light(
        direction=(rng.uniform(-0.9, 0.9), rng.uniform(0.1, 1.1), rng.uniform(0.25, 1.0)),
        ambient=ambient,
        diffuse=rng.uniform(0.85, 1.1) - ambient,
        specular=rng.uniform(0.03, 0.14),
        shininess=rng.uniform(8, 24),
        wrap=rng.uniform(0.15, 0.35),
        shadow=rng.uniform(0.5, 0.85),
    )
    picture = background(rng, size_px)
    rendering = render_meshes(picture, meshes, view.camera, light=light, refine=False)
    image = _exposed(rendering.image, rng)
    labels = np.array([*hands, -1], np.int16)[rendering.labels]
    return Rendering(image, labels)


def encode(image: UInt8[np.ndarray, "H W 3"], grey: bool, quality: int = 93) -> bytes:
    """JPEG bytes; a grey camera's file has one channel."""
    if grey:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality, "GRAY" if grey else "RGB", "420"
    )


def _exposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White balance, exposure, a little blur and noise that is stronger in the dark grain."""
    gains = rng.uniform(0.85, 1.15) * rng.normal(1, 0.03, 3)
    exponent = rng.uniform(0.85, 1.15)
    steps = np.arange(256)[:, None] / 255.0
    table = np.clip(255.0 * gains * steps**exponent, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[:, None])
    if (sigma := rng.uniform(-0.3, 0.9)) > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = np.empty(image.shape, np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, np.zeros(3), np.full(3, rng.uniform(0.8, 4.5)))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _skin(surface: HandSurface, subject: Subject) -> np.ndarray:
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


def _forearm_colour(subject: Subject, around: int) -> np.ndarray:
    sleeved = np.cumsum(_RING_STEPS_M)[:, None] > subject.sleeve_from_m
    colours = np.where(sleeved, np.asarray(subject.sleeve), np.asarray(subject.skin))
    return np.repeat(colours, around, axis=0)


def _forearm(
    vertices: np.ndarray, rim: np.ndarray, elbow: np.ndarray, sleeve_from_m: float
) -> np.ndarray:
    """Rings (R·K, 3) that carry the wrist's edge on towards the elbow, wider under a sleeve."""
    edge = vertices[rim]
    centre = edge.mean(axis=0)
    start = np.cross(edge - centre, np.roll(edge, -1, axis=0) - centre).sum(axis=0)
    start /= np.linalg.norm(start)
    start = start if start @ (centre - vertices.mean(axis=0)) > 0 else -start
    rings, middle, distance = [], centre, 0.0
    for ring, step_m in enumerate(_RING_STEPS_M, start=1):
        bend = min(1.0, ring / 4)
        way = (1 - bend) * start + bend * elbow
        way /= np.linalg.norm(way)
        middle, distance = middle + step_m * way, distance + step_m
        wider = 1 + 1.5 * min(distance, 0.25) + 0.1 * (distance > sleeve_from_m)
        rings.append(middle + (edge - centre) @ _turn(start, way).T * wider)
    return np.concatenate(rings)


def _turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes one unit vector to another, not its opposite."""
    axis = np.cross(start, end)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)


def _open_edge(faces: np.ndarray) -> np.ndarray:
    """Vertices of the mesh's one hole in order, along its faces' own direction."""
    sides = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()
    present = set(map(tuple, sides))
    after = {start: end for start, end in present if (end, start) not in present}
    if not after:
        raise ValueError("the hand has no open edge at the wrist to carry a forearm")
    ring = [min(after)]
    while (following := after[ring[-1]]) != ring[0]:
        ring.append(following)
    return np.array(ring)


def _forearm_faces(rim: np.ndarray, vertex_count: int) -> np.ndarray:
    around = len(rim)
    rings = np.concatenate([rim, vertex_count + np.arange(len(_RING_STEPS_M) * around)]).reshape(
        -1, around
    )
    near, far = rings[:-1].ravel(), rings[1:].ravel()
    near_next, far_next = (np.roll(r, -1, axis=1).ravel() for r in (rings[:-1], rings[1:]))
    return np.concatenate(
        [np.stack([near_next, near, far], axis=1), np.stack([near_next, far, far_next], axis=1)]
    )
