"""A plan's units, done one after the other: on this machine's processes and device, or by Ray."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from er_jax.bulk.plan import NAME, Plan, make_plan
from er_jax.bulk.pool import Looker, Looking, Pool, Result, Task
from er_jax.bulk.results import (
    Camera,
    Made,
    Part,
    reconstructed,
    undo_failed,
    units_done,
    write_unit,
)
from er_jax.bulk.sources import VIDEO, entries_of, pictures_of
from er_jax.photographs.engine import Engine
from er_jax.utils.errors import ConfigError, disk_errors
from er_jax.utils.locks import locked
from er_jax.utils.progress import one_bar, progress_bar
from er_jax.utils.provenance import code_version

TOGETHER, TOGETHER_WITH_PIXELS = 64, 16
"""Pictures that are looked at by one process, and then fitted together."""
TOGETHER_BYTES = 64_000_000
"""Most bytes of such pictures, where they come from tables and tars."""

Came = Callable[[Part], Part]
"""Told of each part that comes; gives it on."""


@dataclasses.dataclass(frozen=True)
class Bulk:
    """What is asked for.

    Attributes:
      inputs: see `entries_of`, as `column`.
      output: folder of the plan, which has the settings, and of the three tables.
      camera: of all pictures.
      column: of the tables.
      unit: pictures of a unit, about.
      part: which share of the units this process does: its number from 0, and of how many.
      retry: do the units again in which something failed, because a disk was not there perhaps.
    """

    inputs: tuple[str, ...]
    output: Path
    camera: Camera = dataclasses.field(default_factory=Camera)
    column: str | None = None
    unit: int = 1000
    part: tuple[int, int] = (0, 1)
    retry: bool = False


@dataclasses.dataclass
class Tally:
    """What was done.

    Attributes:
      units: that were done by this call.
      inputs: pictures, and pieces of videos, of these.
      hands: rows of these.
      failed: what could not be read.
    """

    units: int = 0
    inputs: int = 0
    hands: int = 0
    failed: int = 0

    def add(self, parts: Sequence[Part]) -> None:
        """Counts a unit."""
        self.units += 1
        self.inputs += sum(len(part.inputs) for part in parts)
        self.hands += sum(len(part.hands) for part in parts)
        self.failed += sum(len(part.failed) for part in parts)


def made_with(engine: Engine) -> Made:
    """What an engine's rows are made with."""
    code = code_version()
    return Made(
        weights_sha256=engine.weights_sha256 or "",
        hand_model_sha256=engine.hand_model.sha256,
        code_sha256=str(code["sha256"]),
        code_commit=code["commit"] or "",
    )


def planned(bulk: Bulk, made: Made) -> Plan:
    """The plan of a bulk, made now or found.

    Raises:
      ConfigError: the folder was begun with other inputs, weights or settings.
      UserError: see `entries_of`, `make_plan`.
    """
    wanted = _settings(bulk, made)
    if not (bulk.output / NAME).exists():
        entries = entries_of(bulk.inputs, bulk.column)
        make_plan(bulk.output, entries, bulk.unit, wanted, "part-{}-of-{}".format(*bulk.part))
    plan = Plan(bulk.output)
    _check(plan.settings, wanted, bulk.output)
    return plan


def run(bulk: Bulk, engine: Engine, looking: Looking, processes: int) -> Tally:
    """Does the units that are not done yet, on this machine.

    Args:
      bulk: what is asked for.
      engine: that fits.
      looking: how pictures are looked at.
      processes: that do so; 0: this one does it itself.

    Raises:
      DataError: another process does this part of it.
      DiskError: the disk is full, or a folder may not be written; what is whole is kept.
      UserError: see `planned`.
    """

    def parts_of(plan: Plan, todo: Sequence[int], came: Came) -> Iterator[tuple[int, list[Part]]]:
        with contextlib.ExitStack() as stack:
            if processes:
                pool = Pool(processes, looking)
                stack.callback(pool.close)
                seen_of = pool.map
            else:
                seen_of = functools.partial(map, Looker(looking))
            for unit, seen in _by_unit(plan, todo, together(looking), seen_of):
                yield unit, [came(reconstructed(one, engine, bulk.camera)) for one in seen]

    return do(bulk, made_with(engine), parts_of)


