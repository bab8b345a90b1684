"""Progress of long work: a bar where there is a terminal, lines in the log where there is none."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LOG_LINES = 15.0

_shown = True
_told = True


def hide_bars() -> None:
    """Has this process show no bars from now on: another one of the same command does."""
    global _shown
    _shown = False


@contextmanager
def one_bar() -> Iterator[None]:
    """What begins meanwhile says nothing of its progress: it is part of something that does."""
    global _told
    before, _told = _told, False
    try:
        yield
    finally:
        _told = before


class Bar:
    """One piece of work that counts up to its total."""

    def __init__(
        self, title: str, total: int | None, unit: str, progress: Progress | None, start: int
    ):
        self._title, self._total, self._unit, self._progress = title, total, unit, progress
        if progress is not None:
            self._task = progress.add_task(title, total=total, completed=start, unit=unit, below="")
        self._done = self._first = start
        self._began = self._logged = time.monotonic()
        self._told = _told
        self._warm = False  # the first unit, which may be compiled, does not count

    def advance(self, count: int = 1, note: str = "", details: str = "") -> None:
        """Counts on.

        Args:
          count: units done.
          note: what is known of the work, such as the current loss; below the bar.
          details: more of it, on a terminal only.
        """
        self._done += count
        if self._progress is not None:
            self._progress.advance(self._task, count)
            if note:
                self._progress.update(self._task, below=f"  {note}\n  {details}".rstrip())
            return
        if not self._told:
            return
        now = time.monotonic()
        if not self._warm:
            self._warm, self._first, self._began = True, self._done, now
        if now - self._logged > SECONDS_BETWEEN_LOG_LINES or self._done == self._total:
            self._logged = now
            of_total = "" if self._total is None else f"/{self._total}"
            logging.info(
                "%s: %d%s %s%s%s",
                *(self._title, self._done, of_total, self._unit, self._speed(now)),
                f" ({note})" if note else "",
            )

    def _speed(self, now: float) -> str:
        """Rate and time left, where two units or more tell."""
        if self._done == self._first:
            return ""
        rate = (self._done - self._first) / max(now - self._began, 1e-9)
        left = 0.0 if self._total is None else (self._total - self._done) / rate
        time_left = f", {left // 60:.0f} min {left % 60:.0f} s left" if left else ""
        return f", {rate:.1f} {self._unit}/s{time_left}"


@contextmanager
def progress_bar(title: str, total: int | None, unit: str, start: int = 0) -> Iterator[Bar]:
    """A bar with rate and time left on a terminal; the same as log lines elsewhere.

    Args:
      title: what is being done.
      total: how many units there are; None: nobody knows.
      unit: what is counted, in the plural.
      start: how many were done before, by an earlier run.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not (_shown and _told):
        yield Bar(title, total, unit, None, start)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with _ProgressWithNotes(*columns, console=console) as progress:
        yield Bar(title, total, unit, progress, start)


class _ProgressWithNotes(Progress):
    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        yield from (Text(task.fields["below"]) for task in self.tasks if task.fields["below"])


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.1f} {task.fields['unit']}/s" if rate else "")


class Tracker:
    """Shows one step at a time; a step begins when its description is first heard."""

    def __init__(self, stack: ExitStack):
        self._stack = stack
        self._description = ""
        self._bar: Bar | None = None
        self._done = 0

    def __call__(self, description: str, done: int, total: int) -> None:
        """Says that `done` of `total` are done."""
        if self._bar is None or description != self._description:
            self._stack.close()
            bar = progress_bar(description, total, description.split(": ")[-1], done)
            self._bar = self._stack.enter_context(bar)
            self._description, self._done = description, done
        self._bar.advance(done - self._done)
        self._done = done


@contextmanager
def tracker() -> Iterator[Tracker]:
    """A tracker on standard error."""
    with ExitStack() as stack:
        yield Tracker(stack)
