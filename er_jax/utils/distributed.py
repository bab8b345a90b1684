"""Everything that is parallel in the project: data-parallel replicas over every device.

Each device holds a copy of the state and works on its own part of the batch; gradients, metrics
and batch statistics are averaged over `AXIS`. Every process (one a host, or one a device) runs the
same program on its own devices; the first one alone reads checkpoints and writes anything. The rest
of the code sees only the functions below.
"""

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from er_jax.utils.errors import ConfigError, UserError

AXIS = "devices"

Tree = Any
Result = TypeVar("Result")

# How many processes srun and mpirun say that they started.
PROCESS_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
FINISH_TIMEOUT_S = 24 * 3600  # the other processes wait while the first one writes its reports


def join_processes(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several, before anything else is done with JAX.

    Where no argument is given and neither `srun` nor `mpirun` started several processes, this one
    stays alone and nothing happens. Arguments that are left out are found by
    `jax.distributed.initialize` in the environment of SLURM, Open MPI, Kubernetes, a TPU pod…

    Args:
      coordinator: `host:port` of the first process, where that port is free; "auto" to find it in
        an environment other than those two.
      processes: how many there are.
      process_id: which of them this one is, from 0.

    Of the GPUs that a task of SLURM sees it takes its share: all of them if it is alone on its
    node, the one that is bound to it, or its part of those that all tasks of the node see.

    Raises:
      ConfigError: a node's tasks cannot share its GPUs equally.
      ValueError, RuntimeError: from JAX, if something is not found or the others are not reached.
    """
    several = any(int(os.environ.get(name, 1)) > 1 for name in PROCESS_COUNTS)
    if not several and (coordinator, processes, process_id) == (None, None, None):
        return
    # Its service takes SIGTERM for itself; `er_jax.training.signals` has the processes agree.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        None if coordinator == "auto" else coordinator,
        processes,
        process_id,
        local_device_ids=_gpus_of_task(os.environ),
        shutdown_timeout_seconds=FINISH_TIMEOUT_S,
    )
    # On CPUs (Gloo) the first exchange waits 30 s for the others: now they are all at this line,
    # while the first one may later read a checkpoint for longer than that.
    multihost_utils.sync_global_devices("er_jax joined")


def _gpus_of_task(environment: Mapping[str, str]) -> list[int] | None:
    """Which of the visible GPUs belong to this task of SLURM; None: as JAX finds them.

    JAX takes the GPU numbered like the task on its node, whatever is visible: with one GPU bound to
    each task that GPU is not there, and with one task for several all but the first stay idle.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if not visible or "SLURM_LOCALID" not in environment or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    gpus = len(visible.split(","))
    if gpus == 1:
        return [0]
    local_id, tasks = int(environment["SLURM_LOCALID"]), _tasks_of_node(environment)
    if gpus % tasks:
        raise ConfigError(
            f"{tasks} tasks of this node cannot share its {gpus} GPUs equally "
            f"(CUDA_VISIBLE_DEVICES={visible}): start one task a GPU, such as "
            f"srun --ntasks-per-node={gpus} --gpus-per-task=1, or one task a node"
        )
    share = gpus // tasks
    return list(range(local_id * share, (local_id + 1) * share))


def _tasks_of_node(environment: Mapping[str, str]) -> int:
    """Tasks on this node, from a list of counts such as "2(x3),1" in the nodes' order."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]


def describe_devices() -> str:
    """Returns what computes: "8 devices (NVIDIA H100) in 8 processes"."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    count, processes = jax.device_count(), jax.process_count()
    return (
        f"{count} device{'s' * (count > 1)} ({', '.join(kinds)}) "
        f"in {processes} process{'es' * (processes > 1)}"
    )


def is_first_process() -> bool:
    """Returns whether this is the process that speaks and writes."""
    return jax.process_index() == 0


def on_first_process(function: Callable[[], Result]) -> Result:
    """Returns, or raises, on all processes what a function does on the first one.

    Args:
      function: its result is of host arrays and whatever else can be pickled.
    """
    if jax.process_count() == 1:
        return function()
    content = np.frombuffer(_pickled_outcome(function) if is_first_process() else b"", np.uint8)
    # Lengths go as two halves: JAX keeps integers of 32 bits, which end at 2 GiB.
    length = np.array(divmod(content.size, 2**16), np.int32)
    high, low = map(int, multihost_utils.broadcast_one_to_all(length))
    received = multihost_utils.broadcast_one_to_all(np.resize(content, high * 2**16 + low))
    result, error = pickle.loads(received.tobytes())
    if error is not None:
        raise error
    return result


def _pickled_outcome(function: Callable[[], Any]) -> bytes:
    """(result, error) of a function; never without an answer, for which the others would wait."""
    result, error = None, None
    try:
        result = function()
    except Exception as raised:
        error = raised
    try:
        content = pickle.dumps((result, error))
        pickle.loads(content)  # what can be written cannot always be read
    except Exception as reason:
        told = error or pickle.PicklingError(f"the result cannot be pickled ({reason})")
        substitute = UserError if isinstance(told, UserError) else RuntimeError
        content = pickle.dumps((None, substitute(f"{type(told).__name__}: {told}")))
    return content


class AnyProcess:
    """Tells all processes whether any of them raised a flag, each time the same answer to all.

    With several processes they agree at every fourth call, and the answer is one agreement late, so
    that nobody waits for a step under way.
    """

    EVERY = 4

    def __init__(self) -> None:
        self._any = jax.pmap(lambda flag: jax.lax.pmax(flag, AXIS), axis_name=AXIS)
        self._asked: jax.Array | None = None
        self._calls, self._answer = 0, False

    def __call__(self, flag: bool) -> bool:
        """Every process has to call this, equally often."""
        if jax.process_count() == 1:
            return flag
        if self._calls % self.EVERY == 0:
            before, self._asked = self._asked, self._any(replicate(np.int32(flag)))
            self._answer = before is not None and bool(first_replica(before))
        self._calls += 1
        return self._answer


def data_parallel(function: Callable, *, donate: Sequence[int] = ()) -> Callable:
    """Compiles a function of replicated and sharded trees to run on every local device.

    Inside it `mean_over_devices` averages; arguments and results carry a leading device axis.

    Args:
      function: pure function of pytrees.
      donate: positions of the arguments whose memory the results may take over.
    """
    return jax.pmap(function, axis_name=AXIS, donate_argnums=tuple(donate))


def lowered_for(platform: str, function: Callable, arguments: Sequence[Any]) -> str:
    """The text of the program of one device that a `data_parallel` function is on a platform.

    The platform need not be at hand; the arguments' device axis is cut to 1.
    """
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), arguments)
    alone = jax.jit(jax.vmap(function.__wrapped__, axis_name=AXIS))  # type: ignore[attr-defined]
    return alone.trace(*one).lower(lowering_platforms=(platform,)).as_text()


