"""Progress of long work: a bar in a terminal, now and then a log line elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 10.0


class Tracker:
    """Shows one piece of work after another, each known by its description."""

    def __init__(self, bars: Progress | None):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._logged: dict[str, float] = {}

    def __call__(self, description: str, done: int, total: int) -> None:
        """Says that `done` of `total` are done."""
        if self._bars is not None:
            if description not in self._tasks:
                self._tasks[description] = self._bars.add_task(description, total=total)
            self._bars.update(self._tasks[description], completed=done, total=total)
            return
        now = time.monotonic()
        started = self._started.setdefault(description, now)
        if now - self._logged.get(description, started) >= LOG_EVERY_SECONDS:
            self._logged[description] = now
            rate = done / (now - started)
            left = f"{(total - done) / rate:.0f} s left" if rate > 0 else ""
            logger.info("%s: %d of %d, %.0f/s, %s", description, done, total, rate, left)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


@contextmanager
def tracker(console: Console | None = None) -> Iterator[Tracker]:
    """A tracker on standard error."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Tracker(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield Tracker(bars)
