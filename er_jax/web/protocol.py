"""Uvicorn as it is used here: silent connections are closed, and the page is told of the end."""

import asyncio
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
"""In which a connection's first request must have told its headers."""


class ImpatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1, which itself would wait for the first headers for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait."""
        super().connection_made(transport)
        self.loop.call_later(HEADERS_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """A server that says so before it waits for its connections to close.

    Args:
      config: see Uvicorn.
      at_end: called when it is told to end.
    """

    def __init__(self, config: uvicorn.Config, at_end: Callable[[], None]):
        super().__init__(config)
        self._at_end = at_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What SIGTERM and Ctrl-C do."""
        self._at_end()
        super().handle_exit(sig, frame)
