"""Backgrounds for the stand-in data, all drawn: a dark studio, gradients, shapes, textures."""

import cv2
import numpy as np
from jaxtyping import UInt8


def background(rng: np.random.Generator, size_px: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture (width, height = size_px) of one of the kinds, RGB."""
    draw = (_studio, _gradient, _shapes, _texture)[rng.choice(4, p=(0.35, 0.2, 0.25, 0.2))]
    return np.clip(draw(rng, size_px), 0, 255).astype(np.uint8)


def _enlarged(coarse: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    return cv2.resize(coarse.astype(np.float32), size_px, interpolation=cv2.INTER_CUBIC)


def _studio(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Near darkness, a faint glow, and the out-of-focus lamps and frames of a capture dome."""
    width, height = size_px[0] // 4, size_px[1] // 4
    picture = np.full((height, width, 3), rng.uniform(6, 38), np.float32)
    for _ in range(rng.integers(0, 10)):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        tint = rng.uniform(20, 130) * rng.uniform(0.8, 1.0, 3)
        cv2.circle(picture, centre, int(rng.uniform(1, 5)), tint.tolist(), -1)
    for _ in range(rng.integers(0, 4)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        start, end = ends.astype(int).tolist()
        cv2.line(picture, start, end, (rng.uniform(15, 70),) * 3, int(rng.integers(1, 5)))
    blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 3))
    glow = _enlarged(rng.uniform(0, 14, (3, 4, 1)), size_px)[..., None]
    return _enlarged(blurred, size_px) + glow


def _gradient(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """A plain wall in uneven light."""
    wall = _colour(rng) * rng.uniform(0.75, 1.15, (2, 3, 1))
    return _enlarged(wall, size_px)


def _shapes(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """A room out of focus: overlapping boxes and discs, blurred."""
    width, height = size_px[0] // 4, size_px[1] // 4
    picture = np.full((height, width, 3), _colour(rng), np.float32)
    for _ in range(rng.integers(4, 14)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        if rng.random() < 0.7:
            box = (centre, rng.uniform(0.05, 0.6, 2) * width, rng.normal(0, 12))
            corners = cv2.boxPoints((tuple(box[0]), tuple(box[1]), float(box[2])))
            cv2.fillConvexPoly(picture, corners.astype(np.int32), _colour(rng).tolist())
        else:
            radius = int(rng.uniform(0.03, 0.25) * width)
            cv2.circle(picture, centre.astype(int).tolist(), radius, _colour(rng).tolist(), -1)
    return _enlarged(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.7, 4)), size_px)


def _texture(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Cloth, stone or leaves: noise of several scales in two colours."""
    width, height = size_px
    share = np.zeros((height, width), np.float32)
    cells = int(rng.integers(2, 6))
    weight: float = 1.0
    roughness = rng.uniform(0.4, 0.75)
    while cells < 100:
        share += weight * _enlarged(rng.normal(0, 1, (cells, int(cells * width / height))), size_px)
        cells *= 2
        weight *= roughness
    mixed = (1 / (1 + np.exp(-share * rng.uniform(0.8, 2.5))))[..., None]
    first, second = _colour(rng), _colour(rng)
    return first + (second - first) * mixed


def _colour(rng: np.random.Generator) -> np.ndarray:
    """RGB, 0..255: any brightness, mostly of little saturation."""
    grey = rng.uniform(15, 225)
    return np.clip(grey * (1 + rng.normal(0, rng.choice((0.05, 0.05, 0.2)), 3)), 0, 245)
