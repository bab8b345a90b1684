"""The network as a pure function: its structure apart from its weights."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from er_jax.models.config import ERConfig
from er_jax.models.er import ERNet
from er_jax.models.freezing import Frozen

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NetworkWeights:
    """All that a trained network consists of besides its structure."""

    params: Tree  # nested dicts by module
    batch_stats: Tree  # running means and variances of the batch norms


def weights_of(net: ERNet) -> NetworkWeights:
    """The weights of a network."""
    return NetworkWeights(
        nnx.to_pure_dict(nnx.state(net, nnx.Param)), nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
    )


def fingerprint(weights: NetworkWeights) -> str:
    """SHA-256 of all weights: the same of a checkpoint and of what was exported from it."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        array = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def frozen_weights(config: ERConfig) -> Tree:
    """Which of `NetworkWeights.batch_stats` are weights that are not trained: True and False."""
    net = nnx.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
    frozen = set(nnx.to_flat_state(nnx.state(net, Frozen)).paths)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: tuple(entry.key for entry in path) in frozen, state
    )


def create_weights(config: ERConfig, seed: int) -> NetworkWeights:
    """Freshly initialised weights, the same on every host for the same seed."""
    return weights_of(ERNet(config, rngs=nnx.Rngs(seed)))


def network_of(config: ERConfig, weights: NetworkWeights) -> ERNet:
    """The network with some weights, in evaluation mode."""
    structure = network_structure(config, training=False)
    return nnx.merge(structure, weights.params, weights.batch_stats)


def network_structure(
    config: ERConfig, *, training: bool, batch_norm_axis: str | None = None
) -> nnx.GraphDef:
    """The network without its arrays: `nnx.merge(structure, params, batch_stats)` makes it whole.

    Args:
      config: the network's sizes.
      training: batch norms use, and update from, the statistics of the batch; else the running
        ones.
      batch_norm_axis: the statistics are those of the batch on all devices of this axis.
    """

    def build() -> ERNet:
        whole = dataclasses.replace(config, batch_norm_axis=batch_norm_axis)
        net = ERNet(whole, rngs=nnx.Rngs(0))
        if training:
            net.train()
        else:
            net.eval()
        return net

    return nnx.split(nnx.eval_shape(build))[0]
