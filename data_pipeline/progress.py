"""Progress of the steps of a build, one bar after another."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from er_jax.progress import Bar, progress_bar


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
