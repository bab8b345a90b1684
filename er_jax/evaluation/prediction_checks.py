"""Checks that predictions can be meant as they stand: finite, in metres, right hand first, …

A wrong unit or a swapped hand gives numbers as smooth as right ones. So the predictions are also
read in the ways in which exports usually go wrong; where one of these fits the truth much better,
that is said instead of a number that would be believed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from er_jax.evaluation.predictions_file import Predictions, PredictionsError
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HAND21, HANDS, INTERHAND21, MANO16, TIP_VERTICES, HandModel, joint_order
from er_jax.supervision.targets import Targets

MUCH_BETTER = 0.6  # of the error as it stands
FAR_OFF = 8.0  # ratio of sizes beyond which only the unit can be wrong
TOO_NEAR = 300.0  # the same of wrists that are too near, where a poor method may well see them
_WRIST_TO_TIP = (0, 12)  # Wrist and Middle_4: the length of a hand
_OPENGL = np.array([1, -1, -1], np.float32)
# A matrix is none whose R·Rᵀ is that far from 1; halves are off by a third of it.
NO_ROTATION = 5e-3
OTHER_ORDERS = {
    "InterHand2.6M's (tips first, the wrist last)": INTERHAND21,
    "MANO's (index, middle, pinky, ring, thumb, then the tips)": (*MANO16, *TIP_VERTICES),
}
"""Joint orders that exports have; OpenPose's is the Hand 21 order."""


def check_numbers(
    predictions: Predictions, rows: Int[np.ndarray, "B"], hand_present: Bool[np.ndarray, "B 2"]
) -> None:
    """Makes sure that the predictions of hands that are there are numbers, rotations rotations.

    Args:
      rows: of the samples looked at.
      hand_present: which hands each of them has.

    Raises:
      PredictionsError: names the array and samples.
    """
    _check_finite(predictions, rows, hand_present)
    if "rotations" in predictions.arrays:
        _check_rotations(predictions, rows, hand_present)


def _check_finite(
    predictions: Predictions, rows: Int[np.ndarray, "B"], hand_present: Bool[np.ndarray, "B 2"]
) -> None:
    for name, array in predictions.arrays.items():
        finite = np.isfinite(array[rows])
        if name == "rel_trans":
            bad = ~finite.all(-1) & hand_present.all(1)
        else:
            bad = (~finite.reshape(*finite.shape[:2], -1).all(-1) & hand_present).any(1)
        if bad.any():
            ids = predictions.sample_id[rows[bad]]
            raise PredictionsError(
                f"{predictions.path}: `{name}` is NaN or infinite for hands that are in the "
                f"image, of sample_id {', '.join(map(str, ids[:5]))}"
                f"{' and others' if len(ids) > 5 else ''}. A method that found no hand must still "
                "give its best guess, such as the mean hand."
            )


def _check_rotations(
    predictions: Predictions, rows: Int[np.ndarray, "B"], hand_present: Bool[np.ndarray, "B 2"]
) -> None:
    matrices = np.asarray(predictions.arrays["rotations"][rows], np.float64)
    matrices = np.where(hand_present[..., None, None, None], matrices, np.eye(3))
    off = abs(matrices @ np.swapaxes(matrices, -1, -2) - np.eye(3)).max((-2, -1))
    reflected = np.linalg.det(matrices) < 0
    bad = np.argwhere((off > NO_ROTATION) | reflected)
    if not bad.size:
        return
    sample, hand, joint = bad[0].tolist()
    if off[sample, hand, joint] > NO_ROTATION:
        reason = f"R·Rᵀ is off the identity by {off[sample, hand, joint]:.2g}"
        remedy = "Give orthonormal matrices, such as the nearest ones by SVD."
    else:
        reason = "it is a reflection, its determinant -1"
        remedy = (
            "Give rotations. A left hand that was predicted as a mirrored right one has M·R·M with "
            "M = diag(-1, 1, 1)."
        )
    raise PredictionsError(
        f"{predictions.path}: `rotations` at index [{rows[sample]}, {hand}, {joint}] (sample_id "
        f"{predictions.sample_id[rows[sample]]}, {HANDS[hand]} {MANO16[joint]}) is no rotation: "
        f"{reason}. {remedy}"
    )


def check_plausible(
    predictions: Predictions, hands: HandModel, rows: Int[np.ndarray, "B"], truth: Targets
) -> None:
    """Compares some predictions with the truth as they stand and as they might be meant.

    Args:
      hands: both hands.
      rows: the predictions of the samples that `truth` is of.
      truth: host arrays.

    Raises:
      PredictionsError: says what is wrong, by the numbers, and what to do.
    """
    part = _rows(predictions, rows)
    if "pose" in part.arrays:
        _check_radians(part)
    known = _Known.of(part, truth)
    if known.valid.any():
        _check_lengths(part, hands, truth)
        _check_readings(part, hands, known)
    if part.has_rel_trans and np.asarray(truth.rel_trans_valid).any():
        _check_rel_trans(part, hands, truth)
    if "wrists" in part.arrays:
        _check_wrists(part, truth)


