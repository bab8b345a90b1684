"""A training run from its newest checkpoint, or from nothing, to its end or to a signal."""

import contextlib
import dataclasses
import functools
import logging
from pathlib import Path

from ml_collections import ConfigDict

from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import (
    Split,
    shard_for_training,
    steps_in_epoch,
    train_loader,
    warn_of_untaught_presence,
)
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.initial_weights import with_initial_weights
from er_jax.training.metric_log import MetricLog
from er_jax.training.monitor import Monitor
from er_jax.training.nonfinite_updates import NonFiniteUpdates
from er_jax.training.optimizer import make_optimizer
from er_jax.training.profile import Profile
from er_jax.training.run_record import check_same_run, environment, run_record
from er_jax.training.signals import stop_on_signal
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.training.throughput import Speed, Throughput
from er_jax.training.validation import Validation
from er_jax.utils import distributed
from er_jax.utils.progress import progress_bar
from er_jax.utils.watchdog import Watchdog


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a call of `train`."""

    finished: bool  # False: a signal stopped it, and the same call goes on from there
    step: int
    speed: Speed  # of this call
    skipped: int  # updates of the whole run
    metric: str  # of the validation
    scores: tuple[tuple[int, float], ...]  # step and validation score of the whole run


def train(
    config: ConfigDict,
    workdir: Path,
    profile: tuple[int, int] = (0, 0),
    *,
    allow_changes: bool = False,
) -> Outcome:
    """Trains until the config's last epoch, or its early stop, going on with what `workdir` holds.

    A checkpoint is written at the end of every epoch, every `config.checkpoint.every_steps` steps,
    and after the step under way when SIGINT or SIGTERM arrives at any of the processes.

    Args:
      config: of the run.
      workdir: folder of the run; with several processes the first one's counts.
      profile: the first and the last step to trace.
      allow_changes: goes on even if `workdir` holds a run with other settings, code or data.

    Raises:
      RunMismatchError: it holds such a run; names the differences.
      CheckpointError: a checkpoint cannot be written, or none of them can be read.
      DataError: samples cannot be read.
      FloatingPointError: if more updates were skipped than `config.nonfinite_updates_limit`.
    """
    distributed.check_batch_size(config.batch_size, config.optimizer.accumulation)
    logging.info("Training on %s", distributed.describe_devices())
    hands = load_hands(config.mano_dir)
    data = train_loader(config)
    warn_of_untaught_presence(config)
    epoch_steps = steps_in_epoch(data)
    last_step = epoch_steps * config.epochs
    net_config = ERConfig.from_dict(config.model)
    optimizer, learning_rate = make_optimizer(
        config.optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        steps_per_epoch=epoch_steps,
    )
    train_step = make_train_step(StepSettings.of(config), optimizer, learning_rate)
    with_ema = config.optimizer.ema_decay > 0
    state = create_state(net_config, optimizer, config.seed, with_ema=with_ema)
    with (
        contextlib.closing(data),
        stop_on_signal() as stop,
        Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
        MetricLog(workdir) as log,
        Throughput() as throughput,
        Watchdog(config.stuck_after_s) as watchdog,
        Profile(workdir / "tensorboard", *profile) as trace,
    ):
        skipped = NonFiniteUpdates(workdir, config.nonfinite_updates_limit, stop)
        monitor = Monitor(
            log,
            throughput,
            skipped,
            batch_size=config.batch_size,
            every_steps=config.log_every_steps,
        )
        validation = Validation(
            config.validation,
            net_config,
            config.depth_box_m,
            Split.of(config, config.data.validation_split),
            hands,
            epoch_steps=epoch_steps,
            last_step=last_step,
            log=log,
            stop=stop,
            watchdog=watchdog,
        )
        record = run_record(config, environment(config, hands), validation.scored_by)
        check = functools.partial(check_same_run, now=record, allow_changes=allow_changes)
        saved = distributed.on_first_process(lambda: checkpoints.restore_newest(state, check))
        if saved:
            state = saved.state
            if saved.run["validated_by"] == validation.scored_by:
                validation.history = saved.run["validation"]
            data.set_state(saved.data)
            logging.info("Going on from step %d of %s", state.step, checkpoints.folder)
            del saved  # its arrays, which would lie beside the run's own to its end
        else:
            state = with_initial_weights(state, net_config, config.init_from, config.init_parts)
        step = int(state.step)
        state, hands = distributed.replicate((state, hands))

        with progress_bar("Training", last_step, "steps", start=step) as bar:
            while True:
                due = step % epoch_steps == 0 or step % config.checkpoint.every_steps == 0
                if stop.poll() or due:
                    monitor.flush()
                score = validation(step, state) if validation.is_due(step) else None
                if step and (score is not None or due or stop.requested):
                    record["validation"] = validation.history
                    place = data.get_state()
                    if distributed.is_first_process():
                        replica = distributed.first_replica(state)
                        checkpoints.save(replica, place, record, score)
                ended = step >= last_step or validation.stopped_improving
                if ended or stop.requested:
                    break
                step += 1
                batch = throughput.read(data)
                trace.before(step)
                state, metrics = train_step(state, hands, shard_for_training(batch))
                throughput.enqueued(metrics)
                watchdog.beat(step)
                trace.after(step, metrics)
                monitor.add(step, metrics, batch)
                bar.advance(note=monitor.note, details=monitor.details)
    if stop.error is not None:
        raise stop.error
    scores = tuple((entry["step"], entry["score"]) for entry in validation.history)
    finished = ended and not validation.is_due(step)
    return Outcome(finished, step, throughput.total, skipped.count, validation.metric, scores)
