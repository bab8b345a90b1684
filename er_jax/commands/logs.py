"""Logs carry a command's messages to the terminal and to a file beside what it makes."""

import logging
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from er_jax.utils import distributed, progress
from er_jax.utils.xla_cpu import cpu_is_the_backend, prepare_cpu


def prepare(workdir: Path, *, cache_compilation: bool = False) -> None:
    """Makes a run's folder, has the log kept there, and prepares the CPU (see `prepare_cpu`).

    Where an accelerator may compute, compiled programs are always kept in the folder: compiling for
    it, and choosing its kernels by trial, takes minutes at every start.
    """
    keep = cache_compilation or not cpu_is_the_backend()
    prepare_cpu(workdir / "compiled" if keep else None)
    workdir.mkdir(parents=True, exist_ok=True)
    log_to(workdir / "log.txt")


def log_to(file: Path | None) -> None:
    """Sends the project's messages to a file, and to the terminal or whatever stands for it.

    Without a file (None) only there: nobody needs a log of having looked at something. Of several
    processes only the first one does; the others tell their errors and show no bars.
    """
    quieten_libraries()
    terminal = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    terminal.addFilter(lambda record: not hasattr(record, "only_in_file"))
    handlers: list[logging.Handler] = [terminal]
    if not distributed.is_first_process():
        terminal.setLevel(logging.ERROR)
        progress.hide_bars()
    elif file is not None:
        lines = logging.FileHandler(file)
        lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(lines)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def quieten_libraries() -> None:
    """Silences what libraries tell of their own; JAX before it looks for devices."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax and TFDS tell all that they do
    logging.getLogger("jax").setLevel(logging.WARNING)
