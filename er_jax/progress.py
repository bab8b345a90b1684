"""Progress of long work: a bar where there is a terminal, lines in the log where there is none."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

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

from er_jax import parallel

SECONDS_BETWEEN_LOG_LINES = 15.0


class Bar:
    """One piece of work that counts up to its total."""

    def __init__(self, title: str, total: int, unit: str, progress: Progress | None, start: int):
        self._title, self._total, self._unit, self._progress = title, total, unit, progress
        if progress is not None:
            self._task = progress.add_task(title, total=total, completed=start, unit=unit, below="")
        self._done = self._first = start
        self._began = self._logged = time.monotonic()

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
        now = time.monotonic()
        if now - self._logged > SECONDS_BETWEEN_LOG_LINES or self._done == self._total:
            self._logged = now
            rate = (self._done - self._first) / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            logging.info(
                "%s: %d/%d %s, %.1f %s/s, %s left %s",
                self._title,
                self._done,
                self._total,
                self._unit,
                rate,
                self._unit,
                f"{left // 60:.0f} min {left % 60:.0f} s",
                f"({note})" if note else "",
            )


@contextmanager
def progress_bar(title: str, total: int, unit: str, start: int = 0) -> Iterator[Bar]:
    """A bar with rate and time left on a terminal; the same as log lines elsewhere.

    Args:
      title: what is being done.
      total: how many units there are.
      unit: what is counted, in the plural.
      start: how many were done before, by an earlier run.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not parallel.is_first_process():
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
