"""FreiHAND's own protocol, as its server counts, and the file that the server takes.

By `eval.py` and `pred.py` of github.com/lmb-freiburg/freihand. What differs from `procrustes`:

- Joints are FreiHAND's (`er_jax.mano.freihand`), all 21 of them, wherever they lie.
- Joints are aligned by joints, vertices by vertices, both of the right hand, and the alignment may
  mirror: of a poor prediction it makes a better one.
- The same is also counted without any alignment, in the camera's metres.
- AUC is the area under the share of points within a distance, of 100 distances from 0 to 50 mm, by
  the trapezoidal rule.

Its server prints centimetres; here they are millimetres, as everywhere.
"""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from data_pipeline.annotated_split import AnnotatedSplit, Sample
from data_pipeline.datasets import REPORT
from er_jax.evaluation.alignment import f_score
from er_jax.evaluation.summary import NOTHING, SUBSETS
from er_jax.evaluation.types import F_SCORE_THRESHOLDS_MM
from er_jax.mano import HandModel, mano_forward
from er_jax.mano.freihand import freihand_bones, freihand_joints
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import ConfigError, DataError

DATASET = "freihand"
PROTOCOL = "freihand"
SUBMISSION = "pred.json"
AUC_THRESHOLDS_M = np.linspace(0, 0.05, 100)
_TINY = 1e-8  # a hand without extent stays a point
_AT_ONCE = 64

Points = Float[np.ndarray, "N points 3"]
Numbers = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class RightHands:
    """Right hands in the camera's metres.

    Attributes:
      sample_id: annotation ids, which are the numbers of the pictures.
      joints: FreiHAND's.
      vertices: the meshes.
    """

    sample_id: Int[np.ndarray, "N"]
    joints: Float[np.ndarray, "N 21 3"]
    vertices: Float[np.ndarray, "N 778 3"]


def is_freihand(dataset: str) -> bool:
    """Returns whether a dataset's name, with or without its config, is FreiHAND's."""
    return dataset.partition("/")[0] == DATASET


def predicted_hands(hands: HandModel, parameters: Mapping[str, np.ndarray]) -> RightHands:
    """The right hands that a network's parameters stand for, in the order of their ids.

    Args:
      hands: both hands.
      parameters: of `er_jax.evaluation.evaluate.Walk`.
    """
    right = hands.hand("right")
    order = np.argsort(parameters["sample_id"])
    joints, vertices = [], []
    for start in range(0, len(order), _AT_ONCE):
        rows = order[start : start + _AT_ONCE]
        betas, pose, wrist = (parameters[n][rows, 0] for n in ("betas", "pose", "wrists"))
        mesh = mano_forward(right, betas, pose)
        place = (wrist - np.asarray(mesh.joints)[:, 0])[:, None]
        vertices.append(np.asarray(mesh.vertices) + place)
        joints.append(freihand_joints(freihand_bones(right, betas, pose) + place, vertices[-1]))
    ids = np.asarray(parameters["sample_id"])[order]
    return RightHands(ids, np.concatenate(joints), np.concatenate(vertices))


def freihand_numbers(predicted: RightHands, split: AnnotatedSplit, hands: HandModel) -> Numbers:
    """Metric → subset → {value, count} under FreiHAND's protocol; see `er_jax.evaluation.summary`.

    All samples are of single hands, and stand under `all`. `PA-` is after the alignment; `AUC-J` is
    of joints, `AUC-V` of vertices.

    Raises:
      DataError: a sample of the split was not predicted.
    """
    right = hands.hand("right")
    tables: list[dict[str, np.ndarray]] = []
    for batch in dataclasses.replace(split, batch_size=_AT_ONCE):
        rows = _rows_of(predicted, batch["annotation_id"])
        true_joints, joints_known = _true_joints(batch)
        true_vertices, mesh_known = _true_vertices(batch, right)
        of_joints = _distances(predicted.joints[rows], true_joints, "J", "MPJPE")
        of_mesh = _distances(predicted.vertices[rows], true_vertices, "V", "MPVPE")
        of_mesh |= _f_scores(predicted.vertices[rows], true_vertices)
        real = batch["sample_mask"]
        tables.append(
            {name: x[real & joints_known] for name, x in of_joints.items()}
            | {name: x[real & mesh_known] for name, x in of_mesh.items()}
        )
    joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
    return {name: _of_all(values) for name, values in joined.items()}


def write_submission(path: Path, predicted: RightHands, split: AnnotatedSplit) -> None:
    """Writes the zip file that FreiHAND's server takes: `pred.json`, [joints, vertices].

    Of each picture, in the order of the evaluation's, 21 joints and 778 vertices, in metres,
    rounded to a thousandth of a millimetre.

    Raises:
      ConfigError: the split is not FreiHAND's evaluation.
      DataError: pictures of it are not among the predicted.
    """
    check_submittable(split)
    report = json.loads((split.folder / REPORT).read_text())
    count = report["splits"][split.split]["counts"]["annotations"]
    missing = np.setdiff1d(np.arange(count), predicted.sample_id)
    if missing.size:
        raise DataError(
            f"{path}: not written, for {missing.size} of {count} pictures of the evaluation were "
            f"not predicted, such as {missing[0]:08d}.jpg. The server wants them all: build the "
            "dataset from the whole folder."
        )
    parts = (
        b",".join(
            msgspec.json.encode(np.round(np.asarray(hand, float), 6).tolist()) for hand in part
        )
        for part in (predicted.joints, predicted.vertices)
    )
    data = b"[[" + b"],[".join(parts) + b"]]"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(SUBMISSION, data)