def mean_over_devices(tree: Tree) -> Tree:
    """The mean over all devices of all processes, inside a `data_parallel` function."""
    return jax.lax.pmean(tree, AXIS)


def key_of_device(key: jax.Array) -> jax.Array:
    """A random key of each device's own, of all processes, inside a `data_parallel` function."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def local_devices() -> list[jax.Device]:
    """The devices of this host that work: all of them."""
    return jax.local_devices()


def local_count() -> int:
    """How many devices of this host work."""
    return len(local_devices())


def replicate(tree: Tree) -> Tree:
    """A copy of the tree on every local device."""
    devices = local_count()
    copies = jax.tree.map(lambda x: np.broadcast_to(x, (devices, *np.shape(x))), tree)
    return jax.device_put(copies, _sharding())


def first_replica(tree: Tree) -> Tree:
    """The tree of this process's first device, without the device axis, on the host."""
    first = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
    return jax.tree.map(lambda x: x.reshape(x.shape[1:]), first)


def shard(batch: Tree) -> Tree:
    """Splits a host batch's leading axis over the local devices and sends each its part."""
    devices = local_count()
    split = jax.tree.map(lambda x: np.reshape(x, (devices, -1, *np.shape(x)[1:])), batch)
    return jax.device_put(split, _sharding())


def _sharding() -> jax.sharding.Sharding:
    """A leading device axis laid out as `jax.pmap` lays out its results: it compiles only once."""
    mesh = jax.sharding.Mesh(np.array(local_devices()), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def gather(tree: Tree) -> Tree:
    """Per-sample results of a `data_parallel` function as host arrays with one batch axis."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(tree))


def check_batch_size(global_batch_size: int, parts: int = 1) -> None:
    """Makes sure that all devices of all hosts get equal parts of a batch.

    Args:
      global_batch_size: samples of a step.
      parts: that each device works on one after the other.

    Raises:
      ConfigError: if they do not; names the nearest sizes that work.
    """
    pieces = jax.device_count() * parts
    if global_batch_size < 1 or global_batch_size % pieces:
        below = global_batch_size // pieces * pieces
        works = " or ".join(str(size) for size in (below, below + pieces) if size > 0)
        in_parts = f" in {parts} parts each" if parts > 1 else ""
        raise ConfigError(
            f"batch_size={global_batch_size} does not divide over {jax.device_count()} "
            f"devices{in_parts}: use {works}"
        )
