"""From pictures to the hands of all persons in them: detection, network and fit put together."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_pipeline.boxes import joint_boxes
from er_jax.detection import DetectedHand, Detector, pair_people
from er_jax.detection import Person as DetectedPerson
from er_jax.evaluation.calibration import Calibration
from er_jax.evaluation.types import PRESENT
from er_jax.fitting.fitter import (
    FittedHand,
    Fitter,
    HandEvidence,
    Observation,
    PersonEvidence,
)
from er_jax.inference.boxes import Box, square_box
from er_jax.mano import HANDS, HandModel
from er_jax.photographs.photograph import (
    Photograph,
    PhotographCamera,
    Picture,
    camera_of,
    photograph_of,
)
from er_jax.photographs.result import Hand, Person, Reconstruction
from er_jax.utils.errors import ConfigError

if TYPE_CHECKING:  # see `load`
    from er_jax.inference.pipeline import Pipeline, TwoHands

# Standard deviations of what is known, those in the picture as shares of the hand's box. Chosen on
# the validation split of the drawn stand-in dataset.
KEYPOINT_SIGMA = 0.03
OUTSIDE_FACTOR = 3.0  # for keypoints outside the picture, which the detector guesses
LEAST_SIGMA_PX = 0.7
DETECTED_JOINT_SIGMA_M = 0.025
NETWORK_ERROR_M = 0.02
"""Of a network's joints, where its validation does not tell."""
HANDS_SHOWN = ("present", "both")
Starts = Mapping[str, Float[np.ndarray, "16 3 3"]]
# Per metre of the network's error.
KEYPOINT_SIGMA_PER_M = 15.0
ANGLE_SIGMA_PER_M = 20.0
REL_TRANS_SIGMA_PER_M = 3.0
NETWORK_BETAS_SIGMA = 0.7
ALONE = 0.05  # of these where nothing but the network is known: its hands stay as they are
SMALL_HAND_PX = 24.0
EXPLAINED = 0.07  # of the box: mean distance from the keypoints up to which they are explained
UNSURE_SIDE = 0.7


@dataclasses.dataclass(frozen=True)
class _Found:
    """A person of one of the pictures, with what each part says of it."""

    picture: int
    detected: DetectedPerson | None
    network: "TwoHands | None" = None
    hands: str = "present"

    @property
    def presence(self) -> tuple[float, ...] | None:
        """Of each hand by the network; None where it does not say it."""
        said = None if self.network is None else self.network.presence
        return None if said is None else tuple(said.tolist())

    @property
    def sides(self) -> tuple[int, ...]:
        if self.detected is not None:
            return tuple(HANDS.index(hand.side) for hand in self.detected.hands)
        return tuple(side for side in (0, 1) if self.hands == "both" or self.is_present(side))

    def is_present(self, side: int) -> bool:
        return self.hand(side) is not None or self.presence is None or self.presence[side] > PRESENT

    def hand(self, side: int) -> DetectedHand | None:
        return None if self.detected is None else getattr(self.detected, HANDS[side])


