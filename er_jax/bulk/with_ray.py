"""The same units on many machines, as a pipeline of Ray Data.

Actors on processors read pictures and find hands, others that hold the network fit them, and this
process writes the units whose rows have all come. What dies, Ray does again; what is whole when
this process itself is ended stays, and the same command goes on.
"""

import dataclasses
import logging
import os
import pickle
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from er_jax.bulk.plan import Plan
from er_jax.bulk.pool import Looker, Looking, Task
from er_jax.bulk.results import Camera, Part, reconstructed
from er_jax.bulk.run import Bulk, Came, Tally, do, made_with, tasks_of, together
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.utils import progress
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import ConfigError
from er_jax.utils.native import native_messages_dropped
from er_jax.utils.xla_cpu import prepare_cpu

LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class Ray:
    """Where and how Ray works.

    Attributes:
      address: of a cluster, "auto" for the one of this machine, or `LOCAL` for a new one.
      weights: see `er_jax.load`, as `step`, `mano_dir`; files that all machines can read.
      step: of the run's checkpoint.
      mano_dir: of MANO's files.
      engines: actors that fit.
      gpus: of each of them.
      lookers: actors that find hands; None: as many as there are processors.
    """

    address: str = LOCAL
    weights: Path | None = None
    step: int | None = None
    mano_dir: Path | None = None
    engines: int = 1
    gpus: float = 0.0
    lookers: int | None = None


def run_with_ray(bulk: Bulk, engine: Engine, looking: Looking, ray: Ray) -> Tally:
    """Does the units that are not done yet, on a cluster.

    Args:
      bulk: what is asked for; its folder is written to by this process alone, and its plan read,
        as the inputs are, by all.
      engine: of this process, which tells what the rows are made with.
      looking: how pictures are looked at.
      ray: where and how.

    Raises:
      ConfigError: Ray is not installed, or no cluster is at the address.
      UserError: see `er_jax.bulk.run.run`.
    """

    def parts_of(plan: Plan, todo: Sequence[int], came: Came) -> Iterator[tuple[int, list[Part]]]:
        looking.detectors(looking.detector_dir)  # better said here than by actors, again and again
        return _by_unit(bulk, looking, ray, todo, came)

    return do(bulk, made_with(engine), parts_of)


def _by_unit(
    bulk: Bulk, looking: Looking, ray: Ray, todo: Sequence[int], came: Came
) -> Iterator[tuple[int, list[Part]]]:
    module = connected(ray.address)
    cores = int(module.cluster_resources().get("CPU", 1))
    units = module.data.from_items([{"unit": unit} for unit in todo], override_num_blocks=len(todo))
    pool = module.data.ActorPoolStrategy
    seen = units.flat_map(
        _Look,
        fn_constructor_args=(bulk.output.absolute(), looking),
        compute=pool(size=ray.lookers or max(cores - ray.engines, 1)),
        num_cpus=1,
    )
    fitted = seen.map(
        _Fit,
        fn_constructor_args=(ray, bulk.camera),
        compute=pool(size=ray.engines),
        num_cpus=1,
        num_gpus=ray.gpus,
    )
    waiting: dict[int, dict[int, Part]] = defaultdict(dict)
    counts: dict[int, int] = {}
    for row in fitted.iter_rows():
        unit = int(row["unit"])
        waiting[unit][int(row["number"])] = came(pickle.loads(row["part"]))
        if row["last"]:
            counts[unit] = int(row["number"]) + 1
        if len(waiting[unit]) == counts.get(unit):
            parts = waiting.pop(unit)
            yield unit, [parts[number] for number in sorted(parts)]


class _Look:
    """Reads a unit's pictures and finds their hands; an actor."""

    def __init__(self, folder: Path, looking: Looking):
        progress.hide_bars()
        self._plan, self._together = Plan(folder), together(looking)
        self._look = Looker(looking)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        unit = int(row["unit"])
        tasks = tasks_of(self._plan, unit, self._together)
        task: Task | None = next(tasks, [])
        number = 0
        while task is not None:
            following = next(tasks, None)
            yield {
                "unit": unit,
                "number": number,
                "last": following is None,
                "seen": pickle.dumps(self._look(task)),
            }
            number, task = number + 1, following


class _Fit:
    """Fits the hands that were found; an actor that loads the network once."""

    def __init__(self, ray: Ray, camera: Camera):
        prepare_cpu(cache_dir() / "compiled")
        progress.hide_bars()
        self._camera = camera
        self._engine = load(weights=ray.weights, step=ray.step, mano_dir=ray.mano_dir, detect=False)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part = reconstructed(pickle.loads(row.pop("seen")), self._engine, self._camera)
        return row | {"part": pickle.dumps(part)}


def connected(address: str) -> Any:
    """Ray, which tells nobody of its use. Best before JAX is used: it may start processes.

    Args:
      address: see `Ray`.

    Raises:
      ConfigError: it is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what else it says nobody can mend
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "--ray needs Ray Data, which is not installed: pip install 'er_jax[ray]'"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with native_messages_dropped():
            ray.init(
                address=None if address == LOCAL else address,
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except ConnectionError as error:
        raise ConfigError(
            f"--ray={address}: no cluster is there ({error}): start one with `ray start --head`, "
            f"or give --ray={LOCAL}"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
