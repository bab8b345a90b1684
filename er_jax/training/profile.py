"""A trace of some steps: what the host and the devices did, for TensorBoard or Perfetto."""

import dataclasses
import logging
from pathlib import Path
from typing import Self

import jax

from er_jax.utils.errors import ConfigError


@dataclasses.dataclass
class Profile:
    """Traces the steps from `first` to `last`, both included; none where they are 0.

    The trace lies in `folder/plugins/profile`, where TensorBoard's profile plugin looks for it.
    """

    folder: Path
    first: int = 0
    last: int = 0
    _tracing: bool = False

    def __post_init__(self) -> None:
        if (self.first or self.last) and not 1 <= self.first <= self.last:
            raise ConfigError(
                f"--profile={self.first},{self.last}: give the first and the last step to trace, "
                "as in --profile=20,25"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._tracing:
            self._stop()

    def before(self, step: int) -> None:
        """Starts the trace where it is due; to be called before a step is enqueued."""
        if step == self.first:
            jax.profiler.start_trace(self.folder)
            self._tracing = True

    def after(self, step: int, result: object) -> None:
        """Ends the trace where it is due; to be called with what an enqueued step will give."""
        if self._tracing and step == self.last:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        logging.info("The trace is in %s", self.folder / "plugins" / "profile")