class _Known(NamedTuple):
    """What the predicted points are compared with: the fits' vertices, or annotated joints."""

    points: Float[np.ndarray, "N 2 P 3"]  # relative to the wrists
    valid: Bool[np.ndarray, "N 2 P"]

    @classmethod
    def of(cls, predictions: Predictions, truth: Targets) -> "_Known":
        if not predictions.has_meshes:
            return cls(np.asarray(truth.joint_cam), np.asarray(truth.joint_valid))
        vertices = np.asarray(truth.mano_mesh_cam) - np.asarray(truth.mano_joint_cam)[:, :, :1]
        valid = np.asarray(truth.mano_hand_valid)[..., None]
        return cls(vertices, np.broadcast_to(valid, vertices.shape[:-1]))


def _rows(predictions: Predictions, rows: np.ndarray) -> Predictions:
    arrays = {name: np.asarray(array[rows]) for name, array in predictions.arrays.items()}
    return dataclasses.replace(predictions, sample_id=predictions.sample_id[rows], arrays=arrays)


def _reconstructed(predictions: Predictions, hands: HandModel) -> ReconstructedMeshes:
    return predictions.reconstruct(hands, np.arange(len(predictions.sample_id)))


def _check_radians(predictions: Predictions) -> None:
    angles = np.linalg.norm(predictions.arrays["pose"].reshape(-1, 3), axis=-1)
    typical = float(np.nanquantile(angles, 0.99))
    if typical > 4 * np.pi:
        raise PredictionsError(
            f"{predictions.path}: `pose` turns joints by up to {typical:.0f} radians. Give "
            "axis-angle in radians, not in degrees."
        )


def _check_lengths(predictions: Predictions, hands: HandModel, truth: Targets) -> None:
    start, end = _WRIST_TO_TIP
    of_truth, known = truth.joint_cam, np.asarray(truth.joint_valid[..., _WRIST_TO_TIP]).all(-1)
    if predictions.has_meshes:
        of_truth, known = truth.mano_joint_cam, np.asarray(truth.mano_hand_valid)
    if not known.any():
        return

    def length(points: np.ndarray) -> float:
        return float(
            np.median(np.linalg.norm(points[:, :, end] - points[:, :, start], axis=-1)[known])
        )

    own = length(np.asarray(_reconstructed(predictions, hands).joints))
    _check_unit(predictions, "the hands are", own, length(np.asarray(of_truth)))


def _check_unit(
    predictions: Predictions,
    what: str,
    own: float,
    true: float,
    *,
    smaller: float = FAR_OFF,
    remedy: str = "Give metres.",
) -> None:
    if true / smaller <= own <= true * FAR_OFF:
        return
    power = round(float(np.log10(own / true))) if own > 0 else 0
    units = {3: "millimetres", 2: "centimetres", -3: "kilometres"}
    guess = f" They look like {units[power]}." if power in units else ""
    raise PredictionsError(
        f"{predictions.path}: {what} typically {own:.4g} m, those of the truth {true:.4g} m."
        f"{guess} {remedy}"
    )


def _check_readings(predictions: Predictions, hands: HandModel, known: _Known) -> None:
    as_is = _error_mm(predictions, hands, known)
    points = "vertices" if predictions.has_meshes else "joints"
    readings: dict[str, tuple[Callable[[Predictions], Predictions], str]] = {
        "the hands are swapped": (_swapped, "Put the right hand at index 0, the left at 1."),
        "y points up and z backwards (OpenGL)": (
            _opengl,
            "Give camera axes with x right, y down, z forward.",
        ),
    }
    for name in {"pose", "rotations"} & set(predictions.arrays):
        is_in = predictions.pose_includes_mean
        readings[f"the mean pose is {'not ' if is_in else ''}part of `{name}`"] = (
            lambda p: dataclasses.replace(p, pose_includes_mean=not p.pose_includes_mean),
            f"Set `pose_includes_mean` to {not is_in}.",
        )
    if "rotations" in predictions.arrays:
        readings["the rotations are transposed"] = (
            lambda p: _with(p, {"rotations": lambda x: np.swapaxes(x, -1, -2)}),
            "Give matrices that turn columns: R·x.",
        )
    if "joints" in predictions.arrays:
        for order, names in OTHER_ORDERS.items():
            readings[f"the joints are in another order, {order}"] = (
                functools.partial(_reordered, order=joint_order(names, HAND21)),
                f"Give them from the wrist outwards, finger by finger: {', '.join(HAND21)}.",
            )
    errors = {
        reading: _error_mm(change(predictions), hands, known)
        for reading, (change, _) in readings.items()
    }
    best = min(errors, key=lambda reading: errors[reading])
    if errors[best] < MUCH_BETTER * as_is:
        raise PredictionsError(
            f"{predictions.path}: it looks as if {best}: that way the median error of a hand's "
            f"{points} is {errors[best]:.1f} mm, as the file stands {as_is:.1f} mm. "
            f"{readings[best][1]}"
        )


