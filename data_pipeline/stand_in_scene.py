"""Where the stand-in data's hands are: postures, orientations, contact between two hands.

World axes: x to the right and y down as the front camera sees them, z away from it; metres. The
person sits behind the origin and faces the front camera, so the right hand is usually at −x and
the forearms come from below, outside and behind.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from er_jax.mano.joints import HAND21

_MIRROR = np.array([-1.0, 1.0, 1.0])
_ELBOW_FROM_WRIST = np.array([-0.3, 0.8, 0.45])


@dataclass(frozen=True)
class Arrangement:
    """How two hands meet, told of the right hand; the left is its mirror image.

    fingers: mean direction of the fingers; palm_degrees: range of the palm's heading, 0 towards the
    other hand, 90 towards the front camera, -90 towards the body; spread: standard deviation of
    both directions. approach: the way from the right hand to the left, "x" across, "z" in depth,
    "palm" or "back" along the right palm's normal. offset_m: standard deviation across that way.
    gap_m: range of the distance left open.
    """

    sequence: str
    share: float
    fingers: tuple[float, float, float]
    palm_degrees: tuple[float, float]
    spread: float
    approach: str
    offset_m: float
    gap_m: tuple[float, float]


ARRANGEMENTS = (
    Arrangement(
        "ROM03_RT_No_Occlusion", 0.1, (0.2, -0.85, -0.3), (-100, 120), 0.4, "x", 0.0, (0.0, 0.0)
    ),
    Arrangement(
        "ROM03_LT_No_Occlusion", 0.1, (0.2, -0.85, -0.3), (-100, 120), 0.4, "x", 0.0, (0.0, 0.0)
    ),
    Arrangement(
        "ROM01_No_Interaction_2_Hand",
        0.13,
        (0.2, -0.85, -0.3),
        (-90, 110),
        0.3,
        "x",
        0.03,
        (0.005, 0.07),
    ),
    Arrangement(
        "ROM02_Interaction_2_Hand",
        0.13,
        (0.15, -0.85, -0.35),
        (-25, 25),
        0.2,
        "x",
        0.02,
        (-0.002, 0.03),
    ),
    Arrangement(
        "ROM09_Interaction_Fingers_Touching",
        0.17,
        (0.75, -0.5, -0.25),
        (-110, 110),
        0.2,
        "tips",
        0.004,
        (-0.001, 0.003),
    ),
    Arrangement(
        "ROM04_RT_Occlusion",
        0.09,
        (0.45, -0.8, -0.2),
        (-110, 110),
        0.3,
        "front",
        0.03,
        (0.0, 0.04),
    ),
    Arrangement(
        "ROM04_LT_Occlusion",
        0.09,
        (0.45, -0.8, -0.2),
        (-110, 110),
        0.3,
        "behind",
        0.03,
        (0.0, 0.04),
    ),
    Arrangement(
        "ROM07_RT_Hand_Over_Hand",
        0.09,
        (0.6, -0.6, -0.3),
        (-110, -50),
        0.2,
        "back",
        0.02,
        (-0.003, 0.005),
    ),
    Arrangement(
        "ROM08_Interaction_Grasp",
        0.1,
        (0.45, -0.7, -0.3),
        (-70, 70),
        0.2,
        "palm",
        0.02,
        (-0.004, 0.005),
    ),
)


class Draw(NamedTuple):
    """One frame before the hands are moved together; hands right, left.

    present (2,); pose (2, 48) axis-angle without the mean; fingers (2, 3) directions; approach
    (3,) unit; offset (3,); anchors (2,) joints of HAND21 that meet across the way; gap.
    """

    arrangement: Arrangement
    present: Bool[np.ndarray, "2"]
    pose: Float[np.ndarray, "2 48"]
    fingers: Float[np.ndarray, "2 3"]
    approach: Float[np.ndarray, "3"]
    offset: Float[np.ndarray, "3"]
    anchors: tuple[int, int]
    gap: float
    centre: Float[np.ndarray, "3"]


def draw_frame(rng: np.random.Generator, finger_poses: Float[np.ndarray, "2 45"]) -> Draw:
    """Draw an arrangement, orientations, and the way the hands come together.

    finger_poses: two poses of the right hand, axis-angle without the mean.
    """
    shares = np.array([arrangement.share for arrangement in ARRANGEMENTS])
    kind = ARRANGEMENTS[rng.choice(len(ARRANGEMENTS), p=shares / shares.sum())]
    single = kind.sequence.startswith("ROM03")
    present = np.array([not single or "RT" in kind.sequence, not single or "LT" in kind.sequence])
    fingers, palms = np.zeros((2, 2, 3))
    for hand, mirror in enumerate((np.ones(3), _MIRROR)):
        fingers[hand] = _unit(_unit(kind.fingers) + rng.normal(0, kind.spread, 3)) * mirror
        heading = np.radians(rng.uniform(*kind.palm_degrees))
        palm = np.array([np.cos(heading), 0.15, -np.sin(heading)])
        palms[hand] = (palm + rng.normal(0, kind.spread / 2, 3)) * mirror
    if kind.approach == "palm":
        palms[1] = -palms[0] + rng.normal(0, 0.2, 3)
    elif kind.approach == "back":
        palms[1] = palms[0] + rng.normal(0, 0.2, 3)
    pose = np.zeros((2, 48))
    for hand in range(2):
        fingers[hand], palms[hand], root = _orientation(fingers[hand], palms[hand], hand)
        pose[hand, :3] = root
        mirror = np.array([1.0, -1.0, -1.0]) if hand else np.ones(3)
        pose[hand, 3:] = (finger_poses[hand].reshape(15, 3) * mirror).ravel()
    approach = {
        "x": (1.0, 0.0, 0.0),
        "tips": (1.0, 0.0, 0.0),
        "front": (0.0, 0.0, -1.0),
        "behind": (0.0, 0.0, 1.0),
        "palm": palms[0],
        "back": -palms[0],
    }[kind.approach]
    approach = _unit(np.asarray(approach) + rng.normal(0, 0.12, 3))
    offset = rng.normal(0, kind.offset_m, 3)
    middle = HAND21.index("Middle_1")
    anchors = (middle, middle)
    if kind.approach == "tips":
        tips = [index for index, name in enumerate(HAND21) if name.endswith("_4")]
        first = int(rng.choice(tips))
        anchors = (first, first if rng.random() < 0.7 else int(rng.choice(tips)))
    gap = float(rng.uniform(*kind.gap_m))
    centre = rng.normal(0, (0.025, 0.02, 0.03))
    return Draw(kind, present, pose, fingers, approach, offset, anchors, gap, centre)


def place(draw: Draw, joints: Float[np.ndarray, "2 21 3"]) -> Float[np.ndarray, "2 3"]:
    """Displacements (2, 3) that bring the two hands together at the draw's place.

    joints: Hand-21, posed and turned, anywhere. The left hand comes from afar against `approach`
    until it would touch the right one, and stops at the draw's gap; hands and forearms are spheres.
    """
    middle = HAND21.index("Middle_1")
    if not draw.present.all():
        return draw.centre - joints[:, middle]
    across = joints[0, draw.anchors[0]] - joints[1, draw.anchors[1]] + draw.offset
    shift = np.stack([np.zeros(3), across])
    spheres = [_spheres(joints[h] + shift[h], forearm(h, draw.fingers[h])) for h in range(2)]
    (right, right_radius), (left, left_radius) = spheres
    apart = left[None] - right[:, None]
    reach = right_radius[:, None] + left_radius
    along = apart @ draw.approach
    inside = along**2 - (apart**2).sum(-1) + reach**2
    touching = -along + np.sqrt(np.maximum(inside, 0))
    contact = touching[inside > 0].max() if (inside > 0).any() else 0.0
    shift[1] += draw.approach * (contact + draw.gap)
    return shift + draw.centre - (joints[:, middle] + shift).mean(axis=0)


def forearm(hand: int, fingers: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Unit direction from the wrist to the elbow for a hand whose fingers point to `fingers`.

    Between straight behind the hand and where the person's elbow is, bent at most 50 degrees.
    """
    straight = -fingers
    elbow = _unit(_ELBOW_FROM_WRIST * (_MIRROR if hand else 1.0))
    angle = np.arccos(np.clip(straight @ elbow, -1, 1))
    share = min(0.65, np.radians(50) / max(angle, 1e-6))
    return _unit((1 - share) * straight + share * elbow)


