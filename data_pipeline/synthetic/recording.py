"""A split of the stand-in data before it is drawn: captures, cameras, frames and joints.

A capture is one person before a ring of cameras. World axes as in `scene`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from data_pipeline.synthetic.picture import View
from data_pipeline.synthetic.poses import sample_pose
from data_pipeline.synthetic.scene import ARRANGEMENTS, Draw, draw_frame, forearm, place
from data_pipeline.synthetic.skin import HandSurface, Subject, hand_surface, sample_subject
from er_jax.mano import HandModel, mano_forward
from er_jax.rendering.cameras import PerspectiveCamera

SIZE_PX = (512, 334)
_CAMERAS = 8
_GREY_CAMERAS = 2
_IMAGES_PER_CAPTURE = 100
_MOST_CAPTURES = 30
_SECOND_VIEW_SHARE = 0.3
_BATCH = 256
_FRAME_STEP = 3


@dataclass(frozen=True)
class WorldCamera:
    """X_cam = rotation · (X_world − position_m)."""

    rotation: Float[np.ndarray, "3 3"]
    position_m: Float[np.ndarray, "3"]
    focal_px: tuple[float, float]
    princpt_px: tuple[float, float]

    def to_camera(self, points_world: np.ndarray) -> np.ndarray:
        """World points (*batch, 3) in this camera's axes, metres."""
        return (points_world - self.position_m) @ self.rotation.T

    @property
    def projection(self) -> PerspectiveCamera:
        """The camera from its own axes to pixels."""
        return PerspectiveCamera(self.focal_px, self.princpt_px)


@dataclass(frozen=True)
class Capture:
    """One person, recorded by one ring of cameras (by name; those of `grey` see no colour)."""

    number: int
    betas: Float[np.ndarray, "2 10"]
    subject: Subject
    cameras: dict[str, WorldCamera]
    grey: frozenset[str]


class Frame(NamedTuple):
    """One moment; hands right, left.

    pose: (2, 48) axis-angle without the mean; trans_m (2, 3); vertices (2, 778, 3) and
    joints (2, 21, 3) Hand-21: metres, world; elbows: (2, 3) unit, world.
    """

    capture: int
    frame_idx: int
    sequence: str
    present: Bool[np.ndarray, "2"]
    pose: Float[np.ndarray, "2 48"]
    trans_m: Float[np.ndarray, "2 3"]
    vertices: Float[np.ndarray, "2 778 3"]
    joints: Float[np.ndarray, "2 21 3"]
    elbows: Float[np.ndarray, "2 3"]


class Image(NamedTuple):
    """One camera's picture of a frame (its place in `Recording.frames`)."""

    frame: int
    capture: int
    camera: str
    file_name: str
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """A split: `captures` by number, frames, and the pictures taken of them."""

    split: str
    captures: dict[int, Capture]
    frames: list[Frame]
    images: list[Image]
    seed: tuple[int, ...]

    def view(self, image: Image) -> View:
        """Returns what the image's camera sees."""
        frame, capture = self.frames[image.frame], self.captures[image.capture]
        camera = capture.cameras[image.camera]
        meshes = camera.to_camera(frame.vertices).astype(np.float32)
        vertices = tuple(
            mesh if here else None for mesh, here in zip(meshes, frame.present, strict=True)
        )
        elbows = frame.elbows @ camera.rotation.T
        return View(vertices, elbows, camera.projection, image.camera in capture.grey, image.seed)


