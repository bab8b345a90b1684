"""A page to try it, and a server for programs: what `er_jax web` and `er_jax serve` do."""

import argparse
import contextlib
import logging
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import log_to
from er_jax.utils.arguments import at_least
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import ConfigError
from er_jax.utils.xla_cpu import prepare_cpu

LOOPBACK = ("127.0.0.1", "localhost")


def main(arguments: Sequence[str] | None = None, *, page: bool) -> int:
    """Runs the command; the exit code is that of `er_jax.main`.

    Args:
      arguments: of the command line, without the command's name.
      page: False: the endpoint alone.
    """
    options = _parser(page).parse_args(arguments)
    prepare_cpu(cache_dir() / "compiled")
    cache_dir().mkdir(parents=True, exist_ok=True)
    log_to(cache_dir() / "web.log")
    with exit_with_message():
        serve(options, page=page)
    return 0


def serve(options: argparse.Namespace, *, page: bool) -> None:
    """Serves until Ctrl-C or SIGTERM, and then answers what it has accepted.

    Raises:
      ConfigError: the web's libraries are not installed, or the port is taken.
    """
    uvicorn = _uvicorn()
    from er_jax.web.engines import Engines, warm
    from er_jax.web.limits import Limits
    from er_jax.web.metrics import Metrics
    from er_jax.web.protocol import ImpatientProtocol, Server
    from er_jax.web.server import make_app
    from er_jax.web.worker import Worker

    listening = _listen(options.host, options.port)
    limits = Limits(body_bytes=round(1e6 * options.most_mb), requests=options.requests)
    weights = dict(map(_named, options.weights))
    engines = Engines(weights, options.mano_dir, detector_dir=options.detector_dir)
    metrics = Metrics()
    worker = Worker(engines, waiting=limits.requests, at_once=options.batch, did=metrics.batch)
    hosts = LOOPBACK if options.host in LOOPBACK else ("*",)
    at_end: Callable[[], None] = lambda: None  # noqa: E731
    with _temporary_folder() as folder:
        app = make_app(worker, metrics, limits, hosts)
        if page:
            from er_jax.web.examples import drawn_examples
            from er_jax.web.page import make_page, mount

            examples = drawn_examples(cache_dir())
            shown = make_page(worker, folder, upload_bytes=limits.body_bytes, examples=examples)
            app = mount(app, shown)
            at_end = shown.end
        console = Console(stderr=True)
        with console.status("Compiling, once for each machine"):
            worker.run(engines.usual, lambda engine: warm(engine, worker.at_once)).result()
        address = "http://{}:{}".format(*listening.getsockname()[:2])
        what = f"Open {address}" if page else f"POST pictures to {address}/reconstruct"
        console.print(f"{what} · Ctrl-C ends it")
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            log_level="warning",
            access_log=False,
            limit_concurrency=8 * limits.requests,
            timeout_graceful_shutdown=round(limits.answer_s),
            server_header=False,
        )
        signal.signal(signal.SIGTERM, _exit)
        with contextlib.suppress(KeyboardInterrupt):
            Server(config, at_end).run(sockets=[listening])
    logging.info("Ended")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot listen there ({error}): choose another --port, or 0 for any"
        ) from None


def _named(text: str) -> tuple[str, Path]:
    """Weights as NAME=PATH, or a path, whose last part is the name."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals else (Path(text).absolute().name, Path(text))


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="er_jax_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exit(number: int, frame: FrameType | None) -> None:
    """What SIGTERM does before and after Uvicorn, which waits for its requests, handles it."""
    sys.exit(0)


def _parser(page: bool) -> argparse.ArgumentParser:
    described = (
        "Serves a page on this machine: a picture or a clip in, hands to turn and to take away "
        "out. Nothing is sent anywhere. Programs may use it too, as they do `er_jax serve`."
        if page
        else "Serves the reconstruction to programs: POST a picture's file to /reconstruct, and "
        "get JSON with meshes; /health, /metrics (Prometheus), /openapi.json."
    )
    parser = argparse.ArgumentParser(
        prog="er_jax web" if page else "er_jax serve", description=described
    )
    add = parser.add_argument
    several = "a trained network (its run's folder, or er.safetensors); several: to choose from"
    add("--weights", action="append", default=[], metavar="[NAME=]PATH", help=several)
    add("--mano_dir", type=Path, help="MANO's files; without: the stand-in hand alone")
    add("--detector_dir", type=Path, help="of the detector's two networks")
    add("--host", default=LOOPBACK[0], help="address to listen at (this machine alone)")
    add("--port", type=int, default=7860 if page else 8000, help="0: any that is free")
    add("--most_mb", type=float, default=25.0, help="largest picture file (25 MB)")
    add("--batch", type=at_least(1), default=8, help="pictures done together (8)")
    add("--requests", type=at_least(1), default=64, help="at once; more are refused (64)")
    return parser


def _uvicorn() -> Any:
    """Uvicorn, if all that the server needs is installed.

    Raises:
      ConfigError: it is not.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"the page and the server need {error.name}, which is not installed: "
            "pip install 'er_jax[web]'"
        ) from None
    return uvicorn
