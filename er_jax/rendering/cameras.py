"""Cameras that images are drawn with: perspective, and the network's weak perspective.

Axes: x right, y down, z forward, metres. A pixel's integer coordinate is its centre.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

_NEAREST_DEPTH_M = 0.01


class Camera(Protocol):
    """The methods that the renderer asks of a camera."""

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Points (*batch, 3) in camera axes, metres -> pixels (*batch, 2)."""

    def towards(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Unit vectors (*batch, 3) from the points towards the viewer."""

    def sees(self, points: Float[np.ndarray, "*batch 3"]) -> Bool[np.ndarray, "*batch"]:
        """Returns whether points (*batch, 3) are ahead of the camera (*batch,)."""


@dataclass(frozen=True)
class PerspectiveCamera:
    """x_px = focal_px · X/Z + princpt_px, both (x, y)."""

    focal_px: tuple[float, float]
    princpt_px: tuple[float, float]

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Points (*batch, 3) in camera axes, metres -> pixels (*batch, 2)."""
        depth = np.maximum(points[..., 2:], _NEAREST_DEPTH_M)
        return points[..., :2] / depth * np.asarray(self.focal_px) + np.asarray(self.princpt_px)

    def towards(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Unit vectors (*batch, 3) from the points towards the camera's centre."""
        return -points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)

    def sees(self, points: Float[np.ndarray, "*batch 3"]) -> Bool[np.ndarray, "*batch"]:
        """Returns whether points (*batch, 3) are ahead of the camera (*batch,)."""
        return points[..., 2] > _NEAREST_DEPTH_M


@dataclass(frozen=True)
class WeakPerspectiveCamera:
    """x_px = scale_px · X + translation_px: the camera that the network predicts."""

    scale_px: float
    translation_px: tuple[float, float]

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Points (*batch, 3) in camera axes, metres -> pixels (*batch, 2)."""
        return points[..., :2] * self.scale_px + np.asarray(self.translation_px)

    def towards(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Unit vectors (*batch, 3) against the viewing direction."""
        return np.broadcast_to(np.array([0.0, 0.0, -1.0]), points.shape)

    def sees(self, points: Float[np.ndarray, "*batch 3"]) -> Bool[np.ndarray, "*batch"]:
        """Everything: this camera is infinitely far away."""
        return np.ones(points.shape[:-1], bool)