def do(
    bulk: Bulk,
    made: Made,
    parts_of: Callable[[Plan, Sequence[int], Came], Iterator[tuple[int, list[Part]]]],
) -> Tally:
    """Writes the units that are not done yet, as they come.

    Args:
      bulk: what is asked for.
      made: with what.
      parts_of: gives the rows of units, in whatever order they come, and says when a part has come.
    """
    tally = Tally()
    with disk_errors(bulk.output), _alone(bulk):
        plan = planned(bulk, made)
        number, count = bulk.part
        own = range(number, plan.units, count)
        if bulk.retry:
            undo_failed(bulk.output, own)
        done = units_done(bulk.output)
        todo = [unit for unit in own if unit not in done]
        _tell(plan, len(own), len(todo))
        if not todo:
            return tally
        with progress_bar("Reconstructing", len(own), "units", len(own) - len(todo)) as bar:
            began, inputs = time.monotonic(), 0

            def came(part: Part) -> Part:
                nonlocal inputs
                inputs += len(part.inputs) + len(part.failed)
                rate = inputs / (time.monotonic() - began)
                bar.advance(0, note=f"{inputs} inputs, {rate:.1f} a second")
                return part

            with one_bar():
                for unit, parts in parts_of(plan, todo, came):
                    write_unit(bulk.output, unit, parts, made)
                    tally.add(parts)
                    bar.advance()
    return tally


def tasks_of(plan: Plan, unit: int, together: int) -> Iterator[Task]:
    """What of a unit one process looks at at once, always the same."""
    entries = plan.unit(unit)
    pictures = (
        picture for entry in entries if entry.kind != VIDEO for picture in pictures_of(entry)
    )
    some, size = [], 0
    for picture in pictures:
        some.append(picture)
        size += len(picture.data or b"")
        if len(some) == together or size > TOGETHER_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
    yield from (entry for entry in entries if entry.kind == VIDEO)


def together(looking: Looking) -> int:
    """Pictures of a task."""
    return TOGETHER_WITH_PIXELS if looking.keep_pixels else TOGETHER


def _by_unit(
    plan: Plan,
    todo: Sequence[int],
    together: int,
    seen_of: Callable[[Iterator[Task]], Iterator[Result]],
) -> Iterator[tuple[int, Iterator[Result]]]:
    """What is seen of each unit, while the pictures of the next one are looked at already."""
    owners: deque[int] = deque()  # of the tasks that were given out and have not come back

    def tasks() -> Iterator[Task]:
        for unit in todo:
            for task in tasks_of(plan, unit, together):
                owners.append(unit)
                yield task

    results = ((owners.popleft(), seen) for seen in seen_of(tasks()))
    waiting = iter(todo)
    for unit, own in itertools.groupby(results, key=lambda pair: pair[0]):
        for number in waiting:
            if number == unit:
                break
            yield number, iter([[]])  # it has no picture, a tar of texts perhaps
        yield unit, (seen for _, seen in own)
    for number in waiting:
        yield number, iter([[]])


def _settings(bulk: Bulk, made: Made) -> dict[str, Any]:
    return {
        "inputs": list(bulk.inputs),
        "column": bulk.column,
        "unit": bulk.unit,
        **{name: value and list(value) for name, value in vars(bulk.camera).items()},
        **dataclasses.asdict(made),
    }


def _check(before: dict[str, Any], now: dict[str, Any], output: Path) -> None:
    told_only = ("code_sha256", "code_commit")
    different = [
        f"{name}: {before.get(name)!r} there, {now[name]!r} now"
        for name in now
        if name not in told_only and before.get(name) != now[name]
    ]
    if different:
        raise ConfigError(
            f"{output} was begun with something else: {'; '.join(different)}. Give another "
            "--output, or ask for the same."
        )
    if before.get("code_sha256") != now["code_sha256"]:
        logging.warning(
            "%s was begun by other code (commit %s; now %s): its rows say which made them",
            *(output, before.get("code_commit") or "unknown", now["code_commit"] or "unknown"),
        )


def _tell(plan: Plan, own: int, todo: int) -> None:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(plan.made))
    logging.info("%d of %d units are done, by the plan of %s", own - todo, own, made)
    if not todo:
        logging.info("What came into the inputs since then is not in it: give it another --output")


def _alone(bulk: Bulk) -> Any:
    number, count = bulk.part
    share = "" if count == 1 else f" part {number} of {count} of"
    return locked(
        bulk.output / f".part-{number}-of-{count}.lock",
        f"Another process does{share} {bulk.output} now: wait for it, or end it.",
    )
