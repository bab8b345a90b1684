"""Any result in 3D, live in a browser or as one HTML file: what `er_jax view` does."""

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import log_to
from er_jax.utils.cache import cache_dir
from er_jax.utils.xla_cpu import prepare_cpu
from er_jax.viewer.pictures import pictures_of, with_times_of
from er_jax.viewer.result import read_result
from er_jax.viewer.scene import viser_module
from er_jax.viewer.server import LOCAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    prepare_cpu(cache_dir() / "compiled")
    log_to(None)
    with exit_with_message():
        viser_module()  # better known before anything is read
        result = read_result(options.result, source=options.source, mano_dir=options.mano_dir)
        pictures = pictures_of(result.path, result.clip, result.picture_name, options.picture)
        result = dataclasses.replace(result, clip=with_times_of(result.clip, pictures))
        for message in result.clip.messages:
            logging.warning("%s: %s", result.path, message)
        if options.html is not None:
            from er_jax.viewer.page import write_page

            size = write_page(result, pictures, options.html)
            logging.info("%s: %.1f MB, open it in a browser", options.html, size / 1e6)
            return 0
        from er_jax.viewer.live import LiveViewer
        from er_jax.viewer.server import running_server

        with running_server(options.host, options.port) as server:
            viewer = LiveViewer(server, result, pictures)
            address = f"http://{options.host}:{server.get_port()}"
            Console(stderr=True).print(f"Look at {address} · Ctrl-C ends")
            with contextlib.suppress(KeyboardInterrupt):
                viewer.play()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="er_jax view",
        description="Shows a result in 3D: the hands, their joints and how sure they are, and the "
        "picture in the camera's frustum; on a page of this machine, or as one HTML file.",
    )
    add = parser.add_argument
    add("result", type=Path, help="NAME_hands.parquet, NAME_hands.json, or a folder with one")
    add("--html", type=Path, help="write this file, which opens without server and network")
    add("--picture", type=Path, help="that the hands were found in; without: beside the result")
    add("--mano_dir", type=Path, help="MANO's files, where the result was made with them")
    add("--source", help="which clip of a table that has several")
    add("--host", default=LOCAL, help=f"of the page; others than {LOCAL} let others see it")
    add("--port", type=int, help="of the page; without: one that is free")
    return parser