class Engine:
    """Reconstructs the hands in pictures.

    Args:
      hands: both hand models.
      detector: finds hands; None: boxes must be given with the pictures.
      network: sees each person's two hands, and its reconstruction enters the fit; None: the fit
        follows the detector's keypoints alone.
      fit_keypoints: False: the hands are the network's, put where it sees them.
      network_error_m: standard deviation of the network's joints, metres: how much it is believed.
      confidence: of the network's joints, by its heatmaps; None: all are off by the same.
      hands_shown: of a picture with a box: "present", those that the network says are there, or
        "both".
      weights_sha256: of the network.

    Raises:
      ConfigError: `hands_shown` is neither.
    """

    def __init__(
        self,
        hands: HandModel,
        *,
        detector: Detector | None,
        network: "Pipeline | None" = None,
        fit_keypoints: bool = True,
        network_error_m: float = NETWORK_ERROR_M,
        confidence: Calibration | None = None,
        hands_shown: str = "present",
        weights_sha256: str | None = None,
    ):
        if hands_shown not in HANDS_SHOWN:
            raise ConfigError(f"hands={hands_shown!r}: choose present or both")
        self._hands = hands
        self._faces = np.asarray(hands.faces)
        self._detector = detector
        self._network = network
        self._fitter = Fitter(hands)
        self._fit_keypoints = fit_keypoints
        self._network_error_m = network_error_m
        self._confidence = confidence
        self._hands_shown = hands_shown
        self.weights_sha256 = weights_sha256

    @property
    def has_network(self) -> bool:
        """Says whether pictures are looked at, and not only their detections."""
        return self._network is not None

    @property
    def hand_model(self) -> HandModel:
        """Both hand models."""
        return self._hands

    def __call__(
        self, picture: Picture | Photograph, box: Box | None = None, **options: Any
    ) -> Reconstruction:
        """The hands of one picture; see `many`."""
        return self.many([picture], None if box is None else [box], **options)[0]

    def many(
        self,
        pictures: Sequence[Picture | Photograph],
        boxes: Sequence[Box] | None = None,
        *,
        detections: Sequence[list[DetectedHand]] | None = None,
        starts: Sequence[Starts] | None = None,
        focal_px: float | tuple[float, float] | None = None,
        principal_point_px: tuple[float, float] | None = None,
    ) -> list[Reconstruction]:
        """The hands of several pictures, as batches.

        Args:
          pictures: paths, RGB arrays or Pillow images, of any sizes.
          boxes: x, y, width, height around both hands of each picture, for the network alone; None:
            hands are detected.
          detections: the hands of each picture, found before; None: they are detected.
          starts: for each picture, rotations (16, 3, 3) of its hands by side to start the fit from,
            as `Hand.rotations` of a picture just before; with one person a picture.
          focal_px: of the pictures' camera, one number or (x, y); None: see `camera_of`.
          principal_point_px: x, y; None: the picture's middle.

        Raises:
          BadImageError: a picture cannot be read.
          ConfigError: boxes without a network, or one that has no area or lies outside its picture.
        """
        if isinstance(pictures, str | np.ndarray) or not isinstance(pictures, Sequence):
            raise ConfigError(
                f"many() takes a list of pictures, not one {type(pictures).__name__}: call the "
                "engine itself with one picture"
            )
        started = time.monotonic()
        photographs = [photograph_of(picture) for picture in pictures]
        cameras = [camera_of(one, focal_px, principal_point_px) for one in photographs]
        found, squares = self._persons(photographs, boxes, detections)
        found = self._with_network(photographs, found, squares)
        absent = {one.picture for one in found if not one.sides}
        found = [one for one in found if one.sides]
        started_from = [{}] * len(photographs) if starts is None else starts
        evidence = [self._evidence(one, photographs, cameras, started_from) for one in found]
        fitted = self._fitter(evidence)
        seconds = (time.monotonic() - started) / max(len(photographs), 1)
        results = []
        for index, (photograph, camera) in enumerate(zip(photographs, cameras, strict=True)):
            own = [
                (one, hands)
                for one, hands in zip(found, fitted, strict=True)
                if one.picture == index
            ]
            persons = tuple(self._person(one, hands, camera) for one, hands in own)
            results.append(
                Reconstruction(
                    photograph=photograph,
                    camera=camera,
                    persons=persons,
                    faces=self._faces,
                    messages=_messages(photograph, camera, persons, index in absent),
                    hand_model=self._hands.source,
                    seconds=seconds,
                )
            )
        return results

    def _persons(
        self,
        photographs: Sequence[Photograph],
        boxes: Sequence[Box] | None,
        detections: Sequence[list[DetectedHand]] | None,
    ) -> tuple[list[_Found], list[Float[np.ndarray, "4"]]]:
        """The persons of all pictures, and the square around the hands of each."""
        found, squares = [], []
        if boxes is not None:
            if self._network is None:
                raise ConfigError("a box is for a trained network: give its weights too")
            if len(boxes) != len(photographs):
                raise ConfigError(
                    f"{len(boxes)} boxes for {len(photographs)} pictures: one each, in their order"
                )
            for index, (photograph, box) in enumerate(zip(photographs, boxes, strict=True)):
                found.append(_Found(index, None, hands=self._hands_shown))
                squares.append(_inside(square_box(box), box, photograph))
            return found, squares
        if detections is None:
            if self._detector is None:
                raise ConfigError("without a detector a box must be given with each picture")
            detections = [self._detector(photograph.pixels) for photograph in photographs]
        for index, (photograph, hands) in enumerate(zip(photographs, detections, strict=True)):
            for person in pair_people(hands):
                found.append(_Found(index, person))
                squares.append(_square_around(person, photograph))
        return found, squares

    def _with_network(
        self,
        photographs: Sequence[Photograph],
        found: Sequence[_Found],
        squares: Sequence[Float[np.ndarray, "4"]],
    ) -> list[_Found]:
        if self._network is None or not found:
            return list(found)
        images = [photographs[one.picture].pixels for one in found]
        seen = self._network.many(images, [square.tolist() for square in squares])
        return [dataclasses.replace(one, network=two) for one, two in zip(found, seen, strict=True)]

    def _evidence(
        self,
        found: _Found,
        photographs: Sequence[Photograph],
        cameras: Sequence[PhotographCamera],
        starts: Sequence[Starts],
    ) -> PersonEvidence:
        camera = cameras[found.picture]
        size_px = photographs[found.picture].size_px
        own = starts[found.picture]
        hands = tuple(
            dataclasses.replace(
                self._hand_evidence(found, side, size_px), start=own.get(HANDS[side])
            )
            for side in found.sides
        )
        rel_trans = None
        if found.network is not None and len(hands) == 2:
            rel_trans = np.asarray(found.network.prediction.rel_trans)
        return PersonEvidence(
            hands=hands,
            camera=camera.projection,
            rel_trans_m=rel_trans,
            rel_trans_sigma_m=REL_TRANS_SIGMA_PER_M * self._network_error_m,
        )

    def _hand_evidence(self, found: _Found, side: int, size_px: tuple[int, int]) -> HandEvidence:
        seen = []
        detected = found.hand(side) if self._fit_keypoints else None
        if detected is not None:
            seen.append(_of_detector(detected, size_px))
        if found.network is None:
            return HandEvidence(HANDS[side], tuple(seen))
        share = ALONE if detected is None else 1.0
        error_m = self._network_error_m
        scale = 1.0 if self._confidence is None else self._confidence.depth_scale
        seen.append(_of_network(found.network, side, error_m, share, scale))
        prediction = found.network.prediction
        return HandEvidence(
            side=HANDS[side],
            seen=tuple(seen),
            pose=np.asarray(prediction.pose[side]),
            pose_sigma=share * ANGLE_SIGMA_PER_M * error_m,
            betas=np.asarray(prediction.betas[side]),
            betas_sigma=share * NETWORK_BETAS_SIGMA,
        )

    def _network_sigma_m(self, found: "TwoHands", side: int) -> Float[np.ndarray, "21"]:
        if self._confidence is None:
            return np.full(21, self._network_error_m)
        return self._confidence.sigma_mm(np.asarray(found.prediction.joint_spread[side])) / 1000

    def _person(
        self, found: _Found, fitted: tuple[FittedHand, ...], camera: PhotographCamera
    ) -> Person:
        hands = {one.side: self._hand(found, one, camera) for one in fitted}
        return Person(**hands, network=found.network)

    def _hand(self, found: _Found, fitted: FittedHand, camera: PhotographCamera) -> Hand:
        side = HANDS.index(fitted.side)
        detected = found.hand(side)
        presence = None if found.presence is None else found.presence[side]
        keypoints = camera.projection.project(fitted.joints)
        if detected is None:
            low, high = keypoints.min(0), keypoints.max(0)
            box = np.concatenate([low, high - low])
        else:
            box = np.asarray(detected.box_px)
        full = Rotation.from_matrix(fitted.rotations).as_rotvec().reshape(48)
        mean = np.concatenate([np.zeros(3), np.asarray(self._hands.mean_pose[side])])
        source = (
            "network"
            if detected is None or not self._fit_keypoints
            else "both"
            if found.network
            else "fit"
        )
        sigma_m = fitted.joint_sigma_m
        if source == "network" and found.network is not None:
            # The fit left the network's hand as it is and knows nothing better.
            sigma_m = self._network_sigma_m(found.network, side)
        return Hand(
            side=fitted.side,
            present=found.is_present(side),
            source=source,
            score=presence if detected is None else float(detected.score),
            side_probability=None if detected is None else float(detected.side_probability),
            vertices=fitted.vertices,
            joints=fitted.joints,
            joint_sigma_m=sigma_m,
            depth_sigma_m=fitted.place_sigma_m,
            keypoints_px=keypoints,
            detected_px=None if detected is None else np.asarray(detected.keypoints_px),
            detected_confidence=None if detected is None else np.asarray(detected.confidence),
            box_px=box,
            reprojection_px=fitted.reprojection_px,
            explained=fitted.reprojection_px <= EXPLAINED * max(float(box[2:].max()), 1.0),
            betas=fitted.betas,
            rotations=fitted.rotations,
            pose=full - mean,
            full_pose=full,
            transl=fitted.transl,
        )