def record(
    hands: HandModel, split: str, image_count: int, first_capture: int, seed: tuple[int, ...]
) -> Recording:
    """Draw a split of `image_count` images; captures are numbered from `first_capture`."""
    rng = np.random.default_rng(seed)
    capture_count = min(
        image_count, max(2, min(_MOST_CAPTURES, image_count // _IMAGES_PER_CAPTURE))
    )
    captures = {
        number: _sample_capture(rng, number)
        for number in range(first_capture, first_capture + capture_count)
    }
    per_capture = np.diff(np.linspace(0, image_count, capture_count + 1).astype(int))
    owners: list[Capture] = []
    draws: list[Draw] = []
    views: list[list[str]] = []
    for capture, count in zip(captures.values(), per_capture, strict=True):
        capture_views = _views(rng, int(count), list(capture.cameras))
        poses = sample_pose(rng, 2 * len(capture_views)).reshape(-1, 2, 45)
        capture_draws = [draw_frame(rng, finger_poses) for finger_poses in poses]
        draws += sorted(capture_draws, key=lambda draw: ARRANGEMENTS.index(draw.arrangement))
        views += capture_views
        owners += [capture] * len(capture_views)
    frames = _pose_frames(hands, owners, draws)
    images: list[Image] = []
    for index, (frame, cameras) in enumerate(zip(frames, views, strict=True)):
        folder = f"Capture{frame.capture}/{frame.sequence}"
        for camera in cameras:
            file_name = f"{folder}/cam{camera}/image{frame.frame_idx}.jpg"
            images.append(Image(index, frame.capture, camera, file_name, (*seed, len(images))))
    return Recording(split, captures, frames, images, seed)


def hand_surfaces(hands: HandModel) -> tuple[HandSurface, HandSurface]:
    """Surfaces of the right and the left hand, from the flat hand."""
    flat = np.zeros((2, 48), np.float32)
    flat[:, 3:] = -np.asarray(hands.mean_pose)
    mesh = jax.jit(mano_forward)(hands, np.zeros((2, 10), np.float32), flat)
    right, left = (
        hand_surface(
            np.asarray(mesh.vertices[h], np.float64),
            np.asarray(mesh.joints[h], np.float64),
            np.asarray(hands.faces[h]),
        )
        for h in range(2)
    )
    return right, left


def _views(rng: np.random.Generator, count: int, cameras: list[str]) -> list[list[str]]:
    """For each frame the cameras whose pictures are kept, `count` pictures in all."""
    views: list[list[str]] = []
    while count:
        taken = min(count, 2 if rng.random() < _SECOND_VIEW_SHARE else 1)
        views.append([str(c) for c in rng.choice(cameras, taken, replace=False)])
        count -= taken
    return views


def _pose_frames(hands: HandModel, owners: list[Capture], draws: list[Draw]) -> list[Frame]:
    """Meshes of the draws, brought together in the world; frames are numbered in each capture."""
    forward = jax.jit(mano_forward)
    numbers: Counter[int] = Counter()
    frames = []
    for start in range(0, len(draws), _BATCH):
        batch = draws[start : start + _BATCH]
        pose, betas = np.zeros((_BATCH, 2, 48)), np.zeros((_BATCH, 2, 10))
        pose[: len(batch)] = [draw.pose for draw in batch]
        betas[: len(batch)] = [capture.betas for capture in owners[start : start + _BATCH]]
        mesh = forward(hands, betas.astype(np.float32), pose.astype(np.float32))
        vertices, joints = np.asarray(mesh.vertices), np.asarray(mesh.joints)
        for k, draw in enumerate(batch):
            shift = place(draw, joints[k]).astype(np.float32)
            capture = owners[start + k].number
            frames.append(
                Frame(
                    capture=capture,
                    frame_idx=20000 + _FRAME_STEP * numbers[capture],
                    sequence=draw.arrangement.sequence,
                    present=draw.present,
                    pose=pose[k],
                    trans_m=shift,
                    vertices=vertices[k] + shift[:, None],
                    joints=joints[k] + shift[:, None],
                    elbows=np.stack([forearm(h, draw.fingers[h]) for h in range(2)]),
                )
            )
            numbers[capture] += 1
    return frames


def _sample_capture(rng: np.random.Generator, number: int) -> Capture:
    shape = rng.normal(0, 0.9, 10)
    betas = np.clip(shape + rng.normal(0, 0.05, (2, 10)), -2.5, 2.5)
    names = [str(400260 + 7 * k) for k in range(_CAMERAS - _GREY_CAMERAS)]
    names += [str(410001 + 14 * k) for k in range(_GREY_CAMERAS)]
    azimuths = rng.permutation(np.linspace(-40, 40, _CAMERAS)) + rng.uniform(-6, 6, _CAMERAS)
    cameras = {
        name: _sample_camera(rng, azimuth) for name, azimuth in zip(names, azimuths, strict=True)
    }
    grey = frozenset(names[-_GREY_CAMERAS:])
    return Capture(number, betas, sample_subject(rng), cameras, grey)


def _sample_camera(rng: np.random.Generator, azimuth_degrees: float) -> WorldCamera:
    """A camera on the ring that looks at the hands, upright but for a few degrees."""
    azimuth, height = np.radians(azimuth_degrees), np.radians(rng.uniform(-10, 30))
    way = np.array(
        [np.sin(azimuth) * np.cos(height), -np.sin(height), -np.cos(azimuth) * np.cos(height)]
    )
    position = rng.uniform(0.85, 1.15) * way
    forward = rng.normal(0, 0.01, 3) - position
    forward /= np.linalg.norm(forward)
    roll = np.radians(rng.normal(0, 5))
    down = np.array([np.sin(roll), np.cos(roll), 0.0])
    right = np.cross(down, forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = rng.uniform(1080, 1320)
    centre = np.array(SIZE_PX) / 2 + rng.normal(0, 4, 2)
    return WorldCamera(
        rotation,
        position,
        (float(focal), float(focal * rng.normal(1, 0.003))),
        (float(centre[0]), float(centre[1])),
    )
