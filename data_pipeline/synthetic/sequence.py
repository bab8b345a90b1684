"""A drawn clip with known truth: hands that move before one camera, cross, leave and come back.

All motion is a uniform cubic B-spline through random control points: smooth to the second
derivative, band-limited by the distance of its knots, and never beyond its control points, so that
fingers keep to their limits. A person's hands go round each other, so that now the one and now the
other crosses before; one hand of the first person leaves the picture for a fifth of the clip.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.background import background
from data_pipeline.synthetic.forearm import forearm_rings
from data_pipeline.synthetic.poses import sample_pose
from data_pipeline.synthetic.recording import hand_surfaces
from data_pipeline.synthetic.scene import forearm
from data_pipeline.synthetic.skin import (
    HandSurface,
    Subject,
    forearm_colours,
    sample_subject,
    skin_colours,
)
from er_jax.mano import HAND21, HandModel, load_hands, mano_forward
from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.rendering.rasterizer import Light, Mesh, render_meshes

SIZE_PX = (640, 480)
CAMERA = PerspectiveCamera((768.0, 768.0), (319.5, 239.5))
"""As `camera_of` assumes it where nothing is known."""
FINGER_KNOTS_S, TURN_KNOTS_S, PLACE_KNOTS_S = 0.5, 0.6, 0.6
"""Between the control points of fingers' poses, of the hand's direction, and of its place."""
ROUND_S = 8.0
"""A person's hands go once around each other, and so cross twice."""
_FINGERS_UP = np.array([0.2, -0.85, -0.3])
_DIRECTION_SPREAD, _PLACE_SPREAD_M = 0.35, (0.035, 0.035, 0.03)
_PALM_DEGREES = (-70.0, 80.0)  # 0 towards the other hand, 90 towards the camera
_MIRROR = np.array([-1.0, 1.0, 1.0])
_AWAY = (0.4, 0.6)  # of the clip
_LEAVING_S = 1.2
_LEAST_INSIDE = 11
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Where persons are: middles of their hands, and how far these are from it, metres."""

    middles: tuple[tuple[float, float, float], ...]
    beside: float
    before: float


_STAGES = {
    1: _Stage(((0.0, 0.01, 0.7),), 0.125, 0.075),
    2: _Stage(((-0.19, 0.01, 0.92), (0.19, 0.0, 1.0)), 0.085, 0.075),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """P persons' hands (right, left) over F frames. Metres in the camera's axes (x right, y down,
    z forward), radians; a pixel's integer position is its centre.

    Attributes:
      times_s: of the frames, from 0.
      present: whether at least 11 of the hand's joints lie in the picture. It may be hidden behind
        another one.
      joints: in the order `HAND21`, of hands outside the picture too, as all that follows.
      keypoints_px: these in the picture.
      rotations: root and finger joints in the order `MANO16`, the mean pose included.
      betas: of each hand; the same of a person's two.
      transl: as `mano_forward` takes it.
      vertices: of the meshes.
      elbows: unit vectors from the wrists.
      camera: of all frames.
      size_px: width and height of the frames.
      hand_model: that was posed.
    """

    times_s: Float[np.ndarray, "F"]
    present: Bool[np.ndarray, "F P 2"]
    joints: Float[np.ndarray, "F P 2 21 3"]
    keypoints_px: Float[np.ndarray, "F P 2 21 2"]
    rotations: Float[np.ndarray, "F P 2 16 3 3"]
    betas: Float[np.ndarray, "P 2 10"]
    transl: Float[np.ndarray, "F P 2 3"]
    vertices: Float[np.ndarray, "F P 2 778 3"]
    elbows: Float[np.ndarray, "F P 2 3"]
    camera: PerspectiveCamera
    size_px: tuple[int, int]
    hand_model: HandModel
    _look: "_Look"

    def __len__(self) -> int:
        return len(self.times_s)

    def frames(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The pictures, RGB, each drawn when it is asked for."""
        for index in range(len(self)):
            yield self.frame(index)

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """One of the pictures, RGB; the same whenever it is asked for."""
        look = self._look
        meshes = [
            _mesh(self.vertices[index, person, side], look, person, side, self.elbows[index])
            for person, side in np.ndindex(self.present.shape[1:])
        ]
        picture = render_meshes(
            look.background, meshes, self.camera, light=look.light, refine=False
        ).image
        noise = np.empty(picture.shape, np.int16)
        cv2.setRNGSeed(int(np.random.default_rng((*look.seed, index)).integers(2**31)))
        cv2.randn(noise, np.zeros(3), np.full(3, look.noise))
        return np.clip(picture + noise, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class _Look:
    """What is the same in all frames, and the noise that is not."""

    background: UInt8[np.ndarray, "H W 3"]
    light: Light
    noise: float
    subjects: tuple[Subject, ...]
    surfaces: tuple[HandSurface, HandSurface]
    seed: tuple[int, ...]


def draw_sequence(
    seed: int,
    seconds: float,
    frame_rate: float,
    people: int = 1,
    hands: HandModel | None = None,
) -> Sequence:
    """A clip; the same arguments give the same one.

    Args:
      seed: of all that is random.
      seconds: length; the frames at 0, 1 / frame_rate, … before it.
      frame_rate: per second.
      people: 1, or 2 side by side, who are farther away.
      hands: to pose; None: the stand-in.

    Raises:
      ValueError: other numbers of people, or no frame at all.
    """
    if people not in _STAGES:
        raise ValueError(f"people={people}: 1 or 2 are drawn")
    count = int(np.ceil(seconds * frame_rate - 1e-9))
    if count < 1:
        raise ValueError(f"{seconds} s at {frame_rate} frames a second: no frame")
    hands = load_hands(None) if hands is None else hands
    times = np.arange(count) / frame_rate
    stage = _STAGES[people]
    shape = (count, people, 2)
    pose, elbows, place = np.zeros((*shape, 48)), np.zeros((*shape, 3)), np.zeros((*shape, 3))
    betas = np.zeros((people, 2, 10))
    for person in range(people):
        rng = np.random.default_rng((seed, 0, person))
        betas[person] = rng.normal(0, 0.7, 10).clip(-2, 2)
        away = _away(times, seconds) if person == 0 else np.zeros(count)
        for side in range(2):
            moves = np.random.default_rng((seed, 1, person, side))
            roots, elbows[:, person, side] = _directions(moves, times, side)
            pose[:, person, side] = np.concatenate([roots, _fingers(moves, times, side)], -1)
            place[:, person, side] = _places(moves, times, stage, person, side, seconds)
            if side == 0:  # the person's right hand is at the picture's left
                place[:, person, side, 0] -= 0.65 * away
    rotations, vertices, joints = _posed(hands, betas, pose)
    transl = place - joints[..., HAND21.index("Middle_1"), :]
    joints, vertices = joints + transl[..., None, :], vertices + transl[..., None, :]
    keypoints = CAMERA.project(joints)
    inside = ((keypoints > -0.5) & (keypoints < np.array(SIZE_PX) - 0.5)).all(-1)
    return Sequence(
        times_s=times,
        present=inside.sum(-1) >= _LEAST_INSIDE,
        joints=joints,
        keypoints_px=keypoints,
        rotations=rotations,
        betas=betas,
        transl=transl,
        vertices=vertices.astype(np.float32),
        elbows=elbows,
        camera=CAMERA,
        size_px=SIZE_PX,
        hand_model=hands,
        _look=_draw_look(seed, people, hands),
    )


def _curve(
    rng: np.random.Generator,
    times: Float[np.ndarray, "F"],
    knots_s: float,
    sample: Callable[[np.random.Generator, int], Float[np.ndarray, "n d"]],
) -> Float[np.ndarray, "F d"]:
    """The spline of control points that `sample(rng, n)` gives, drawn in groups of eight.

    By groups the curve's beginning does not depend on the clip's length.
    """
    needed = int(times[-1] / knots_s) + 4
    controls = np.concatenate([sample(rng, 8) for _ in range(-(-needed // 8))])
    knots = np.arange(len(controls) + 4) - 3.0
    return BSpline(knots, controls, 3)(times / knots_s)


def _normal(spread: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    # A uniform cubic B-spline of independent control points has a third of their variance and more.
    return 1.6 * rng.normal(0, spread, (count, len(spread))).clip(-2.5 * spread, 2.5 * spread)


def _uniform(low: float, high: float, rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(low, high, (count, 1))


def _fingers(rng: np.random.Generator, times: np.ndarray, side: int) -> np.ndarray:
    poses = _curve(rng, times, FINGER_KNOTS_S, sample_pose)
    return poses * np.tile([1.0, -1.0, -1.0], 15) if side else poses


def _directions(
    rng: np.random.Generator, times: np.ndarray, side: int
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 3"]]:
    """Rotation vectors of the root, and unit vectors to the elbow.

    At rest MANO's right hand points its fingers to −x (the left to +x) and its palm to −y.
    """
    spread = partial(_normal, np.full(3, _DIRECTION_SPREAD))
    fingers = _unit(_FINGERS_UP) + _curve(rng, times, TURN_KNOTS_S, spread)
    heading = np.radians(_curve(rng, times, TURN_KNOTS_S, partial(_uniform, *_PALM_DEGREES)))[:, 0]
    palms = np.stack([np.cos(heading), np.full(len(times), 0.15), -np.sin(heading)], axis=1)
    if side:
        fingers, palms = fingers * _MIRROR, palms * _MIRROR
    fingers = _unit(fingers)
    palms = _unit(palms - (palms * fingers).sum(-1, keepdims=True) * fingers)
    rest_x = fingers if side else -fingers
    axes = np.stack([rest_x, -palms, np.cross(rest_x, -palms)], axis=-1)
    elbows = np.stack([forearm(side, direction) for direction in fingers])
    return Rotation.from_matrix(axes).as_rotvec(), elbows


def _places(
    rng: np.random.Generator,
    times: np.ndarray,
    stage: _Stage,
    person: int,
    side: int,
    seconds: float,
) -> Float[np.ndarray, "F 3"]:
    """Of the first joint of the middle finger.

    The hands are on their own sides in the middle of the clip.
    """
    angle = 2 * np.pi * ((times - np.mean(_AWAY) * seconds) / ROUND_S + 0.3 * person)
    way = 1.0 if side else -1.0
    around = np.stack(
        [stage.beside * np.cos(angle), np.zeros(len(times)), stage.before * np.sin(angle)], -1
    )
    unrest = _curve(rng, times, PLACE_KNOTS_S, partial(_normal, np.array(_PLACE_SPREAD_M)))
    return np.array(stage.middles[person]) + way * around + unrest


def _away(times: np.ndarray, seconds: float) -> Float[np.ndarray, "F"]:
    """0 where the hand is in the picture, 1 where it is out of it, smooth between."""
    leaving = min(_LEAVING_S, 0.1 * seconds)
    middle, half = np.mean(_AWAY) * seconds, np.ptp(_AWAY) * seconds / 2
    share = np.clip((half - np.abs(times - middle)) / leaving + 0.5, 0, 1)
    return share**3 * (10 - 15 * share + 6 * share**2)


def _posed(
    hands: HandModel, betas: Float[np.ndarray, "P 2 10"], pose: Float[np.ndarray, "F P 2 48"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations, vertices and joints, not yet moved to their place."""
    count = len(pose)
    mean = np.concatenate([np.zeros((2, 3)), np.asarray(hands.mean_pose)], axis=-1)
    full = (pose + mean).reshape(*pose.shape[:-1], 16, 3)
    rotations = Rotation.from_rotvec(full.reshape(-1, 3)).as_matrix().reshape(*full.shape, 3)
    forward = jax.jit(mano_forward)
    vertices, joints = [], []
    for first in range(0, count, _AT_ONCE):
        some = np.minimum(np.arange(first, first + _AT_ONCE), count - 1)
        mesh = forward(hands, betas.astype(np.float32), rotations[some].astype(np.float32))
        vertices.append(np.asarray(mesh.vertices, np.float64)[: count - first])
        joints.append(np.asarray(mesh.joints, np.float64)[: count - first])
    return rotations, np.concatenate(vertices), np.concatenate(joints)


def _draw_look(seed: int, people: int, hands: HandModel) -> _Look:
    rng = np.random.default_rng((seed, 2))
    ambient = rng.uniform(0.35, 0.55)
    light = Light(
        direction=(rng.uniform(-0.7, 0.7), rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.0)),
        ambient=ambient,
        diffuse=rng.uniform(0.85, 1.05) - ambient,
        specular=rng.uniform(0.03, 0.14),
        shininess=rng.uniform(8, 24),
        wrap=rng.uniform(0.15, 0.35),
        shadow=rng.uniform(0.5, 0.85),
    )
    return _Look(
        background=background(rng, SIZE_PX),
        light=light,
        noise=rng.uniform(1.0, 4.0),
        subjects=tuple(sample_subject(rng) for _ in range(people)),
        surfaces=hand_surfaces(hands),
        seed=(seed, 3),
    )


def _mesh(
    vertices: np.ndarray, look: _Look, person: int, side: int, elbows: Float[np.ndarray, "P 2 3"]
) -> Mesh:
    subject, surface = look.subjects[person], look.surfaces[side]
    rings = forearm_rings(vertices, surface.rim, elbows[person, side], subject.sleeve_from_m)
    colour = np.concatenate([skin_colours(surface, subject), forearm_colours(surface, subject)])
    return Mesh(np.concatenate([vertices, rings]), surface.faces, colour)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
