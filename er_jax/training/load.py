"""A trained network from a run's folder, or from a file of weights."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from er_jax.evaluation.calibration import Calibration
from er_jax.evaluation.network import TrainedNetwork
from er_jax.mano import HandModel
from er_jax.models import ERConfig
from er_jax.models.functional import NetworkWeights, create_weights, network_of, weights_of
from er_jax.models.weights.import_export import import_network, read_record
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.run_record import (
    Record,
    calibration_of,
    check_same_network,
    warn_of_other_hands,
)
from er_jax.utils import distributed
from er_jax.utils.errors import NotFoundError


def recorded_run(source: Path, step: int | None = None) -> Record:
    """The record of the run that a checkpoint, or an exported file of weights, is of.

    Args:
      source: the run's folder, or an `er.safetensors`.
      step: of the checkpoint; None: the best by validation.

    Raises:
      NotFoundError: there is no such checkpoint or file; names those that are there.
      WeightError: the file is none.
    """
    if source.suffix == ".safetensors":
        return read_record(source)
    with _checkpoint(source, step) as (checkpoints, chosen):
        return checkpoints.read_run(chosen)


@contextmanager
def _checkpoint(source: Path, step: int | None) -> Iterator[tuple[Checkpoints, int]]:
    """A run's checkpoints and the step that is meant."""
    if not source.is_dir():
        raise NotFoundError(f"{source}: neither a run's folder nor an er.safetensors is there")
    folder = source / "checkpoints"
    with Checkpoints(folder, read_only=True) as checkpoints:
        saved = checkpoints.steps()
        chosen = checkpoints.best_step() if step is None else step
        if chosen is None or chosen not in saved:
            raise NotFoundError(
                f"{folder} has no checkpoint {'' if step is None else step}; there are "
                f"{saved or 'none'}. Train first with --mode=train and the same --workdir."
            )
        yield checkpoints, chosen


def load_trained(
    config: ConfigDict, source: Path, step: int | None, hands: HandModel | None = None
) -> TrainedNetwork:
    """The network of a run's checkpoint, or of an exported file of weights.

    Args:
      config: must describe the same network.
      source: the run's folder, or an `er.safetensors`.
      step: of the checkpoint; None: the best by validation, or the file.
      hands: that its poses and shapes are for; warns where it was trained with others.

    Raises:
      NotFoundError: there is no such checkpoint; names those that are there.
      RunMismatchError: it holds another network; names the differences.
      WeightError: the file is none, or does not fit.
    """
    net_config = ERConfig.from_dict(config.model)
    like = jax.eval_shape(lambda: create_weights(net_config, config.seed))
    if source.suffix == ".safetensors":
        return _from_file(config, net_config, source, like, hands)
    folder = source / "checkpoints"

    def load() -> tuple[NetworkWeights, int, Calibration | None]:
        with _checkpoint(source, step) as (checkpoints, chosen):
            record = checkpoints.read_run(chosen)
            check_same_network(record, config, folder / str(chosen))
            if hands is not None:
                warn_of_other_hands(record, hands, folder / str(chosen))
            logging.info("Using checkpoint %s", folder / str(chosen))
            weights = checkpoints.restore_weights(chosen, like)
            return weights, chosen, calibration_of(record, chosen)

    weights, chosen, calibration = distributed.on_first_process(load)
    return TrainedNetwork(
        name=source.name,
        config=net_config,
        weights=jax.device_put(weights),
        depth_box_m=config.depth_box_m,
        step=chosen,
        calibration=calibration,
    )


def _from_file(
    config: ConfigDict,
    net_config: ERConfig,
    file: Path,
    like: NetworkWeights,
    hands: HandModel | None,
) -> TrainedNetwork:
    record = read_record(file)
    check_same_network(record, config, file)
    if hands is not None:
        warn_of_other_hands(record, hands, file)
    net = network_of(net_config, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
    import_network(net, file)
    logging.info("Using the weights of %s", file)
    step = record.get("step")
    return TrainedNetwork(
        name=file.stem,
        config=net_config,
        weights=weights_of(net),
        depth_box_m=config.depth_box_m,
        step=step,
        calibration=calibration_of(record, step),
    )