def _orientation(
    fingers: np.ndarray, palm: np.ndarray, hand: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finger direction, palm normal made perpendicular to it, and the root's rotation vector.

    At rest MANO's right hand points its fingers to −x (the left to +x) and its palm to −y.
    """
    fingers = _unit(fingers)
    palm = _unit(palm - (palm @ fingers) * fingers)
    rest_x = fingers if hand else -fingers
    root = np.stack([rest_x, -palm, np.cross(rest_x, -palm)], axis=1)
    return fingers, palm, cv2.Rodrigues(root)[0][:, 0]


def _spheres(
    joints: Float[np.ndarray, "21 3"], elbow: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "S 3"], Float[np.ndarray, "S"]]:
    """Centres and radii of spheres that fill a hand and its forearm."""
    wrist = joints[0]
    chains = joints[1:].reshape(5, 4, 3)
    centres, radii = [], []
    for share in (0.0, 0.33, 0.67, 1.0):
        centres.append((chains[:, :-1] * (1 - share) + chains[:, 1:] * share).reshape(-1, 3))
        thickness = np.array([0.0105, 0.0095, 0.0085]) - 0.001 * share
        radii.append(np.broadcast_to(thickness, (5, 3)).ravel())
    for share in (0.15, 0.4, 0.65, 0.9):
        centres.append(wrist * (1 - share) + chains[1:, 0] * share)
        radii.append(np.full(4, 0.014))
    for distance in np.arange(0.0, 0.2, 0.025):
        centres.append((wrist + distance * elbow)[None])
        radii.append(np.array([0.026 + 0.05 * distance]))
    return np.concatenate(centres), np.concatenate(radii)


def _unit(vector: object) -> np.ndarray:
    array = np.asarray(vector, np.float64)
    return array / np.linalg.norm(array)