def check_submittable(split: AnnotatedSplit) -> None:
    """Makes sure that a split is the one that FreiHAND's server evaluates.

    Raises:
      ConfigError: it is another one.
    """
    if not is_freihand(split.dataset) or split.split != "test":
        raise ConfigError(
            f"--submission is for FreiHAND's evaluation, not for split {split.split!r} of "
            f"{split.dataset}: evaluate with --config.data.dataset=freihand/all --split=test"
        )


def aligned(points: Points, truth: Points) -> Points:
    """The points moved onto the truth by the best similarity, which may mirror."""
    centre = truth.mean(1, keepdims=True)
    points, truth = points - points.mean(1, keepdims=True), truth - centre
    extent, true_extent = (
        np.linalg.norm(x, axis=(1, 2), keepdims=True) + _TINY for x in (points, truth)
    )
    covariance = np.swapaxes(truth / true_extent, 1, 2) @ (points / extent)
    u, singular, vt = np.linalg.svd(covariance)
    scale = singular.sum(-1)[:, None, None] * true_extent / extent
    return points @ np.swapaxes(u @ vt, 1, 2) * scale + centre


def _distances(points: Points, truth: Points, letter: str, name: str) -> dict[str, np.ndarray]:
    """Means over a hand's points, as they stand and aligned."""
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    as_is = np.linalg.norm(points - truth, axis=-1)
    after = np.linalg.norm(aligned(points, truth) - truth, axis=-1)
    return {
        f"PA-{name}": after.mean(-1) * 1000,
        f"PA-AUC-{letter}": _area(after).mean(-1),
        name: as_is.mean(-1) * 1000,
        f"AUC-{letter}": _area(as_is).mean(-1),
    }


def _area(distances: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The area under the curve of one point: 0 before its distance, 1 from there on.

    The curve of many points is the mean of theirs, and its area the mean of their areas.
    """
    thresholds = AUC_THRESHOLDS_M
    within = len(thresholds) - np.searchsorted(thresholds, distances)
    ends = (distances <= thresholds[0]).astype(float) + (distances <= thresholds[-1])
    return (within - ends / 2) / (len(thresholds) - 1)


def _f_scores(points: Points, truth: Points) -> dict[str, np.ndarray]:
    points, truth = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    found = {}
    for prefix, moved in (("PA-", aligned(points, truth)), ("", points)):
        centre = truth.mean(1, keepdims=True)  # small numbers, since what follows is in float32
        pair = (1000 * np.swapaxes(x - centre, 1, 2) for x in (moved, truth))
        scores = np.asarray(_compiled_f_score(*map(jnp.float32, pair)))
        for index, threshold in enumerate(F_SCORE_THRESHOLDS_MM):
            found[f"{prefix}F@{threshold:g}"] = scores[:, index]
    return found


_compiled_f_score = jax.jit(functools.partial(f_score, thresholds=F_SCORE_THRESHOLDS_MM))


def _true_joints(batch: Sample) -> tuple[Points, Bool[np.ndarray, "N"]]:
    return batch["joint_world_mm"][:, 0] / 1000, batch["joint_valid_world"][:, 0].all(-1)


def _true_vertices(batch: Sample, right: HandModel) -> tuple[Points, Bool[np.ndarray, "N"]]:
    """The meshes that the records hold, else those of MANO's parameters."""
    betas, pose, place = (batch[n][:, 0] for n in ("mano_betas", "mano_pose", "mano_trans_m"))
    of_fit, known = (
        np.asarray(mano_forward(right, betas, pose, place).vertices),
        batch["mano_valid"],
    )
    known = known[:, 0].astype(bool)
    if "mano_vertices_m" not in batch:
        return of_fit, known
    given = batch["mano_vertices_valid"][:, 0].astype(bool)
    vertices = np.where(given[:, None, None], batch["mano_vertices_m"][:, 0], of_fit)
    return vertices, given | known


def _rows_of(predicted: RightHands, ids: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    rows = np.searchsorted(predicted.sample_id, ids).clip(max=len(predicted.sample_id) - 1)
    missing = ids[predicted.sample_id[rows] != ids]
    if missing.size:
        raise DataError(f"sample {missing[0]} of the split was not predicted")
    return rows


def _of_all(values: np.ndarray) -> dict[str, Any]:
    numbers = dict.fromkeys(SUBSETS, NOTHING)
    if len(values):
        numbers["all"] = {"value": float(values.mean(dtype=np.float64)), "count": len(values)}
    return numbers
