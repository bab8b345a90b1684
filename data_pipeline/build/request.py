"""Requests say what is to be built, and what a built dataset was built from."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.datasets import REPORT
from data_pipeline.records import BUILDER_VERSION, RecordTable
from er_jax.utils.progress import Tracker


@dataclasses.dataclass(frozen=True)
class SplitTable:
    """The records of a split, and what became of the other annotations."""

    table: RecordTable
    counts: Mapping[str, int]
    """Annotations by fate, in the order in which the rules are applied."""
    drop_dark: bool = False
    """Leaves out records whose image is dark; in any case they are counted."""
    notes: Sequence[str] = ()
    """Sentences on what was found, which the command prints."""
    findings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The same as plain JSON, for the report."""
    part: str | None = None
    """Where a choice of the user made it a part of the published split: which part."""


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """A request for one dataset."""

    dataset: str
    config: str
    description: str
    splits: Sequence[str]
    options: Mapping[str, Any]
    """Whatever else decides the result; part of the report."""
    source_files: Mapping[str, Path]
    """The annotation files by a name for each; their digests are part of the report."""
    read_split: Callable[[str, Tracker], SplitTable]
    fields: Sequence[str]
    """The fields of its records (`records.FIELDS` and `TEXT_FIELDS`), the same in every split."""


def identity(request: BuildRequest) -> dict[str, Any]:
    """Plain JSON of all that decides what is built; the annotation files by their digests."""
    return {
        "builder_version": BUILDER_VERSION,
        "dataset": request.dataset,
        "config": request.config,
        "splits": list(request.splits),
        **request.options,
        "sha256": {name: _sha256(path) for name, path in request.source_files.items()},
    }


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"  # its reader says more


def differences(built: Path, wanted: Mapping[str, Any]) -> list[str]:
    """In what a built dataset's identity differs from the one wanted; nothing if it is the same."""
    report = built / REPORT
    if not report.exists():
        return [f"it has no {REPORT}"]
    there, here = _flat(json.loads(report.read_text())["request"]), _flat(wanted)
    return [
        f"{name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} asked for"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    digests = {f"SHA-256 of {name}": digest for name, digest in identity["sha256"].items()}
    return {**identity, **digests, "sha256": None}
