"""A viser server on this machine, started quietly and stopped for sure."""

import contextlib
import io
import logging
import socket
from collections.abc import Iterator
from typing import Any

from er_jax.utils.errors import ConfigError
from er_jax.viewer.scene import viser_module

LOCAL = "127.0.0.1"
USUAL_PORT = 8080


@contextlib.contextmanager
def running_server(host: str = LOCAL, port: int | None = None) -> Iterator[Any]:
    """A `viser.ViserServer`, until the block ends.

    Args:
      host: that it is bound to; only this machine sees the usual one.
      port: of its page; None: any that is free, the usual one first.

    Raises:
      ConfigError: viser is not installed, or the port cannot be had.
    """
    viser = viser_module()
    logging.getLogger("websockets").setLevel(logging.WARNING)  # each connection
    port = _free_port(host, port)
    with contextlib.redirect_stdout(io.StringIO()):  # it draws a box; the command says where it is
        server = viser.ViserServer(host=host, port=port, label="er_jax", verbose=False)
    try:
        if server.get_port() != port:
            raise ConfigError(f"port {port} is taken: give --port")
        yield server
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


def _free_port(host: str, port: int | None) -> int:
    """The port that is asked for; of none the usual one, or any where that is taken."""
    for tried in (USUAL_PORT, 0) if port is None else (port,):
        with contextlib.closing(socket.socket()) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((host, tried))
            except (OSError, OverflowError) as error:
                reason = error
                continue
            return listening.getsockname()[1]
    raise ConfigError(
        f"{host}, port {port}: cannot be had ({reason}): give another --port, or --host"
    )
