"""Connections on which nothing comes are closed."""

import asyncio

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