def _of_detector(hand: DetectedHand, size_px: tuple[int, int]) -> Observation:
    side = float(np.max(hand.box_px[2:]))
    confidence = np.clip(np.asarray(hand.confidence, np.float64), 0.0, 1.0)
    keypoints = np.asarray(hand.keypoints_px, np.float64)
    outside = ((keypoints < -0.5) | (keypoints > np.array(size_px) - 0.5)).any(-1)
    with np.errstate(divide="ignore"):
        sigma = max(KEYPOINT_SIGMA * side, LEAST_SIGMA_PX) / confidence
    sigma = np.where(outside, OUTSIDE_FACTOR * sigma, sigma)
    if hand.joints_m is None:
        return Observation(keypoints, sigma)
    return Observation(keypoints, sigma, hand.joints_m, np.full(21, DETECTED_JOINT_SIGMA_M))


def _of_network(
    found: "TwoHands", side: int, error_m: float, share: float, depth_scale: float
) -> Observation:
    """What the network sees of a hand, its keypoints drawn apart as its validation says.

    See `er_jax.models.place.place_hands` of `depth_scale`.
    """
    prediction = found.prediction
    keypoints = found.keypoints_px[side]
    middle = keypoints.mean(axis=0)
    keypoints = middle + (keypoints - middle) / depth_scale
    size = float(np.ptp(keypoints, axis=0).max())
    sigma = np.full(21, max(KEYPOINT_SIGMA_PER_M * error_m * size, LEAST_SIGMA_PX))
    joints = np.asarray(prediction.joints[side], np.float64)
    return Observation(keypoints, sigma, joints, np.full(21, share * error_m))


