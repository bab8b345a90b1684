"""The optimizer and its learning-rate schedule, from the config."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from er_jax.utils.errors import ConfigError


def make_optimizer(
    settings: ConfigDict, *, epochs: int, batch_size: int, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer that the config names, and its learning rate as a function of the step.

    Parameters move by minus the learning rate times what the optimizer makes of the gradients: the
    rate belongs to the run's step, which also counts steps whose update was skipped.

    Args:
      settings: `config.optimizer`.
      epochs: of the run.
      batch_size: of a step.
      steps_per_epoch: optimizer steps in an epoch.

    Raises:
      ConfigError: for an unknown optimizer or schedule; names those that exist.
    """
    parts = []
    if settings.gradient_clip:
        parts.append(optax.clip_by_global_norm(settings.gradient_clip))
    match settings.name:
        case "adam":
            parts.append(optax.scale_by_adam())
        case "adamw":
            decay = optax.add_decayed_weights(settings.weight_decay, mask=_kernels)
            parts += [optax.scale_by_adam(), decay]
        case other:
            raise ConfigError(f"config.optimizer.name={other!r}: use 'adam' or 'adamw'")
    return optax.chain(*parts), _make_schedule(settings, epochs, batch_size, steps_per_epoch)


def _kernels(params: Any) -> Any:
    """Which parameters decay: kernels, and not norms, biases and embeddings."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _make_schedule(
    settings: ConfigDict, epochs: int, batch_size: int, steps_per_epoch: int
) -> optax.Schedule:
    peak = settings.learning_rate
    if settings.reference_batch_size:
        peak *= batch_size / settings.reference_batch_size
    match settings.schedule:
        case "step":
            return optax.piecewise_constant_schedule(
                peak,
                {epoch * steps_per_epoch: settings.decay_factor for epoch in settings.decay_epochs},
            )
        case "cosine":
            return optax.warmup_cosine_decay_schedule(
                init_value=0.0,
                peak_value=peak,
                warmup_steps=round(settings.warmup_epochs * steps_per_epoch),
                decay_steps=epochs * steps_per_epoch,
            )
        case other:
            raise ConfigError(f"config.optimizer.schedule={other!r}: use 'step' or 'cosine'")
