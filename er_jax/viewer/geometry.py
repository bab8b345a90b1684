"""Where the picture stands in space, and from where one looks at the hands.

Axes are the camera's: x right, y down, z forward, metres; the camera is at the origin.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from er_jax.photographs.photograph import PhotographCamera
from er_jax.video.track import Clip
from er_jax.viewer.result import ShownHand

UP = (0.0, -1.0, 0.0)
NEAR_M = 0.005
"""Nearer than that to who looks nothing is drawn."""
BEHIND = 1.06
"""How much farther from the camera than the farthest vertex the picture stands."""
_AROUND = 1.15  # of what a view shows, to leave a margin
_SIDE = (0.93, -0.3, -0.2)  # from the hands to who looks at them from the side
_SIDE_HALF_FOV = math.tan(math.radians(20))


@dataclasses.dataclass(frozen=True)
class PicturePlane:
    """The picture as a rectangle square to the z axis, through whose points its pixels are seen.

    Attributes:
      middle_m: x, y, z of its middle.
      size_m: width and height.
    """

    middle_m: tuple[float, float, float]
    size_m: tuple[float, float]

    @property
    def corners_m(self) -> Float[np.ndarray, "4 3"]:
        """Upper left, upper right, lower right, lower left."""
        x, y, z = self.middle_m
        half_width, half_height = self.size_m[0] / 2, self.size_m[1] / 2
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return np.array([(x + a * half_width, y + b * half_height, z) for a, b in signs])

    @property
    def frustum_m(self) -> Float[np.ndarray, "8 2 3"]:
        """Line segments from the camera to the corners, and around."""
        corners = self.corners_m
        rays = np.stack([np.zeros_like(corners), corners], axis=1)
        return np.concatenate([rays, np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)])


@dataclasses.dataclass(frozen=True)
class View:
    """A place to look from, and what must be seen from it whatever the window's shape.

    Attributes:
      position_m: of who looks.
      look_at_m: what is in the window's middle, around which the view is turned by hand.
      half_width: tangent of half the angle that must be seen from left to right.
      half_height: the same from top to bottom.
    """

    position_m: tuple[float, float, float]
    look_at_m: tuple[float, float, float]
    half_width: float
    half_height: float

    def fov(self, aspect: float) -> float:
        """Vertical angle of view, radians, in a window of this width over height."""
        return 2 * math.atan(max(self.half_height, self.half_width / max(aspect, 1e-6)))


def picture_plane(
    camera: PhotographCamera, size_px: tuple[int, int], depth_m: float
) -> PicturePlane:
    """Where a picture stands at a depth, so that each pixel is on the ray that it was seen by.

    Args:
      camera: of the picture; its principal point may lie anywhere.
      size_px: width and height.
      depth_m: z of the picture.
    """
    middle, size = [], []
    for pixels, focal, principal in zip(
        size_px, camera.focal_px, camera.principal_point_px, strict=True
    ):
        middle.append(((pixels - 1) / 2 - principal) / focal * depth_m)
        size.append(pixels / focal * depth_m)
    return PicturePlane((middle[0], middle[1], depth_m), (size[0], size[1]))


def plane_behind(clip: Clip, hands: tuple[ShownHand, ...]) -> PicturePlane:
    """The picture's place behind all hands of all frames."""
    farthest = max(float(hand.vertices_m[..., 2].max()) for hand in hands)
    return picture_plane(clip.camera, clip.size_px, max(BEHIND * farthest, 0.01))


def views_of(plane: PicturePlane, hands: tuple[ShownHand, ...]) -> dict[str, View]:
    """Views by name: the whole picture, the hands, both seen by the camera, and from the side."""
    points = np.concatenate([hand.vertices_m.reshape(-1, 3) for hand in hands])
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(high - low)) / 2
    corners = plane.corners_m
    seen = _in_picture(points, corners)
    distance = _AROUND * radius / _SIDE_HALF_FOV
    side = middle + distance * np.array(_SIDE)
    return {
        "camera": _from_camera(corners, np.array([0.0, 0.0, 1.0]), float(middle[2])),
        "hands": _from_camera(seen, (seen.min(0) + seen.max(0)) / 2, float(middle[2])),
        "side": View(_floats(side), _floats(middle), _SIDE_HALF_FOV, _SIDE_HALF_FOV),
    }


def _in_picture(
    points_m: Float[np.ndarray, "n 3"], corners_m: Float[np.ndarray, "4 3"]
) -> Float[np.ndarray, "m 3"]:
    """Those of the points that the picture shows; all of them where it shows none."""
    ahead = points_m[points_m[:, 2] > NEAR_M]
    rays, edges = ahead[:, :2] / ahead[:, 2:], corners_m[:, :2] / corners_m[:, 2:]
    inside = ahead[((edges.min(0) <= rays) & (rays <= edges.max(0))).all(1)]
    return inside if len(inside) else points_m


def _from_camera(
    points_m: Float[np.ndarray, "n 3"], towards_m: Float[np.ndarray, "3"], depth_m: float
) -> View:
    """The camera's own view of points: what is drawn lies over the picture, as far as it is one."""
    forward = towards_m / np.linalg.norm(towards_m)
    right = np.cross(forward, UP)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    along = np.maximum(points_m @ forward, 1e-6)
    half_width = _AROUND * float(np.abs(points_m @ right / along).max())
    half_height = _AROUND * float(np.abs(points_m @ down / along).max())
    look_at = towards_m * (max(depth_m, 0.01) / max(float(towards_m[2]), 0.01))
    return View((0.0, 0.0, 0.0), _floats(look_at), half_width, half_height)


def _floats(point: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return x, y, z
