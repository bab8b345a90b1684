"""Checks that predictions can be meant as they stand: finite, in metres, right hand first, …

A wrong unit or a swapped hand gives numbers as smooth as right ones. So the predictions are also
read in the ways in which exports usually go wrong; where one of these fits the truth much better,
that is said instead of a number that would be believed.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from er_jax.evaluation.predictions_file import Predictions, PredictionsError
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HandModel
from er_jax.supervision.targets import Targets

MUCH_BETTER = 0.6  # of the error as it stands
FAR_OFF = 8.0  # ratio of sizes beyond which only the unit can be wrong
TOO_NEAR = 300.0  # the same of wrists that are too near, where a poor method may well see them
_WRIST_TO_TIP = (0, 12)  # Wrist and Middle_4: the length of a hand
_OPENGL = np.array([1, -1, -1], np.float32)


def check_finite(
    predictions: Predictions, rows: Int[np.ndarray, "B"], hand_present: Float[np.ndarray, "B 2"]
) -> None:
    """Makes sure that the predictions of hands that are there are numbers.

    Args:
      rows: of the samples looked at.
      hand_present: which hands each of them has.

    Raises:
      PredictionsError: names the array and samples.
    """
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
    fits = np.asarray(truth.mano_hand_valid)
    pairs = np.asarray(truth.rel_trans_valid)
    if fits.any():
        _check_lengths(part, hands, truth, fits)
        _check_readings(part, hands, truth, fits)
    if part.has_rel_trans and pairs.any():
        _check_rel_trans(part, hands, truth, pairs)


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


def _check_lengths(
    predictions: Predictions, hands: HandModel, truth: Targets, fits: np.ndarray
) -> None:
    joints = np.asarray(_reconstructed(predictions, hands).joints)
    start, end = _WRIST_TO_TIP

    def length(points: np.ndarray) -> float:
        return float(
            np.median(np.linalg.norm(points[:, :, end] - points[:, :, start], axis=-1)[fits])
        )

    own, true = length(joints), length(np.asarray(truth.mano_joint_cam))
    _check_unit(predictions, "the hands are", own, true)


def _check_unit(
    predictions: Predictions, what: str, own: float, true: float, smaller: float = FAR_OFF
) -> None:
    if true / smaller <= own <= true * FAR_OFF:
        return
    power = round(float(np.log10(own / true))) if own > 0 else 0
    units = {3: "millimetres", 2: "centimetres", -3: "kilometres"}
    guess = f" They look like {units[power]}." if power in units else ""
    raise PredictionsError(
        f"{predictions.path}: {what} typically {own:.4g} m, those of the truth {true:.4g} m."
        f"{guess} Give metres."
    )


def _check_readings(
    predictions: Predictions, hands: HandModel, truth: Targets, fits: np.ndarray
) -> None:
    as_is = _mesh_error_mm(predictions, hands, truth, fits)
    readings: dict[str, tuple[Callable[[Predictions], Predictions], str]] = {
        "the hands are swapped": (_swapped, "Put the right hand at index 0, the left at 1."),
        "y points up and z backwards (OpenGL)": (
            _opengl,
            "Give camera axes with x right, y down, z forward.",
        ),
    }
    if "pose" in predictions.arrays:
        is_in = predictions.pose_includes_mean
        readings[f"the mean pose is {'not ' if is_in else ''}part of `pose`"] = (
            lambda p: dataclasses.replace(p, pose_includes_mean=not p.pose_includes_mean),
            f"Set `pose_includes_mean` to {not is_in}.",
        )
    for reading, (change, remedy) in readings.items():
        error = _mesh_error_mm(change(predictions), hands, truth, fits)
        if error < MUCH_BETTER * as_is:
            raise PredictionsError(
                f"{predictions.path}: it looks as if {reading}: that way the median error of a "
                f"hand's vertices is {error:.1f} mm, as the file stands {as_is:.1f} mm. {remedy}"
            )


def _check_rel_trans(
    predictions: Predictions, hands: HandModel, truth: Targets, pairs: np.ndarray
) -> None:
    own = np.asarray(_reconstructed(predictions, hands).rel_trans)[pairs]
    true = np.asarray(truth.rel_trans)[pairs]

    def length(vectors: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(vectors, axis=-1)))

    if length(own) > 1e-6:  # a constant zero is a poor prediction, and one that can be meant
        _check_unit(predictions, "the wrists are apart", length(own), length(true), TOO_NEAR)
    as_is, turned = length(own - true), length(own + true)
    if turned < MUCH_BETTER * as_is:
        raise PredictionsError(
            f"{predictions.path}: it looks as if the relative translation were the right wrist "
            f"minus the left one: that way its median error is {1000 * turned:.1f} mm, as the "
            f"file stands {1000 * as_is:.1f} mm. Give the left wrist minus the right one."
        )


def _mesh_error_mm(
    predictions: Predictions, hands: HandModel, truth: Targets, fits: np.ndarray
) -> float:
    """Median over hands of the mean vertex distance, relative to the wrists."""
    vertices = np.asarray(_reconstructed(predictions, hands).vertices)
    true = np.asarray(truth.mano_mesh_cam) - np.asarray(truth.mano_joint_cam)[:, :, :1]
    distance = np.linalg.norm(vertices - true, axis=-1).mean(-1)[fits]
    return float(np.median(np.nan_to_num(distance, nan=np.inf))) * 1000


def _swapped(predictions: Predictions) -> Predictions:
    per_hand = ("vertices", "betas", "pose", "translation")
    return _with(predictions, {name: lambda x: x[:, ::-1] for name in per_hand})


def _opengl(predictions: Predictions) -> Predictions:
    """For `pose` the same turn of the whole hand, about the x axis."""
    return _with(predictions, {"vertices": lambda x: x * _OPENGL, "pose": _turned_about_x})


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
