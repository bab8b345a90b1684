"""One evaluated predictor: the errors of its samples, and where they come from."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.summary import select
from er_jax.evaluation.types import (
    CameraSpaceErrors,
    HandErrors,
    Presence,
    SampleAttributes,
    SampleErrors,
)
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import ConfigError

FORMAT = "er_jax errors 2"


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A predictor's errors on a split, sample by sample.

    Attributes:
      name: short, as it stands in tables.
      errors: collected, in the order of `labels`.
      labels: of the same samples.
      provenance: whatever makes two tables comparable: dataset, split, checkpoint step, hash of
          the hand model, source of the boxes, …
    """

    name: str
    errors: SampleErrors
    labels: Labels
    provenance: dict[str, Any]

    @property
    def sample_id(self) -> np.ndarray:
        return np.asarray(self.errors.attributes.sample_id)


def evaluated(
    name: str, errors: SampleErrors, labels: Labels, provenance: dict[str, Any]
) -> Evaluated:
    """Brings the labels into the order of the errors.

    Raises:
      ConfigError: a sample has no label, or two samples have one id.
    """
    ids = np.asarray(errors.attributes.sample_id)
    if len(np.unique(ids)) != len(ids):
        raise ConfigError(f"{name}: {len(ids) - len(np.unique(ids))} sample ids occur twice")
    order = np.argsort(labels.sample_id)
    place = np.searchsorted(labels.sample_id, ids, sorter=order)
    rows = order[np.minimum(place, len(order) - 1)]
    unknown = ids[labels.sample_id[rows] != ids]
    if unknown.size:
        raise ConfigError(
            f"{name}: samples {unknown[:5].tolist()} and {max(unknown.size - 5, 0)} more are not "
            "in the split that the labels are of"
        )
    sources = {value: int(n) for value, n in _counts(labels.box_source[rows]).items()}
    return Evaluated(
        name,
        errors,
        Labels(*(column[rows] for column in dataclasses.astuple(labels))),
        {**provenance, "samples": len(ids), "box_sources": sources},
    )


def rows(predictor: Evaluated, samples: Any) -> Evaluated:
    """The samples of a boolean mask or of indices, in the order given."""
    labels = Labels(*(column[samples] for column in dataclasses.astuple(predictor.labels)))
    return dataclasses.replace(predictor, errors=select(predictor.errors, samples), labels=labels)


def paired(predictors: list[Evaluated]) -> list[Evaluated]:
    """The samples that all predictors have, in one order.

    Raises:
      ConfigError: they have none in common, or were evaluated on different data.
    """
    for field in ("dataset", "split", "part", "hand_model_sha256"):
        values = {predictor.name: predictor.provenance.get(field) for predictor in predictors}
        if len(set(values.values())) > 1:
            raise ConfigError(f"the predictors cannot be compared: their {field} differs: {values}")
    common = predictors[0].sample_id
    for predictor in predictors[1:]:
        common = np.intersect1d(common, predictor.sample_id)
    if not common.size:
        raise ConfigError(
            f"{[predictor.name for predictor in predictors]} have no sample in common"
        )
    common = np.sort(common)
    result = []
    for predictor in predictors:
        order = np.argsort(predictor.sample_id)
        result.append(
            rows(predictor, order[np.searchsorted(predictor.sample_id, common, sorter=order)])
        )
    return result


def save_errors(path: Path, predictor: Evaluated) -> None:
    """Writes the errors of every sample as a compressed `.npz`, for later comparisons."""
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(value)
        for key, value in jax.tree.leaves_with_path(predictor.errors)
    }
    arrays |= {f"labels/{k}": v for k, v in vars(predictor.labels).items()}
    metadata = {"format": FORMAT, "name": predictor.name, "provenance": predictor.provenance}
    arrays["metadata"] = np.array(json.dumps(metadata))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_errors(path: Path) -> Evaluated:
    """Reads what `save_errors` wrote.

    Raises:
      ConfigError: the file is of another kind, or of an earlier version.
    """
    with np.load(path) as file:
        metadata = json.loads(str(file["metadata"])) if "metadata" in file else {}
        if metadata.get("format") != FORMAT:
            raise ConfigError(
                f"{path} is no file of errors ({FORMAT}), as a report leaves beside it, but "
                f"{metadata.get('format', 'something else')!r}: evaluate again and take the new one"
            )
        arrays = {name: file[name] for name in file.files}

    def part(kind: type, prefix: str, **others: Any) -> Any:
        fields = {f.name: arrays.get(f"{prefix}{f.name}") for f in dataclasses.fields(kind)}
        return kind(**{**fields, **others})

    def part_or_none(kind: type, prefix: str) -> Any:
        return part(kind, prefix) if any(name.startswith(prefix) for name in arrays) else None

    errors = part(
        SampleErrors,
        "",
        wrist_aligned=part(HandErrors, "wrist_aligned/"),
        scale_aligned=part(HandErrors, "scale_aligned/"),
        procrustes=part(HandErrors, "procrustes/"),
        camera_space=part_or_none(CameraSpaceErrors, "camera_space/"),
        presence=part_or_none(Presence, "presence/"),
        attributes=part(SampleAttributes, "attributes/"),
    )
    return Evaluated(metadata["name"], errors, part(Labels, "labels/"), metadata["provenance"])


def file_name(name: str) -> str:
    """A predictor's name as a file or folder can have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-.") or "method"


def _counts(values: np.ndarray) -> dict[str, int]:
    return dict(zip(*(x.tolist() for x in np.unique(values, return_counts=True)), strict=True))
