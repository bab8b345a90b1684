"""What was found in a picture: persons and their hands, to draw, to save and to read on."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float, Int

from er_jax.mano import HAND21, HANDS, MANO16
from er_jax.photographs.photograph import Photograph, PhotographCamera, Pixels
from er_jax.rendering.overlays import HAND_COLOURS, fitted, turned_view, write_image
from er_jax.rendering.rasterizer import Mesh, render_meshes
from er_jax.utils.atomic_write import atomic_write, write_json

if TYPE_CHECKING:  # see `load`
    from er_jax.inference.pipeline import TwoHands

FORMAT = "er_jax reconstruction 1"
AXES = "camera: x right, y down, z forward; metres"
LEFT_SHAPE = (
    "a left hand's betas have the right hand's meaning: the left shape directions are those of "
    "the right hand mirrored in x (of MANO's official left file, the x components change sign); "
    "for smplx with that file, first er_jax.mano.conventions.corrected_left_shapedirs"
)
# glTF's axes are x right, y up, z towards the viewer.
CAMERA_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])
LARGEST_DRAWING_PX = 1600


@dataclasses.dataclass(frozen=True, repr=False)
class Hand:
    """One hand. Lengths in metres in the camera's axes (x right, y down, z forward), radians.

    Attributes:
      side: "right" or "left": the person's own.
      present: whether the hand is there; False only where both hands were asked for, and the
        network says that this one is not there.
      source: "fit" (keypoints), "network", or "both".
      score: how sure it is that a hand is there, 0 to 1: the detector's, or where a box was given
        the network's; None where that does not say it.
      side_probability: of the side, 0 to 1; None where a box was given.
      vertices: of the mesh.
      joints: in the order `er_jax.mano.HAND21`.
      joint_sigma_m: standard deviation of each joint's place relative to the wrist: by the fit, or
        of a network's hand by its heatmaps.
      depth_sigma_m: standard deviation of the wrist's place, nearly all of it depth.
      keypoints_px: the joints as seen in the picture.
      detected_px: the detector's keypoints; None where a box was given.
      detected_confidence: of each of them, 0 to 1; None where a box was given.
      box_px: x, y, width, height around the hand in the picture.
      reprojection_px: mean distance of `keypoints_px` from `detected_px` (or from what the network
        saw).
      explained: False where the hand cannot lie as its keypoints say: doubt it.
      betas: shape coefficients.
      rotations: of the root and 15 finger joints, in the order `er_jax.mano.MANO16`, the mean pose
        included.
      pose: the same as axis-angle, without the mean pose.
      full_pose: the same as axis-angle, the mean pose included.
      transl: `mano_forward(hand, betas, rotations, transl)` gives `vertices`.
    """

    side: str
    present: bool
    source: str
    score: float | None
    side_probability: float | None
    vertices: Float[np.ndarray, "778 3"]
    joints: Float[np.ndarray, "21 3"]
    joint_sigma_m: Float[np.ndarray, "21"]
    depth_sigma_m: float
    keypoints_px: Float[np.ndarray, "21 2"]
    detected_px: Float[np.ndarray, "21 2"] | None
    detected_confidence: Float[np.ndarray, "21"] | None
    box_px: Float[np.ndarray, "4"]
    reprojection_px: float
    explained: bool
    betas: Float[np.ndarray, "10"]
    rotations: Float[np.ndarray, "16 3 3"]
    pose: Float[np.ndarray, "48"]
    full_pose: Float[np.ndarray, "48"]
    transl: Float[np.ndarray, "3"]

    def __repr__(self) -> str:
        return f"Hand({self.side}, {self.source}, score {_shown(self.score)})"

    @property
    def reprojection(self) -> float:
        """`reprojection_px` over the longer side of the box."""
        return self.reprojection_px / max(float(self.box_px[2:].max()), 1.0)


@dataclasses.dataclass(frozen=True)
class Person:
    """The hands of one person that were found; at least one.

    Attributes:
      right: None: not found.
      left: the same.
      network: what a trained network saw, and in which crop, before the fit; None without one.
    """

    right: Hand | None = None
    left: Hand | None = None
    network: "TwoHands | None" = None

    @property
    def hands(self) -> tuple[Hand, ...]:
        """Those that are there, the right one first."""
        return tuple(hand for hand in (self.right, self.left) if hand is not None)

    @property
    def rel_trans(self) -> Float[np.ndarray, "3"] | None:
        """Left wrist minus right wrist, metres, camera axes; None of a single hand."""
        if self.right is None or self.left is None:
            return None
        return self.left.joints[0] - self.right.joints[0]


@dataclasses.dataclass(frozen=True, repr=False)
class Reconstruction:
    """All hands of one picture, in the metres of one camera.

    Attributes:
      photograph: the upright picture that all pixels refer to.
      camera: that the places follow from.
      persons: from the left of the picture to the right.
      faces: of all right and all left meshes.
      messages: what should be known before this is trusted, one sentence each.
      hand_model: where the meshes come from: "MANO files" or "stand-in".
      seconds: that it took.
    """

    photograph: Photograph
    camera: PhotographCamera
    persons: tuple[Person, ...]
    faces: Int[np.ndarray, "2 1538 3"]
    messages: tuple[str, ...]
    hand_model: str
    seconds: float

    def __repr__(self) -> str:
        path = self.photograph.path
        return f"Reconstruction({'' if path is None else f'{path.name}: '}{list(self.hands)})"

    @property
    def hands(self) -> tuple[Hand, ...]:
        """The hands of all persons."""
        return tuple(hand for person in self.persons for hand in person.hands)

    def without_pixels(self) -> "Reconstruction":
        """The same without the picture, for keeping many of them."""
        nothing = np.zeros((1, 1, 3), np.uint8)
        return dataclasses.replace(
            self, photograph=dataclasses.replace(self.photograph, pixels=nothing)
        )

    def overlay(self, *, opacity: float = 0.85, longest_px: int = LARGEST_DRAWING_PX) -> Pixels:
        """The picture with the hands painted over it, right ones amber, left ones blue.

        Args:
          opacity: below 1 the picture shines through.
          longest_px: a larger picture is drawn smaller.
        """
        pixels = self.photograph.pixels
        scale = min(1.0, longest_px / max(pixels.shape[:2]))
        if scale < 1:
            size = tuple(max(round(side * scale), 1) for side in self.photograph.size_px)
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        camera = self.camera.scaled(scale).projection
        return render_meshes(pixels, self._meshes(), camera, opacity=opacity).image

    def drawing(self, height_px: int = 480) -> Pixels:
        """The picture, the overlay, and all hands seen from the camera's right, side by side."""
        width, height = self.photograph.size_px
        cell = min(max(round(height_px * width / height), height_px // 3), 3 * height_px)
        painted = self.overlay(longest_px=3 * height_px)
        views = [fitted(view, (cell, height_px)) for view in (self.photograph.pixels, painted)]
        if self.hands:
            views.append(turned_view(self._meshes(), height_px))
        return np.hstack(views)

    def save(self, folder: Path | str, name: str | None = None) -> list[Path]:
        """Writes all that was found; see the README's table of files.

        Meshes of an earlier result of this name, which this one has not, are removed.

        Args:
          folder: made if absent.
          name: that the files begin with; None: the picture's own.

        Returns:
          The files.
        """
        import trimesh  # a fifth of a second, for those who save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = self.photograph.path
        stem = f"{name or (path.stem if path is not None else 'photo')}_hands"
        meshes = {f"{stem}_{label}.obj": hand for label, hand in self._labelled()}
        files = []
        scene = trimesh.Scene()
        for file, hand in meshes.items():
            side = HANDS.index(hand.side)
            colours = np.tile(HAND_COLOURS[side], (len(hand.vertices), 1))
            mesh = trimesh.Trimesh(
                hand.vertices, self.faces[side], vertex_colors=colours, process=False
            )
            label = file.removeprefix(f"{stem}_").removesuffix(".obj")
            scene.add_geometry(mesh, node_name=label, geom_name=label, transform=CAMERA_TO_GLTF)
            files.append(folder / file)
            with atomic_write(files[-1]) as temporary:
                header = f"er_jax: a {hand.side} hand, axes of the {AXES}"
                text = trimesh.exchange.obj.export_obj(mesh, include_color=False, header=header)
                temporary.write_text(text, encoding="utf-8")
        if self.hands:
            files.append(folder / f"{stem}.glb")
            with atomic_write(files[-1]) as temporary:
                temporary.write_bytes(scene.export(file_type="glb", include_normals=True))
        files.append(folder / f"{stem}.png")
        beside = files[-1].with_name(f".{stem}.unfinished.png")
        with atomic_write(files[-1], temporary=beside) as temporary:
            write_image(temporary, self.drawing())
        files.append(folder / f"{stem}.json")
        write_json(files[-1], self.to_dict())
        _remove_others(folder, stem, files)
        return files

    def to_dict(self, *, vertices: bool = False) -> dict[str, Any]:
        """All that was found as plain JSON.

        Args:
          vertices: the meshes' too, which the OBJ files hold.
        """
        photograph = self.photograph
        return {
            "format": FORMAT,
            "image": {
                "file": None if photograph.path is None else photograph.path.name,
                "size_px": list(photograph.size_px),
                "pixels": "of the picture turned upright, of the size above; a pixel's integer "
                "position is its centre",
                "stored_size_px": list(photograph.stored_size_px),
                "exif_orientation": photograph.exif_orientation,
            },
            "camera": {
                "focal_px": list(self.camera.focal_px),
                "principal_point_px": list(self.camera.principal_point_px),
                "focal_source": self.camera.focal_source,
            },
            "axes": AXES,
            "angles": "radians",
            "hand_model": self.hand_model,
            "left_shape": LEFT_SHAPE,
            "joint_names": list(HAND21),
            "pose_joint_names": list(MANO16),
            "persons": [
                {
                    "right": _hand_dict(person.right, vertices),
                    "left": _hand_dict(person.left, vertices),
                    "left_wrist_minus_right_wrist_m": _plain(person.rel_trans),
                }
                for person in self.persons
            ],
            "messages": list(self.messages),
        }

    def _labelled(self) -> list[tuple[str, Hand]]:
        """Each hand with the end of its file's name: its side, and its person where several are."""
        several = len(self.persons) > 1
        return [
            (f"{number}_{hand.side}" if several else hand.side, hand)
            for number, person in enumerate(self.persons, 1)
            for hand in person.hands
        ]

    def _meshes(self) -> list[Mesh]:
        sides = [HANDS.index(hand.side) for hand in self.hands]
        return [
            Mesh(hand.vertices, self.faces[side], HAND_COLOURS[side])
            for hand, side in zip(self.hands, sides, strict=True)
        ]


_PLAIN_FIELDS = ("present", "source", "score", "side_probability", "reprojection_px", "explained")
_UNITS = {
    "box_px": "box_xywh_px",
    "keypoints_px": "keypoints_px",
    "detected_px": "detected_keypoints_px",
    "detected_confidence": "detected_keypoint_confidence",
    "joints": "joints_m",
    "joint_sigma_m": "joint_sigma_m",
    "depth_sigma_m": "depth_sigma_m",
    "transl": "transl_m",
    "betas": "betas",
    "pose": "pose_axis_angle_without_mean",
    "full_pose": "pose_axis_angle_with_mean",
    "rotations": "rotations_with_mean",
}
"""Fields of `Hand` and their keys in JSON."""


def _remove_others(folder: Path, stem: str, files: Sequence[Path]) -> None:
    """Removes the meshes of an earlier result of this name."""
    meshes = re.compile(re.escape(stem) + r"((_\d+)?_(right|left)\.obj|\.glb)")
    for path in folder.iterdir():
        if meshes.fullmatch(path.name) and path not in files:
            path.unlink()


def _hand_dict(hand: Hand | None, vertices: bool) -> dict[str, Any] | None:
    if hand is None:
        return None
    found: dict[str, Any] = {name: getattr(hand, name) for name in _PLAIN_FIELDS}
    found |= {key: _plain(getattr(hand, name)) for name, key in _UNITS.items()}
    if vertices:
        found["vertices_m"] = _plain(hand.vertices)
    return found


def _shown(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers that are none as null."""
    if value is None:
        return None
    array = np.asarray(value, np.float64)
    listed = np.where(np.isfinite(array), array.round(7), np.nan).tolist()
    return _null(listed)


def _null(value: Any) -> Any:
    if isinstance(value, list):
        return [_null(one) for one in value]
    return None if value != value else value
