"""The optimizer and its learning-rate schedule, from the config."""

import optax
from ml_collections import ConfigDict


def make_optimizer(
    config: ConfigDict, steps_per_epoch: int, epochs: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer that the config names, and its learning rate as a function of the step.

    Args:
      config: `config.optimizer`: name, learning_rate, weight_decay, gradient_clip, and schedule
        with its fields.
      steps_per_epoch: optimizer steps in an epoch.
      epochs: epochs of the whole run.

    Raises:
      ValueError: for an unknown optimizer or schedule; names those that exist.
    """
    schedule = _make_schedule(config, steps_per_epoch, epochs)
    match config.name:
        case "adam":
            update = optax.adam(schedule)
        case "adamw":
            update = optax.adamw(schedule, weight_decay=config.weight_decay)
        case other:
            raise ValueError(f"config.optimizer.name={other!r}: use 'adam' or 'adamw'")
    if config.gradient_clip:
        update = optax.chain(optax.clip_by_global_norm(config.gradient_clip), update)
    return update, schedule


def _make_schedule(config: ConfigDict, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    match config.schedule:
        case "step":
            return optax.piecewise_constant_schedule(
                config.learning_rate,
                {epoch * steps_per_epoch: config.decay_factor for epoch in config.decay_epochs},
            )
        case "cosine":
            return optax.warmup_cosine_decay_schedule(
                init_value=0.0,
                peak_value=config.learning_rate,
                warmup_steps=round(config.warmup_epochs * steps_per_epoch),
                decay_steps=epochs * steps_per_epoch,
            )
        case other:
            raise ValueError(f"config.optimizer.schedule={other!r}: use 'step' or 'cosine'")
