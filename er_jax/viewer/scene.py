"""The scene that the live viewer and the HTML file share: hands, joints, scores, the picture."""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from er_jax.mano import HANDS
from er_jax.rendering.overlays import HAND_COLOURS
from er_jax.utils.errors import ConfigError
from er_jax.viewer.confidence import joint_colours, label_of
from er_jax.viewer.geometry import plane_behind, views_of
from er_jax.viewer.pictures import Pictures
from er_jax.viewer.result import Result, ShownHand

FOLDERS = ("meshes", "joints", "scores", "camera")
"""Of the scene's tree; each is shown or hidden as a whole."""
BONES = tuple(
    (0 if joint == 1 else 4 * finger + joint - 1, 4 * finger + joint)
    for finger in range(5)
    for joint in (1, 2, 3, 4)
)
"""Pairs of joints, `HAND21`."""
_JOINT_RADIUS_M = 0.0032
_BONE_M = 0.0016
_BONE_COLOUR = (70, 70, 70)
_FRUSTUM_COLOUR = (120, 120, 120)
_MESH_OPACITY = 0.72  # so that the joints inside are seen
_JPEG_QUALITY = 80
_LIGHT_FROM = (-0.5, -1.0, -0.8)


def viser_module() -> Any:
    """viser, which only those need who view results.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import viser
    except ImportError:
        raise ConfigError(
            "the viewer needs viser, which is not installed: pip install 'er_jax[view]'"
        ) from None
    return viser


class Scene:
    """A result as the nodes of a viser server's scene, one frame of it at a time.

    Args:
      server: a `viser.ViserServer`; its scene is taken as empty.
      result: to show.
      pictures: of the same frames; None: the frustum is empty.
      step_m: to which vertices are rounded, so that a file of many frames is small; 0: not.
    """

    def __init__(
        self, server: Any, result: Result, pictures: Pictures | None, *, step_m: float = 0.0
    ):
        self._server, self._result, self._pictures, self._step_m = server, result, pictures, step_m
        self._plane = plane_behind(result.clip, result.hands)
        self.views = views_of(self._plane, result.hands)
        scene = server.scene
        scene.set_up_direction("-y")
        _light(scene)
        self._folders = {name: scene.add_frame(f"/{name}", show_axes=False) for name in FOLDERS}
        self._hands = [_Hand(scene, hand, result.faces) for hand in result.hands]
        self._picture = self._add_picture()
        self._frame = -1
        self.show(0)

    def show(self, frame: int) -> None:
        """Shows a frame."""
        if frame == self._frame:
            return
        with self._server.atomic():
            if self._picture is not None and self._pictures is not None and self._frame >= 0:
                self._picture.image = self._pictures.pixels(frame)
            for hand in self._hands:
                hand.show(frame, self._step_m)
        self._frame = frame

    def set_shown(self, folder: str, shown: bool) -> None:
        """Shows or hides all nodes of one of `FOLDERS`."""
        self._folders[folder].visible = shown

    def _add_picture(self) -> Any:
        plane, scene = self._plane, self._server.scene
        scene.add_line_segments(
            "/camera/frustum",
            points=plane.frustum_m.astype(np.float32),
            colors=_FRUSTUM_COLOUR,
            thickness=1.5,
            thickness_units="screen",
        )
        if self._pictures is None:
            return None
        return scene.add_image(
            "/camera/picture",
            self._pictures.pixels(0),
            *plane.size_m,
            format="jpeg",
            jpeg_quality=_JPEG_QUALITY,
            position=plane.middle_m,
            cast_shadow=False,
            receive_shadow=False,
        )


class _Hand:
    """The nodes of one hand."""

    def __init__(self, scene: Any, hand: ShownHand, faces: np.ndarray):
        self._hand = hand
        side = HANDS.index(hand.track.side)
        sphere = trimesh.creation.icosphere(subdivisions=2, radius=_JOINT_RADIUS_M)
        joints = hand.joints_m[0].astype(np.float32)
        # Drawn first and not seen, the first one leaves of the second only what is nearest: else
        # folded fingers shine through in patches.
        self._meshes = [
            scene.add_mesh_simple(
                name,
                np.zeros_like(hand.vertices_m[0], np.float32),
                faces[side],
                color=tuple(round(255 * channel) for channel in HAND_COLOURS[side]),
                opacity=opacity,
                side="double",  # the wrist is open
                cast_shadow=False,
                receive_shadow=False,
                visible=False,
            )
            for name, opacity in (
                (f"/meshes/{hand.label}", 0.0),
                (f"/meshes/{hand.label}/skin", _MESH_OPACITY),
            )
        ]
        self._joints = scene.add_batched_meshes_simple(
            f"/joints/{hand.label}/joints",
            np.asarray(sphere.vertices, np.float32),
            np.asarray(sphere.faces, np.uint32),
            np.tile(np.array([1, 0, 0, 0], np.float32), (len(joints), 1)),
            joints,
            batched_colors=joint_colours(hand.track.joint_sigma_m[0]),
            lod="off",
            cast_shadow=False,
            receive_shadow=False,
            visible=False,
        )
        self._bones = scene.add_line_segments(
            f"/joints/{hand.label}/bones",
            points=_segments(joints),
            colors=_BONE_COLOUR,
            thickness=_BONE_M,
            thickness_units="world",
            visible=False,
        )
        self._label = scene.add_label(
            f"/scores/{hand.label}", "", anchor="top-center", font_screen_scale=0.9, visible=False
        )

    def show(self, frame: int, step_m: float) -> None:
        place = self._hand.at(frame)
        for node in (*self._meshes, self._joints, self._bones, self._label):
            node.visible = place is not None
        if place is None:
            return
        joints = self._hand.joints_m[place].astype(np.float32)
        vertices = rounded(self._hand.vertices_m[place] - joints[0], step_m)
        self._meshes[0].position = joints[0]
        for mesh in self._meshes:
            mesh.vertices = vertices
        self._joints.batched_positions = joints
        self._joints.batched_colors = joint_colours(self._hand.track.joint_sigma_m[place])
        self._bones.points = _segments(joints)
        self._label.position = joints[0]
        self._label.text = label_of(self._hand, place)


def _light(scene: Any) -> None:
    """Light from above the camera's left and from all around, in which the hands keep colour."""
    scene.configure_default_lights(enabled=False, cast_shadow=False)
    scene.configure_environment_map(None)
    scene.add_light_hemisphere(
        "/lights/around", sky_color=(255, 255, 255), ground_color=(120, 120, 130), intensity=1.7
    )
    scene.add_light_directional("/lights/above", intensity=1.9, position=_LIGHT_FROM)


def rounded(points_m: Float[np.ndarray, "n 3"], step_m: float) -> Float[np.ndarray, "n 3"]:
    """Points at whole multiples of a step, whose bytes take less room compressed; 0: as they are.

    Args:
      points_m: metres.
      step_m: a power of two.
    """
    if step_m:
        points_m = np.round(points_m / step_m) * step_m
    return np.ascontiguousarray(points_m, np.float32)


def _segments(joints: Float[np.ndarray, "21 3"]) -> Float[np.ndarray, "20 2 3"]:
    return np.ascontiguousarray(joints[np.array(BONES)])
