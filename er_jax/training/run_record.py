"""What a checkpoint says of the run it belongs to, and whether a run may go on from it."""

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

# Config fields that may differ between the parts of one run: they change where it reads, how long
# it lasts and what it reports, not what a step computes.
MAY_CHANGE = (
    *("data_dir", "mano_dir", "init_from", "init_parts", "epochs"),
    *("log_every_steps", "skipped_updates_limit", "validation", "checkpoint"),
)
MAY_CHANGE_IN_DATA = ("workers", "validation_split", "test_split")
# Fields of the network's config that change how it starts or computes, not what it is.
NOT_THE_NETWORK = (
    "backbone_weights",
    "backbone_init",
    "embedding_std",
    "precision",
    "remat_backbone",
)


def run_record(config: ConfigDict, validation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain JSON of a run: its config and the history of its validation."""
    return {"config": json.loads(config.to_json_best_effort()), "validation": list(validation)}


def check_same_run(record: Mapping[str, Any], config: ConfigDict, checkpoint: Path) -> None:
    """Makes sure that a checkpoint's run and a config agree in all that a step computes.

    Raises:
      ValueError: with every field that differs.
    """
    parts = sorted({*record["config"], *config} - {*MAY_CHANGE})
    _check(record, config, checkpoint, parts, {f"data.{name}" for name in MAY_CHANGE_IN_DATA})


def check_same_network(record: Mapping[str, Any], config: ConfigDict, checkpoint: Path) -> None:
    """Makes sure that a checkpoint's network is the config's.

    Raises:
      ValueError: with every field that differs.
    """
    ignored = {f"model.{name}" for name in NOT_THE_NETWORK}
    _check(record, config, checkpoint, ["model", "depth_box_m"], ignored)


def _check(
    record: Mapping[str, Any],
    config: ConfigDict,
    checkpoint: Path,
    parts: Sequence[str],
    ignored: Set[str],
) -> None:
    saved, now = (
        _flat({part: whole.get(part) for part in parts})
        for whole in (record["config"], run_record(config, ())["config"])
    )
    differences = [
        f"  config.{name}: {saved.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*saved, *now} - ignored)
        if saved.get(name) != now.get(name)
    ]
    if differences:
        raise ValueError(
            f"checkpoint {checkpoint} belongs to a run with another config:\n"
            + "\n".join(differences)
            + "\nUse the same config, or another --workdir."
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat
