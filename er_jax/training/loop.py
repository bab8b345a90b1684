"""A training run from its newest checkpoint, or from nothing, to its end or to a signal."""

import dataclasses
import logging
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.loader import BatchLoader
from er_jax import parallel
from er_jax.inputs import train_loader
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.progress import progress_bar
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.metric_log import MetricLog
from er_jax.training.optimization import make_optimizer
from er_jax.training.run_record import check_same_run, run_record
from er_jax.training.signals import stop_on_signal
from er_jax.training.state import create_state, with_pretrained_backbone
from er_jax.training.step import make_train_step
from er_jax.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    finished: bool  # False: a signal stopped it, and the same call goes on from there
    step: int


def train(config: ConfigDict, workdir: Path) -> Outcome:
    """Trains until the config's last epoch, or its early stop, going on with what `workdir` holds.

    A checkpoint is written at the end of every epoch, every `config.checkpoint.every_steps` steps,
    and after the step under way when SIGINT or SIGTERM arrives.

    Raises:
      ValueError: if `workdir` holds a run with another config; names the differences.
    """
    parallel.check_batch_size(config.batch_size, config.optimizer.accumulation)
    hands = load_hands(config.mano_dir)
    data = train_loader(config)
    epoch_steps = steps_in_epoch(data)
    last_step = epoch_steps * config.epochs
    net_config = ERConfig.from_dict(config.model)
    optimizer, learning_rate = make_optimizer(config, epoch_steps)
    train_step = make_train_step(config, optimizer, learning_rate)
    averaged = bool(config.optimizer.average_decay)
    state = create_state(net_config, optimizer, config.seed, averaged=averaged)

    with (
        stop_on_signal() as stop,
        Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
        MetricLog(workdir, every=config.log_every_steps) as log,
    ):
        validation = Validation(config, hands, epoch_steps, log, stop)
        if (newest := checkpoints.newest_step()) is not None:
            record = checkpoints.read_run(newest)
            check_same_run(record, config, checkpoints.folder / str(newest))
            state = checkpoints.restore(newest, state, data)
            validation.history = record["validation"]
            logging.info("Going on from step %d of %s", newest, checkpoints.folder)
        else:
            state = with_pretrained_backbone(net_config, state)
        step = int(state.step)
        state, hands = parallel.replicate((state, hands))

        with progress_bar("Training", last_step, "steps", start=step) as bar:
            while True:
                score = validation(step, state) if validation.is_due(step) else None
                due = step % epoch_steps == 0 or step % config.checkpoint.every_steps == 0
                if step and (score is not None or due or stop.requested):
                    log.flush()
                    record = run_record(config, validation.history)
                    checkpoints.save(parallel.first_replica(state), data, record, score)
                if step >= last_step or validation.stopped_improving or stop.requested:
                    break
                state, metrics = train_step(state, hands, parallel.shard(next(data)))
                step += 1
                log.add(step, metrics)
                bar.advance(note=log.note)
    return Outcome(finished=not stop.requested, step=step)


def steps_in_epoch(data: BatchLoader) -> int:
    """Whole batches in one pass over the training split.

    Raises:
      ValueError: if there is not even one.
    """
    steps = data.samples_per_epoch // data.batch_size
    if not steps:
        raise ValueError(
            f"the training split has {data.samples_per_epoch} samples, fewer than "
            f"config.batch_size={data.batch_size}: use a smaller batch"
        )
    return steps