def _square_around(person: DetectedPerson, photograph: Photograph) -> Float[np.ndarray, "4"]:
    """The square that the network is trained to see: around the joints of both hands."""
    points = np.zeros((1, 2, 21, 2))
    known = np.zeros((1, 2, 21), bool)
    for hand in person.hands:
        side = HANDS.index(hand.side)
        keypoints = np.asarray(hand.keypoints_px)
        known[0, side] = np.isfinite(keypoints).all(-1)
        points[0, side] = np.where(known[0, side, :, None], keypoints, 0.0)
    boxes, _ = joint_boxes(points, known, np.array([photograph.size_px]))
    return square_box(np.maximum(boxes[0], [-np.inf, -np.inf, 1.0, 1.0]))


def _inside(
    square: Float[np.ndarray, "4"], box: Box, photograph: Photograph
) -> Float[np.ndarray, "4"]:
    x, y, width, height = box
    if (
        x >= photograph.size_px[0]
        or y >= photograph.size_px[1]
        or x + width <= 0
        or y + height <= 0
    ):
        size = "×".join(map(str, photograph.size_px))
        raise ConfigError(f"box {tuple(box)} lies outside the picture of {size} pixels")
    return square


def _messages(
    photograph: Photograph, camera: PhotographCamera, persons: Sequence[Person], absent: bool
) -> tuple[str, ...]:
    """What a user should know before the result is trusted."""
    said = []
    if photograph.images_in_file > 1:
        said.append(f"the first of {photograph.images_in_file} images in the file, the others not")
    hands = [(number, hand) for number, one in enumerate(persons, 1) for hand in one.hands]
    if absent:
        said.append("the network sees no hand in the box; --hands=both shows its guess")
    if not hands:
        return (*said, "no hand was found")
    if camera.doubt:
        said.append(camera.doubt)
    for number, hand in hands:
        name = f"person {number}, {hand.side} hand"
        longer = float(hand.box_px[2:].max())
        if longer < SMALL_HAND_PX:
            said.append(f"{name}: {longer:.0f} px large, too small to be trusted")
        if not hand.present:
            said.append(f"{name}: the network says that it is not there")
        if not hand.explained:
            said.append(
                f"{name}: no hand can lie as its keypoints say ({hand.reprojection:.0%} of its "
                "size off)"
                if hand.detected_px is not None
                else f"{name}: the network's mesh and its heatmaps are {hand.reprojection:.0%} of "
                "its size apart"
            )
        if hand.side_probability is not None and hand.side_probability < UNSURE_SIDE:
            other = 1 - hand.side_probability
            said.append(f"{name}: it may be the other side's ({other:.0%} by the detector)")
    return tuple(said)
