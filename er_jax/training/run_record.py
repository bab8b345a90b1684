"""Run records say which run a checkpoint belongs to, and decide whether a run may go on from it."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.datasets import dataset_versions
from er_jax.evaluation.calibration import Calibration
from er_jax.mano import HandModel, hand_model_identity
from er_jax.supervision.loaders import training_datasets
from er_jax.utils.errors import ConfigError
from er_jax.utils.provenance import code_version

Record = Mapping[str, Any]
"""Plain JSON: the run's `config`, its `environment`, by what it is validated, and the scores."""

# Config fields that may differ between the parts of one run: they change where it reads, how long
# it lasts and what it reports, not what a step computes. (The epochs do where the learning rate
# follows from them, see `check_same_run`.)
RESUMABLE_FIELDS = (
    *("data_dir", "mano_dir", "init_from", "init_parts", "epochs"),
    *("log_every_steps", "stuck_after_s", "nonfinite_updates_limit", "validation", "checkpoint"),
)
RESUMABLE_DATA_FIELDS = ("workers", "validation_split", "test_split")
# Fields of the network's config that change how it starts or computes, not what it is.
NOT_THE_NETWORK = (
    "backbone_weights",
    "backbone_init",
    "embedding_std",
    "precision",
    "remat_backbone",
)


class RunMismatchError(ConfigError):
    """A checkpoint belongs to another run than the one that is to go on from it."""


def run_record(
    config: ConfigDict,
    environment: Mapping[str, Any] | None = None,
    validated_by: str | None = None,
) -> dict[str, Any]:
    """The record of a run that was not validated yet.

    Args:
      config: of the run.
      environment: see the function of that name.
      validated_by: the metric and the split of its scores.
    """
    return {
        "config": json.loads(config.to_json_best_effort()),
        "environment": dict(environment or {}),
        "validated_by": validated_by,
        "validation": [],
    }


def validation_error_mm(record: Record) -> float | None:
    """The lowest validation score of a run, where it was an MPJPE; None: there is none."""
    scores = [one["score"] for one in record.get("validation", [])]
    by_joints = "/MPJPE/" in (record.get("validated_by") or "")
    return min(scores) if scores and by_joints else None


def calibration_of(record: Record, step: int | None) -> Calibration | None:
    """The calibration of a run's network by the validation of a step.

    Args:
      record: of the run.
      step: of the checkpoint; where it was not validated, or is None, the last validation counts.

    Returns:
      None where no validation says it.
    """
    entries = [one for one in record.get("validation") or [] if "calibration" in one]
    chosen = [one for one in entries if one["step"] == step] or entries[-1:]
    return Calibration.from_json(chosen[0]["calibration"]) if chosen else None


def environment(config: ConfigDict, hands: HandModel) -> dict[str, Any]:
    """Returns which code, hand model and data a run computes with."""
    return {
        "code": code_version(),
        "hands": hand_model_identity(hands),
        "data": dataset_versions(config.data_dir, training_datasets(config)),
    }


def check_same_run(
    saved: Record, checkpoint: Path, *, now: Record, allow_changes: bool = False
) -> None:
    """Makes sure that a checkpoint's run is the one that goes on: config, hands and data.

    Another code is only told: it differs by a comment as by a mended fault.

    Args:
      saved: of the checkpoint.
      checkpoint: its folder.
      now: of the run that is to go on.
      allow_changes: only warns of differences.

    Raises:
      RunMismatchError: with all that differs.
    """
    resumable = {*RESUMABLE_FIELDS}
    if now["config"]["optimizer"]["schedule"] == "cosine":
        resumable -= {"epochs"}
    parts = sorted({*saved["config"], *now["config"]} - resumable)
    free = {f"data.{name}" for name in RESUMABLE_DATA_FIELDS}
    differences = _config_differences(saved, now, parts, free)
    made, makes = _flat(saved.get("environment", {})), _flat(now["environment"])
    differences += _differences(made, makes, {*made, *makes} - {"code.commit", "code.sha256"})
    scores = {one.get("validated_by") for one in (saved, now)}
    if saved["validation"] and len(scores) > 1:
        differences.append(
            f"  validated by: {saved.get('validated_by')} there, {now.get('validated_by')} now; "
            "the best checkpoint would be chosen among both kinds of scores"
        )
    if made.get("code.sha256") != makes["code.sha256"]:
        logging.warning(
            "%s was made by other code (commit %s; now: %s)",
            *(checkpoint, made.get("code.commit"), makes["code.commit"]),
        )
    if differences and allow_changes:
        logging.warning("Going on from %s in spite of:\n%s", checkpoint, "\n".join(differences))
    elif differences:
        raise RunMismatchError(
            f"checkpoint {checkpoint} belongs to a run with other settings, hands or data:\n"
            + "\n".join(differences)
            + "\nUse what it was made with, or another --workdir; or go on nevertheless with "
            "--allow_changes."
        )


def check_same_network(saved: Record, config: ConfigDict, checkpoint: Path) -> None:
    """Makes sure that a checkpoint's network is the config's.

    Raises:
      RunMismatchError: with every field that differs.
    """
    free = {f"model.{name}" for name in NOT_THE_NETWORK}
    differences = _config_differences(saved, run_record(config), ["model", "depth_box_m"], free)
    if differences:
        raise RunMismatchError(
            f"checkpoint {checkpoint} is of another network:\n"
            + "\n".join(differences)
            + "\nUse the config that it was trained with."
        )


def warn_of_other_hands(saved: Record, hands: HandModel, checkpoint: Path) -> None:
    """Says so where a checkpoint was trained with another hand model than is used now."""
    trained, used = saved.get("environment", {}).get("hands"), hand_model_identity(hands)
    if trained and trained["hand_model_sha256"] != used["hand_model_sha256"]:
        there, here = (
            f"{provenance['hand_model']} (SHA-256 {provenance['hand_model_sha256'][:12]}…)"
            for provenance in (trained, used)
        )
        logging.warning(
            "Checkpoint %s was trained with other hands: %s there, %s now. Its poses and shapes "
            "were learnt for the former. --config.mano_dir says which hands to use; without it "
            "they are the stand-in's.",
            *(checkpoint, there, here),
        )


def _config_differences(
    saved: Record, now: Record, parts: Sequence[str], free: Set[str]
) -> list[str]:
    there, here = (
        _flat({"config": {part: record["config"].get(part) for part in parts}})
        for record in (saved, now)
    )
    return _differences(there, here, {*there, *here} - {f"config.{name}" for name in free})


def _differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], names: Collection[str]
) -> list[str]:
    return [
        f"  {name}: {saved.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted(names)
        if saved.get(name) != now.get(name)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat
