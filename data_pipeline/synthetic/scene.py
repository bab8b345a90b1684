"""Scenes place the stand-in data's hands: postures, orientations, contact between two hands.

World axes: x to the right and y down as the front camera sees them, z away from it; metres. The
person sits behind the origin and faces the front camera, so the right hand is usually at −x and
the forearms come from below, outside and behind.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from er_jax.mano.joints import HAND21

_MIRROR = np.array([-1.0, 1.0, 1.0])
_ELBOW_FROM_WRIST = np.array([-0.3, 0.8, 0.45])


class Arrangement(NamedTuple):
    """An arrangement of two hands, told of the right hand; the left is its mirror image.

    share: of the frames. fingers: mean direction of the fingers; palm_degrees: range of the palm's
    heading, 0 towards the other hand, 90 towards the front camera, -90 towards the body; spread:
    standard deviation of both. approach: the way from the right hand to the left, see `draw_frame`;
    offset_m: standard deviation across it; gap_m: range of the distance left open (skin gives way).
    """

    sequence: str
    hands: str
    share: float
    fingers: tuple[float, float, float]
    palm_degrees: tuple[float, float]
    spread: float
    approach: str = "across"
    offset_m: float = 0.0
    gap_m: tuple[float, float] = (0.0, 0.0)


_UP, _INWARDS = (0.2, -0.85, -0.3), (0.45, -0.75, -0.25)
# fmt: off
ARRANGEMENTS = (
    Arrangement("ROM03_RT_No_Occlusion", "right", 0.10, _UP, (-60, 70), 0.25),
    Arrangement("ROM03_LT_No_Occlusion", "left", 0.10, _UP, (-60, 70), 0.25),
    Arrangement("ROM01_No_Interaction_2_Hand", "both", 0.13, _UP, (-55, 65), 0.2,
                "across", 0.03, (0.005, 0.07)),
    Arrangement("ROM02_Interaction_2_Hand", "both", 0.13, _UP, (-25, 25), 0.2,
                "across", 0.02, (-0.004, 0.025)),
    Arrangement("ROM09_Interaction_Fingers_Touching", "both", 0.17, (0.75, -0.5, -0.25),
                (-65, 65), 0.15, "tips", 0.004, (-0.005, 0.001)),
    Arrangement("ROM04_RT_Occlusion", "both", 0.09, _INWARDS, (-65, 65), 0.2,
                "before", 0.03, (-0.003, 0.03)),
    Arrangement("ROM04_LT_Occlusion", "both", 0.09, _INWARDS, (-65, 65), 0.2,
                "behind", 0.03, (-0.003, 0.03)),
    Arrangement("ROM07_RT_Finger_Occlusions", "both", 0.09, _INWARDS, (-90, -50), 0.15,
                "back", 0.02, (-0.004, 0.004)),
    Arrangement("ROM08_LT_Finger_Occlusions", "both", 0.10, _INWARDS, (-50, 50), 0.15,
                "palm", 0.02, (-0.008, 0.002)),
)
# fmt: on


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

    finger_poses: two poses of the right hand, axis-angle without the mean. The left hand lies from
    the right one across (with "tips" so that two fingertips meet), before it or behind it as the
    front camera sees them, off its palm, or off its back.
    """
    shares = np.array([arrangement.share for arrangement in ARRANGEMENTS])
    kind = ARRANGEMENTS[rng.choice(len(ARRANGEMENTS), p=shares / shares.sum())]
    present = np.array([kind.hands != "left", kind.hands != "right"])
    fingers, palms, roots = _draw_orientations(rng, kind)
    pose = np.concatenate([roots, finger_poses], axis=1)
    pose[1, 3:] = (finger_poses[1].reshape(15, 3) * (1.0, -1.0, -1.0)).ravel()
    approach = {
        "across": (1.0, 0.0, 0.0),
        "tips": (1.0, 0.0, 0.0),
        "before": (0.0, 0.0, -1.0),
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


def _draw_orientations(
    rng: np.random.Generator, kind: Arrangement
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finger directions, palm normals perpendicular to them, root rotation vectors: (2, 3) each.

    At rest MANO's right hand points its fingers to −x (the left to +x) and its palm to −y.
    """
    heading = np.radians(rng.uniform(*kind.palm_degrees, size=2))
    palms = np.stack([np.cos(heading), np.full(2, 0.15), -np.sin(heading)], axis=1)
    palms += rng.normal(0, kind.spread / 2, (2, 3))
    fingers = _unit(kind.fingers) + rng.normal(0, kind.spread, (2, 3))
    fingers[1], palms[1] = fingers[1] * _MIRROR, palms[1] * _MIRROR
    if kind.approach in ("palm", "back"):
        facing = -palms[0] if kind.approach == "palm" else palms[0]
        palms[1] = facing + rng.normal(0, 0.2, 3)
    roots = np.zeros((2, 3))
    for hand in range(2):
        fingers[hand] = _unit(fingers[hand])
        palms[hand] = _unit(palms[hand] - (palms[hand] @ fingers[hand]) * fingers[hand])
        rest_x = fingers[hand] if hand else -fingers[hand]
        axes = np.stack([rest_x, -palms[hand], np.cross(rest_x, -palms[hand])], axis=1)
        roots[hand] = cv2.Rodrigues(axes)[0][:, 0]
    return fingers, palms, roots


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
