"""One picture of the stand-in data: hands and forearms, light, the camera's defects."""

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from data_pipeline.synthetic.background import background
from data_pipeline.synthetic.forearm import forearm_rings
from data_pipeline.synthetic.skin import HandSurface, Subject, forearm_colours, skin_colours
from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.rendering.rasterizer import Light, Mesh, Rendering, render_meshes


class View(NamedTuple):
    """A camera's view of a frame: hands right, left (None: absent), camera axes, metres."""

    vertices: tuple[Float[np.ndarray, "V 3"] | None, ...]
    elbows: Float[np.ndarray, "2 3"]
    camera: PerspectiveCamera
    grey: bool
    seed: tuple[int, ...]


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
        rings = forearm_rings(vertices, surface.rim, view.elbows[hand], subject.sleeve_from_m)
        colour = np.concatenate([skin_colours(surface, subject), forearm_colours(surface, subject)])
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
    gains = rng.uniform(0.85, 1.15) * rng.normal(1, 0.02, 3)
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
