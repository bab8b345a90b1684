"""Updates that were skipped because the loss or the gradient was not finite."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from er_jax.training.signals import Stop
from er_jax.utils.errors import NonFiniteError

HostBatch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BatchSamples:
    """The samples of a batch, for as long as its step's numbers are not fetched.

    Attributes:
      annotation_ids: of all of them.
      not_finite: the ids of those with an annotation that is not finite, by field.
    """

    annotation_ids: list[int]
    not_finite: dict[str, list[int]]

    @classmethod
    def of(cls, batch: HostBatch) -> Self:
        """Takes them from a batch as it came from the loader."""
        ids = batch["annotation_id"]
        masks = _not_finite(batch)
        return cls(ids.tolist(), {name: ids[mask].tolist() for name, mask in masks.items()})


class NonFiniteUpdates:
    """Writes down the samples of every skipped update, and ends a run that skips too many.

    A line of `nonfinite_updates_<host>.jsonl` is {"step", "loss", "gradient_norm", "annotation_ids"
    of this host's part of the batch, "not_finite": the annotations of it that are not finite, by
    field}. All runs in the folder count together.
    """

    def __init__(self, workdir: Path, limit: int, stop: Stop):
        """Args:
        workdir: the run's folder.
        limit: of skipped updates; one more asks `stop` for the end.
        stop: gets the error that says so.
        """
        self.file = workdir / f"nonfinite_updates_{jax.process_index()}.jsonl"
        self._limit, self._stop = limit, stop
        self._steps = set()
        if self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines()
            self._steps = {json.loads(line)["step"] for line in lines}

    @property
    def count(self) -> int:
        return len(self._steps)

    def add(self, step: int, samples: BatchSamples, loss: float, gradient_norm: float) -> None:
        """Notes one, whose batch had these samples."""
        entry = {
            "step": step,
            "loss": str(loss),
            "gradient_norm": str(gradient_norm),
            "annotation_ids": samples.annotation_ids,
            "not_finite": samples.not_finite,
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._steps.add(step)
        logging.warning(
            "Step %d: loss %s, gradient norm %s: update skipped; its samples are in %s",
            *(step, loss, gradient_norm, self.file),
        )
        if self.count > self._limit:
            self._stop.requested = True
            self._stop.error = NonFiniteError(self._complaint(samples.not_finite))

    def _complaint(self, culprits: Mapping[str, Any]) -> str:
        found = f"Annotations that are not finite: {culprits}. " if culprits else ""
        return (
            f"{self.count} updates were skipped because the loss or the gradient was not finite, "
            f"more than config.nonfinite_updates_limit={self._limit}. {found}{self.file} has the "
            "samples of each. Mend or leave out those samples; where the annotations are finite, "
            "lower config.optimizer.learning_rate or set config.optimizer.gradient_clip. A higher "
            "limit goes on as it is."
        )


def _not_finite(batch: HostBatch) -> dict[str, np.ndarray]:
    """Field → which samples of the batch have a number in it that is not finite."""
    masks = {
        name: np.any(~np.isfinite(values.reshape(len(values), -1)), axis=1)
        for name, values in batch.items()
        if np.issubdtype(values.dtype, np.floating)
    }
    return {name: mask for name, mask in masks.items() if mask.any()}
