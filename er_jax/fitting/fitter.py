"""From what was seen of people's hands to their meshes in the camera's metres, in batches."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from er_jax.fitting.fit import (
    BETAS_SIGMA,
    PALM,
    SPREAD,
    Evidence,
    FittedHands,
    fit_hands,
    starts_over_keypoints,
)
from er_jax.fitting.posed_joints import JointModel, anatomical_angles, finger_vectors, joint_model
from er_jax.mano import HAND21, HANDS, MANO16, HandModel, axis_angle_to_matrix, mano_forward
from er_jax.rendering.cameras import PerspectiveCamera

BATCH_SIZES = (2, 4, 16, 64)
SOURCES = 2
STARTS = np.asarray(Rotation.create_group("O").as_matrix(), np.float32)
"""The 24 rotations of a cube: one of them is within 63° of any rotation."""
TRIED_STARTS = 4
CURLED = np.radians(np.tile([[50.0, 0, 0], [50.0, 0, 0], [25.0, 0, 0]], (5, 1))).astype(np.float32)
"""What a half closed fist's angles are more than an open hand's."""
REACH_SIGMA_M = 0.2
"""Of the difference of the depths of a person's hands, where nothing else is known of it."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What one source says of one hand; joints in the order `HAND21`.

    Attributes:
      keypoints_px: in the image; a pixel's integer position is its centre.
      keypoint_sigma_px: standard deviations; infinite where a joint was not seen.
      joints_m: camera axes (x right, y down, z forward), wherever the origin; None: not known.
      joint_sigma_m: standard deviations; infinite where a joint is not known.
    """

    keypoints_px: Float[np.ndarray, "21 2"]
    keypoint_sigma_px: Float[np.ndarray, "21"]
    joints_m: Float[np.ndarray, "21 3"] | None = None
    joint_sigma_m: Float[np.ndarray, "21"] | None = None


@dataclasses.dataclass(frozen=True)
class HandEvidence:
    """What is known of one hand.

    Attributes:
      side: "right" or "left".
      seen: at most two sources.
      pose: axis-angle of root and finger joints without the mean pose, as a network says it (48,).
      pose_sigma: standard deviation of the finger joints' angles about it, radians.
      betas: as a network says them (10,).
      betas_sigma: standard deviation.
      start: rotations of the full pose to start from, the mean pose included, in the order
        `MANO16`, such as those of the frame before; None: those that are tried without.
    """

    side: str
    seen: tuple[Observation, ...]
    pose: Float[np.ndarray, "48"] | None = None
    pose_sigma: float = 0.3
    betas: Float[np.ndarray, "10"] | None = None
    betas_sigma: float = BETAS_SIGMA
    start: Float[np.ndarray, "16 3 3"] | None = None


@dataclasses.dataclass(frozen=True)
class PersonEvidence:
    """What is known of the hands of one person: one hand, or right and left.

    Attributes:
      hands: of different sides.
      camera: that keypoints are seen by.
      rel_trans_m: left wrist minus right wrist, camera axes; None: not known.
      rel_trans_sigma_m: its standard deviation.
    """

    hands: tuple[HandEvidence, ...]
    camera: PerspectiveCamera
    rel_trans_m: Float[np.ndarray, "3"] | None = None
    rel_trans_sigma_m: float = 0.05


@dataclasses.dataclass(frozen=True)
class FittedHand:
    """One hand in the camera's axes (x right, y down, z forward).

    Attributes:
      side: "right" or "left".
      vertices: metres.
      joints: metres, in the order `HAND21`.
      betas: shape coefficients.
      rotations: of the full pose, the mean pose included, in the order `MANO16`.
      transl: as `mano_forward` takes it, metres.
      joint_sigma_m: standard deviation of each joint's place relative to the wrist.
      place_sigma_m: of the wrist's place; most of it is depth.
      reprojection_px: mean distance of the joints from the first source's keypoints in the image.
    """

    side: str
    vertices: Float[np.ndarray, "778 3"]
    joints: Float[np.ndarray, "21 3"]
    betas: Float[np.ndarray, "10"]
    rotations: Float[np.ndarray, "16 3 3"]
    transl: Float[np.ndarray, "3"]
    joint_sigma_m: Float[np.ndarray, "21"]
    place_sigma_m: float
    reprojection_px: float


class Fitter:
    """Fits a hand model to what was seen of people's hands.

    Each hand is fitted alone; the two of a person then together, with one shape and without
    running into each other; at once where there is a start for both. A program is compiled when a
    batch first needs it.

    Args:
      hands: both hand models.
    """

    def __init__(self, hands: HandModel):
        self._model = joint_model(hands)
        self._on_host: JointModel = jax.device_get(self._model)
        self._mean_pose = np.asarray(hands.mean_pose).reshape(2, 15, 3)
        rest = np.asarray(hands.rest_joints).swapaxes(1, 2)
        self._rest_palms = rest[:, [MANO16.index(HAND21[joint]) for joint in PALM]]
        self._meshes = jax.jit(partial(_meshes, hands, self._model))

    def __call__(self, people: Sequence[PersonEvidence]) -> list[tuple[FittedHand, ...]]:
        """Fits the hands of each person; the answer is in the order of the evidence.

        Raises:
          ValueError: a person has no hand, two of one side, or a hand without three keypoints.
        """
        for person in people:
            _check(person)
        alone = [
            dataclasses.replace(person, hands=(hand,), rel_trans_m=None)
            for person in people
            for hand in person.hands
            if not _has_starts_for_both(person)
        ]
        singles = self._fit_singles(alone)
        results: list[tuple[FittedHand, ...]] = []
        pairs, places = [], []
        starts = []
        position = 0
        for person in people:
            if _has_starts_for_both(person):
                places.append(len(results))
                pairs.append(_right_first(person))
                starts.append([self._given_start(hand) for hand in pairs[-1].hands])
                results.append(())
                continue
            own = singles[position : position + len(person.hands)]
            position += len(person.hands)
            if len(own) == 2:
                places.append(len(results))
                pairs.append(_right_first(person))
                own = sorted(own, key=lambda fit: int(fit.side))
                starts.append([(one.wrist, one.angles) for one in own])
                results.append(())
            else:
                results.append(self._finished([person], [own[0].fit])[0])
        if pairs:
            wrists, angles = (
                np.array([[hand[part] for hand in start] for start in starts], np.float32)
                for part in (0, 1)
            )
            fitted = self._fit(pairs, range(len(pairs)), wrists, angles)
            for place, result in zip(places, self._finished(pairs, fitted), strict=True):
                results[place] = result
        return results

    def _fit_singles(self, people: Sequence[PersonEvidence]) -> list["_Single"]:
        """The best fit of each hand alone, from each start that is worth it."""
        wrists, angles, owner = [], [], []
        for index, person in enumerate(people):
            for wrist, fingers in self._starts(person):
                wrists.append(wrist[None])
                angles.append(fingers[None])
                owner.append(index)
        starts = (np.array(values, np.float32) for values in (wrists, angles))
        fits = self._fit(people, owner, *starts)
        best: dict[int, FittedHands] = {}
        for index, fit in zip(owner, fits, strict=True):
            if index not in best or fit.cost < best[index].cost:
                best[index] = fit
        return [
            _Single(HANDS.index(person.hands[0].side), best[index])
            for index, person in enumerate(people)
        ]

    def _starts(
        self, person: PersonEvidence
    ) -> list[tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "15 3"]]]:
        """Rotations of the root, and angles of the finger joints, to start a hand from.

        Fingers bend one way only, so that an open hand does not find the way into a fist.
        """
        (hand,) = person.hands
        if hand.start is not None:
            return [self._given_start(hand)]
        side = HANDS.index(hand.side)
        open_hand = np.asarray(self._on_host.rest_angles[side])
        hand_poses = [open_hand, open_hand + CURLED]
        starts = []
        if hand.pose is not None:
            wrist = Rotation.from_rotvec(hand.pose[:3]).as_matrix()
            starts.append((wrist, self._angles_of(hand)))
        for seen in hand.seen:
            if seen.joints_m is not None and np.isfinite(seen.joints_m).all():
                wrist = _aligned(self._rest_palms[side], np.asarray(seen.joints_m)[PALM])
                starts += [(wrist, fingers) for fingers in hand_poses]
                break
        if starts:
            return starts
        one = jax.tree.map(lambda x: x[0], self._evidence([person]))
        order = np.asarray(starts_over_keypoints(self._model, one, jnp.asarray(STARTS)))
        best = STARTS[order[:TRIED_STARTS]]
        return [(wrist, fingers) for wrist in best for fingers in hand_poses]

    def _given_start(
        self, hand: HandEvidence
    ) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "15 3"]]:
        assert hand.start is not None
        side = HANDS.index(hand.side)
        full = Rotation.from_matrix(hand.start[1:]).as_rotvec()
        return hand.start[0], np.asarray(anatomical_angles(self._on_host.hands(side), full))

    def _angles_of(self, hand: HandEvidence) -> Float[np.ndarray, "15 3"]:
        assert hand.pose is not None
        side = HANDS.index(hand.side)
        full = np.asarray(hand.pose[3:]).reshape(15, 3) + self._mean_pose[side]
        return np.asarray(anatomical_angles(self._on_host.hands(side), full))

    def _fit(
        self,
        people: Sequence[PersonEvidence],
        owner: Sequence[int],
        wrists: Float[np.ndarray, "n H 3 3"],
        angles: Float[np.ndarray, "n H 15 3"],
    ) -> list[FittedHands]:
        """A fit from each start, on the host.

        Args:
          people: all with the same number of hands.
          owner: of them, for each start.
          wrists: to start from.
          angles: to start from.
        """
        if not people:
            return []
        evidence = self._evidence(people)
        rows: list[FittedHands] = []
        largest = BATCH_SIZES[-1]
        for first in range(0, len(owner), largest):
            count = min(len(owner) - first, largest)
            size = next(size for size in BATCH_SIZES if size >= count)
            index = first + np.minimum(np.arange(size), count - 1)  # the last one fills the batch
            own = jax.tree.map(lambda x, index=index: x[np.asarray(owner)[index]], evidence)
            fitted = jax.device_get(fit_hands(self._model, own, wrists[index], angles[index]))
            rows += [jax.tree.map(lambda x, i=i: x[i], fitted) for i in range(count)]
        return rows

    def _evidence(self, people: Sequence[PersonEvidence]) -> Evidence:
        """Of each person, with one leading axis; arrays of the host."""
        rows = [self._evidence_of(person) for person in people]
        stacked: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return Evidence(**stacked)

    def _evidence_of(self, person: PersonEvidence) -> dict[str, np.ndarray]:
        count = len(person.hands)
        sides = np.array([HANDS.index(hand.side) for hand in person.hands])
        known = person.rel_trans_m is not None
        reach = np.array([0.0, 0.0, 1 / REACH_SIGMA_M])
        arrays: dict[str, np.ndarray] = {
            "sides": sides.astype(np.int32),
            "keypoints_px": np.zeros((SOURCES, count, 21, 2)),
            "keypoint_precision": np.zeros((SOURCES, count, 21)),
            "joints_m": np.zeros((SOURCES, count, 21, 3)),
            "joint_precision": np.zeros((SOURCES, count, 21)),
            "rel_trans_m": np.asarray(person.rel_trans_m) if known else np.zeros(3),
            "rel_trans_precision": np.full(3, 1 / person.rel_trans_sigma_m) if known else reach,
            "angles": np.asarray(self._on_host.rest_angles)[sides],
            "angle_precision": np.repeat(1 / SPREAD[None], count, axis=0),
            "betas": np.zeros(10),
            "betas_precision": np.full(10, 1 / BETAS_SIGMA),
            "focal_px": np.array(person.camera.focal_px),
            "principal_point_px": np.array(person.camera.princpt_px),
        }
        said = [hand for hand in person.hands if hand.betas is not None]
        if said:
            # Each hand's shape and the prior about the mean hand, as products of Gaussians.
            precision = BETAS_SIGMA**-2 + sum(hand.betas_sigma**-2 for hand in said)
            moments = [np.asarray(hand.betas) * hand.betas_sigma**-2 for hand in said]
            arrays["betas"] = np.sum(moments, axis=0) / precision
            arrays["betas_precision"] = np.full(10, precision**0.5)
        for index, hand in enumerate(person.hands):
            if hand.pose is not None:
                # The network's pose and the prior about the resting hand: a product of Gaussians.
                of_network, of_rest = hand.pose_sigma**-2, SPREAD**-2.0
                total = of_network + of_rest
                resting = self._on_host.rest_angles[sides[index]]
                mean = (of_network * self._angles_of(hand) + of_rest * resting) / total
                arrays["angles"][index], arrays["angle_precision"][index] = mean, total**0.5
            for source, seen in enumerate(hand.seen):
                at = (source, index)
                _put(
                    arrays,
                    "keypoints_px",
                    "keypoint_precision",
                    at,
                    *_finite(seen.keypoints_px, seen.keypoint_sigma_px),
                )
                if seen.joints_m is not None and seen.joint_sigma_m is not None:
                    _put(
                        arrays,
                        "joints_m",
                        "joint_precision",
                        at,
                        *_finite(seen.joints_m, seen.joint_sigma_m),
                    )
        return {
            name: x if x.dtype == np.int32 else x.astype(np.float32) for name, x in arrays.items()
        }

    def _finished(
        self, people: Sequence[PersonEvidence], fits: Sequence[FittedHands]
    ) -> list[tuple[FittedHand, ...]]:
        results = []
        for person, fit in zip(people, fits, strict=True):
            sides = np.array([HANDS.index(hand.side) for hand in person.hands])
            vertices, rotations = jax.device_get(
                self._meshes(sides, fit.betas, fit.wrist, fit.angles, fit.transl)
            )
            results.append(
                tuple(
                    FittedHand(
                        side=hand.side,
                        vertices=vertices[index],
                        joints=np.asarray(fit.joints[index]),
                        betas=np.asarray(fit.betas),
                        rotations=rotations[index],
                        transl=np.asarray(fit.transl[index]),
                        joint_sigma_m=np.asarray(fit.joint_sigma_m[index]),
                        place_sigma_m=float(fit.place_sigma_m[index]),
                        reprojection_px=_reprojection(person, hand, np.asarray(fit.joints[index])),
                    )
                    for index, hand in enumerate(person.hands)
                )
            )
        return results


def _has_starts_for_both(person: PersonEvidence) -> bool:
    return len(person.hands) == 2 and all(hand.start is not None for hand in person.hands)


@dataclasses.dataclass(frozen=True)
class _Single:
    side: int
    fit: FittedHands

    @property
    def wrist(self) -> np.ndarray:
        return np.asarray(self.fit.wrist[0])

    @property
    def angles(self) -> np.ndarray:
        return np.asarray(self.fit.angles[0])


def _aligned(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3 3"]:
    """The rotation that brings one set of points onto another (Kabsch)."""
    centred = (x - x.mean(0) for x in (target, source))
    return Rotation.align_vectors(*centred)[0].as_matrix()


def _reprojection(person: PersonEvidence, hand: HandEvidence, joints: np.ndarray) -> float:
    seen = hand.seen[0]
    distance = np.linalg.norm(person.camera.project(joints) - seen.keypoints_px, axis=-1)
    return float(distance[np.isfinite(seen.keypoint_sigma_px)].mean())


def _meshes(
    hands: HandModel, model, sides: Array, betas: Array, wrist: Array, angles: Array, transl: Array
) -> tuple[Array, Array]:
    own = model.hands(sides)
    fingers = axis_angle_to_matrix(finger_vectors(own, angles))
    rotations = jnp.concatenate([wrist[:, None], fingers], 1)
    picked = jax.tree.map(lambda x: x[sides], hands)
    one = jax.vmap(mano_forward, (0, None, 0, 0))
    return one(picked, betas, rotations, transl).vertices, rotations


def _finite(values: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values with zeros where they are not known, and their precision."""
    known = np.isfinite(values).all(-1) & np.isfinite(sigma) & (sigma > 0)
    precision = np.where(known, 1 / np.where(known, sigma, 1.0), 0.0)
    return np.where(known[..., None], values, 0.0), precision


def _put(
    arrays: dict[str, np.ndarray],
    name: str,
    precision_name: str,
    at: tuple[int, int],
    values: np.ndarray,
    precision: np.ndarray,
) -> None:
    arrays[name][at] = values
    arrays[precision_name][at] = precision


def _right_first(person: PersonEvidence) -> PersonEvidence:
    hands = tuple(sorted(person.hands, key=lambda hand: HANDS.index(hand.side)))
    return dataclasses.replace(person, hands=hands)


def _check(person: PersonEvidence) -> None:
    sides = [hand.side for hand in person.hands]
    if not sides or len(set(sides)) < len(sides) or not set(sides) <= set(HANDS):
        raise ValueError(f"hands {sides}: a person has one hand, or one right and one left")
    for hand in person.hands:
        if not 1 <= len(hand.seen) <= SOURCES:
            raise ValueError(f"{len(hand.seen)} sources of a hand: one or two are needed")
        known = sum(np.isfinite(seen.keypoint_sigma_px).sum() for seen in hand.seen)
        if known < 3:
            raise ValueError(f"a {hand.side} hand with {known} keypoints: 3 are needed")