def _check_rel_trans(predictions: Predictions, hands: HandModel, truth: Targets) -> None:
    pairs = np.asarray(truth.rel_trans_valid)
    own = np.asarray(_reconstructed(predictions, hands).rel_trans)[pairs]
    true = np.asarray(truth.rel_trans)[pairs]
    if _typical(own) > 1e-6:  # a constant zero is a poor prediction, and one that can be meant
        lengths = _typical(own), _typical(true)
        _check_unit(predictions, "the wrists are apart", *lengths, smaller=TOO_NEAR)
    as_is, turned = _typical(own - true), _typical(own + true)
    if turned < MUCH_BETTER * as_is:
        raise PredictionsError(
            f"{predictions.path}: it looks as if the relative translation were the right wrist "
            f"minus the left one: that way its median error is {1000 * turned:.1f} mm, as the "
            f"file stands {1000 * as_is:.1f} mm. Give the left wrist minus the right one."
        )


def _typical(vectors: Float[np.ndarray, "N 3"]) -> float:
    return float(np.median(np.linalg.norm(vectors, axis=-1)))


def _check_wrists(predictions: Predictions, truth: Targets) -> None:
    known = np.asarray(truth.wrist_cam_valid) & np.asarray(truth.hand_present)
    if not known.any():
        return
    own, true = predictions.arrays["wrists"][known], np.asarray(truth.wrist_cam)[known]
    remedy = "Give metres, by the focal length of the dataset's camera."
    what = "the wrists are away from the camera"
    _check_unit(predictions, what, _typical(own), _typical(true), remedy=remedy)
    as_is, turned = _typical(own - true), _typical(own * _OPENGL - true)
    if turned < MUCH_BETTER * as_is:
        raise PredictionsError(
            f"{predictions.path}: it looks as if y of `wrists` pointed up and z backwards "
            f"(OpenGL): that way their median error is {1000 * turned:.0f} mm, as the file stands "
            f"{1000 * as_is:.0f} mm. Give camera axes with x right, y down, z forward."
        )


def _error_mm(predictions: Predictions, hands: HandModel, known: _Known) -> float:
    """Median over hands of the mean distance of their points, relative to the wrists."""
    found = _reconstructed(predictions, hands)
    points = found.joints if found.vertices is None else found.vertices
    distance = np.linalg.norm(np.asarray(points) - known.points, axis=-1)
    distance = np.nan_to_num(distance, nan=np.inf)
    count = known.valid.sum(-1)
    mean = distance.sum(-1, where=known.valid)[count > 0] / count[count > 0]
    return float(np.median(mean)) * 1000


def _reordered(predictions: Predictions, order: Int[np.ndarray, "21"]) -> Predictions:
    return _with(predictions, {"joints": lambda x: x[:, :, order]})


def _swapped(predictions: Predictions) -> Predictions:
    per_hand = ("vertices", "joints", "betas", "pose", "rotations", "translation")
    return _with(predictions, {name: lambda x: x[:, ::-1] for name in per_hand})


def _opengl(predictions: Predictions) -> Predictions:
    """For `pose` and `rotations` the same turn of the whole hand, about the x axis."""
    changes = {
        "vertices": lambda x: x * _OPENGL,
        "joints": lambda x: x * _OPENGL,
        "pose": _turned_about_x,
        "rotations": _root_turned_about_x,
    }
    return _with(predictions, changes)


def _root_turned_about_x(rotations: np.ndarray) -> np.ndarray:
    root = _OPENGL[:, None] * rotations[:, :, :1]
    return np.concatenate([root, rotations[:, :, 1:]], axis=2)


def _turned_about_x(pose: np.ndarray) -> np.ndarray:
    """The half turn about x after the root's rotation, as a product of quaternions."""
    root = np.asarray(pose[..., :3], np.float64)
    angle = np.linalg.norm(root, axis=-1, keepdims=True)
    axis = root / np.maximum(angle, 1e-12)
    w, (x, y, z) = np.cos(angle / 2), np.moveaxis(axis * np.sin(angle / 2), -1, 0)
    scalar, vector = -x[..., None], np.stack([w[..., 0], -z, y], axis=-1)
    half = np.arctan2(np.linalg.norm(vector, axis=-1, keepdims=True), scalar)
    length = np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
    return np.concatenate([vector / length * 2 * half, pose[..., 3:]], axis=-1).astype(np.float32)


def _with(
    predictions: Predictions, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]]
) -> Predictions:
    arrays = {
        name: changes[name](array) if name in changes else array
        for name, array in predictions.arrays.items()
    }
    return dataclasses.replace(predictions, arrays=arrays)
