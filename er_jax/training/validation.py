"""Validation during training: when, on what, by which metric, and whether it still improves."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from er_jax.evaluation.calibration import calibrated
from er_jax.evaluation.evaluate import HEADLINE, NETWORK, evaluate, make_evaluation_step
from er_jax.evaluation.predictors import measurable
from er_jax.evaluation.sample_grid import SampleGrid
from er_jax.evaluation.summary import ERRORS_MM, headline, summarize
from er_jax.mano import HandModel
from er_jax.models import ERConfig
from er_jax.supervision.loaders import Split
from er_jax.supervision.targets import Batch
from er_jax.training.metric_log import MetricLog
from er_jax.training.signals import Stop
from er_jax.training.state import TrainState
from er_jax.utils import distributed
from er_jax.utils.errors import ConfigError, DataError
from er_jax.utils.watchdog import Watchdog

AUTO_METRICS = (
    "scale_aligned/MPJPE/all",
    "wrist_aligned/MPJPE/all",
    "procrustes/PA-MPJPE/all",
    "scale_aligned/MPVPE/all",
)
"""What `config.validation.metric="auto"` takes the first of that the split's annotations allow.

The protocol `scale_aligned` needs MANO fits; annotated joints are enough for the others.
"""


class Validation:
    """Evaluates on the validation split at the end of epochs and remembers the scores.

    Attributes:
      metric: path of the error that is the score.
      scored_by: that metric and the split, which scores must share to be compared.
      history: {"step": int, "score": float, "calibration": see `Calibration`} of each validation,
        oldest first.
    """

    def __init__(
        self,
        settings: ConfigDict,
        net_config: ERConfig,
        depth_box_m: float,
        split: Split,
        hands: HandModel,
        *,
        epoch_steps: int,
        last_step: int,
        log: MetricLog,
        stop: Stop,
        watchdog: Watchdog,
    ):
        """Args:
          settings: `config.validation`.
          net_config: the network's sizes.
          depth_box_m: the depth that its heatmaps span.
          split: to validate on.
          hands: both hands, not replicated.
          epoch_steps: optimizer steps in an epoch.
          last_step: of the run.
          log: gets the headline numbers.
          stop: ends a validation under way, without a score.
          watchdog: is told of every batch.

        Raises:
          ConfigError: `metric` is not the path of an error that the split's annotations allow;
            lists those that are.
          DataError: the dataset has no such split.
        """
        self.metric = validation_metric(settings.metric, split, hands)
        self.scored_by = f"{self.metric} on {split.dataset}, {split.name}"
        self.history: list[dict[str, Any]] = []
        self._settings, self._split = settings, split
        self._every_steps, self._last_step = settings.every_epochs * epoch_steps, last_step
        self._step = make_evaluation_step(net_config, depth_box_m, f_scores=False)
        self._hands, self._replicated_hands = hands, distributed.replicate(hands)
        self._log, self._stop, self._watchdog = log, stop, watchdog

    def is_due(self, step: int) -> bool:
        """Returns whether an epoch to validate ended with this step and was not validated yet."""
        at_end = step and (step % self._every_steps == 0 or step == self._last_step)
        return bool(at_end) and all(entry["step"] != step for entry in self.history)

    def __call__(self, step: int, state: TrainState) -> float | None:
        """Evaluates, logs and remembers; the score, None where a signal stopped it."""
        rows = self._settings.images
        grid = SampleGrid(self._hands, rows) if rows else None
        walk = evaluate(
            self._step,
            state.evaluated(),
            self._replicated_hands,
            _UntilStopped(self._split, self._stop, self._watchdog),
            title="Validation",
            grid=grid,
        )
        if self._stop.requested:
            return None
        if grid is not None and (image := grid.image()) is not None:
            self._log.image(step, "validation", image)
        numbers = headline(summarize(walk.errors[NETWORK]), [*HEADLINE, self.metric])
        self._log.write(
            step,
            {f"validation/{name}": value for name, value in numbers.items() if value is not None},
        )
        score = numbers[self.metric]
        if score is None:
            raise ConfigError(
                f"config.validation.metric={self.metric} has no sample in the validation split: "
                "choose a metric that the split's annotations allow"
            )
        entry: dict[str, Any] = {"step": step, "score": score}
        if (calibration := calibrated(walk.errors[NETWORK])) is not None:
            entry["calibration"] = calibration.to_json()
        self.history.append(entry)
        return score

    @property
    def stopped_improving(self) -> bool:
        """Says whether the newest `stop_after` scores are no better than those before them."""
        patience = self._settings.stop_after
        scores = [entry["score"] for entry in self.history]
        if not patience or len(scores) <= patience:
            return False
        return min(scores[-patience:]) > min(scores[:-patience]) - self._settings.improvement


def validation_metric(wanted: str, split: Split, hands: HandModel) -> str:
    """The path of the error that is the score, chosen where `auto` is wanted.

    Raises:
      ConfigError: it is none, or the split's annotations do not allow it; lists those that are.
      DataError: the dataset has no such split.
    """
    if wanted != "auto" and wanted not in ERRORS_MM:
        raise ConfigError(
            f"config.validation.metric={wanted!r}: choose one of auto, " + ", ".join(ERRORS_MM)
        )
    try:
        possible = measurable(split.annotations, hands)
    except DataError as error:
        raise DataError(f"config.data.validation_split={split.name!r}: {error}") from None
    chosen = [metric for metric in AUTO_METRICS if metric in possible] if wanted == "auto" else []
    if chosen:
        logging.info("Validation is by %s, in mm, on %s", chosen[0], split.name)
        return chosen[0]
    if wanted not in possible:
        raise ConfigError(
            f"config.validation.metric={wanted!r}: the annotations of split {split.name!r} do not "
            f"allow it; they allow {', '.join(possible) or 'none'}. The protocol scale_aligned and "
            "MPVPE need MANO fits, MRRPE needs both wrists."
        )
    return wanted


@dataclasses.dataclass(frozen=True)
class _UntilStopped:
    """A pass over a split that a signal cuts short."""

    split: Split
    stop: Stop
    watchdog: Watchdog

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.split:
            yield batch
            self.watchdog.beat()
            if self.stop.poll():
                return
