"""The weights that a new run starts from: a pretrained backbone, another run, or parts of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from er_jax.models import ERConfig
from er_jax.models.functional import NetworkWeights
from er_jax.models.weights.import_export import read_weights
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.state import TrainState, with_pretrained_backbone, with_weights
from er_jax.utils.errors import ConfigError, NotFoundError

Tree = Any


def with_initial_weights(
    state: TrainState, net_config: ERConfig, init_from: str | None, init_parts: Sequence[str]
) -> TrainState:
    """The state of a new run, with the weights that it is told to start from.

    Args:
      state: freshly initialised.
      net_config: of its network; the backbone starts from its `backbone_weights`, where set.
      init_from: a run's folder, one of its checkpoints, or an exported `er.safetensors`, whose
        weights come after; or None.
      init_parts: patterns of the names of the weights that are taken from there.

    Raises:
      NotFoundError: there is no such checkpoint.
      ConfigError: it has not all that is asked for; names every weight that is missing or of
        another shape, and every pattern that no weight's name begins with.
      WeightError, CheckpointError: see `load_backbone`.
    """
    state = with_pretrained_backbone(net_config, state)
    if not init_from:
        return state
    checkpoint, saved = _read(Path(init_from))
    weights = state.params, state.batch_stats
    chosen = _chosen(weights, saved, tuple(init_parts), checkpoint)
    return with_weights(state, NetworkWeights(*chosen))


def _read(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Weights by name: of a run's best checkpoint, or of the checkpoint or file at the path."""
    if path.suffix == ".safetensors":
        return path, read_weights(path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path.parent
    if folder == path.parent and not (path.is_dir() and path.name.isdigit()):
        raise NotFoundError(
            f"config.init_from={path} is neither a run's folder nor one of its checkpoints, such "
            "as RUN/checkpoints/1000, nor an er.safetensors"
        )
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.best_step() if folder != path.parent else int(path.name)
        if step is None:
            raise NotFoundError(f"config.init_from={path}: {folder} has no checkpoint")
        model = checkpoints.read_model(step)
    return folder / str(step), {**_by_name(model["params"]), **_by_name(model["batch_stats"])}


def _by_name(tree: Tree) -> dict[str, Any]:
    """Leaves of nested dicts by their dotted path, as in `backbone.layer1.0.conv1.kernel`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _chosen(
    weights: Tree, saved: Mapping[str, np.ndarray], parts: tuple[str, ...], checkpoint: Path
) -> Tree:
    """`weights`, those whose names begin with one of the patterns from `saved`."""
    problems, unused = [], set(parts)

    def choose(path: tuple, weight: jax.Array) -> Any:
        name = jax.tree_util.keystr(path[1:], simple=True, separator=".")
        matching = {part for part in parts if re.match(part, name)}
        unused.difference_update(matching)
        if not matching:
            return weight
        if name not in saved:
            problems.append(f"missing: {name} {weight.shape}")
        elif saved[name].shape != weight.shape:
            problems.append(f"shape: {name} is {saved[name].shape}, not {weight.shape}")
        return saved.get(name)

    chosen = jax.tree_util.tree_map_with_path(choose, weights)
    problems += [f"no weight's name begins with {part!r}" for part in sorted(unused)]
    if problems:
        raise ConfigError(
            f"{checkpoint} does not have what config.init_parts={parts} asks for; leave out those "
            "parts, or make the network as it was:\n  " + "\n  ".join(problems)
        )
    return chosen
