"""How the project is parallelised, all of it: data-parallel replicas over every device.

Each device holds a copy of the state and works on its own part of the batch; gradients, metrics
and batch statistics are averaged over `AXIS`. The rest of the code sees only the functions below.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

AXIS = "devices"

Tree = Any


def data_parallel(function: Callable, *, donate: Sequence[int] = ()) -> Callable:
    """Compiles a function of replicated and sharded trees to run on every local device.

    Inside it `mean_over_devices` averages; arguments and results carry a leading device axis.

    Args:
      function: pure function of pytrees.
      donate: positions of the arguments whose memory the results may take over.
    """
    return jax.pmap(function, axis_name=AXIS, donate_argnums=tuple(donate))


def mean_over_devices(tree: Tree) -> Tree:
    """The mean over all devices of all hosts, inside a `data_parallel` function."""
    return jax.lax.pmean(tree, AXIS)


def local_devices() -> list[jax.Device]:
    """The devices of this host that work: all of them."""
    return jax.local_devices()


def replicate(tree: Tree) -> Tree:
    """A copy of the tree on every local device."""
    devices = len(local_devices())
    copies = jax.tree.map(lambda x: np.broadcast_to(x, (devices, *np.shape(x))), tree)
    return jax.device_put(copies, _sharding())


def first_replica(tree: Tree) -> Tree:
    """The tree of this host's first device, without the device axis; no transfer to the host."""
    return jax.tree.map(lambda x: x.addressable_data(0).reshape(x.shape[1:]), tree)


def shard(batch: Tree) -> Tree:
    """Splits a host batch's leading axis over the local devices and sends each its part."""
    devices = len(local_devices())
    split = jax.tree.map(lambda x: np.reshape(x, (devices, -1, *np.shape(x)[1:])), batch)
    return jax.device_put(split, _sharding())


def _sharding() -> jax.sharding.Sharding:
    """A leading device axis laid out as `jax.pmap` lays out its results: it compiles only once."""
    mesh = jax.sharding.Mesh(np.array(local_devices()), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def gather(tree: Tree) -> Tree:
    """Per-sample results of a `data_parallel` function as host arrays with one batch axis."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)


def check_batch_size(global_batch_size: int, parts: int = 1) -> None:
    """Makes sure that all devices of all hosts get equal parts of a batch.

    Args:
      global_batch_size: samples of a step.
      parts: that each device works on one after the other.

    Raises:
      ValueError: if they do not; names the nearest sizes that work.
    """
    pieces = jax.device_count() * parts
    if global_batch_size < 1 or global_batch_size % pieces:
        below = global_batch_size // pieces * pieces
        works = " or ".join(str(size) for size in (below, below + pieces) if size > 0)
        in_parts = f" in {parts} parts each" if parts > 1 else ""
        raise ValueError(
            f"batch_size={global_batch_size} does not divide over {jax.device_count()} "
            f"devices{in_parts}: use {works}"
        )
