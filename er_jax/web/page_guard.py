"""What of Gradio's server is answered, to whom it may turn, and how much may be sent to it."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from er_jax.web.page_files import Files, FullError

API = "/gradio_api"
USED = re.compile(
    r"GET (/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static)/.+"
    rf"|{API}/(info/?|app_id/?|user|login_check|startup-events|theme\.css|upload_progress"
    r"|queue/data|heartbeat/[^/]+|call/[^/]+/[^/]+|file=(?![A-Za-z]+:).+))"
    rf"|HEAD (/|{API}/file=(?![A-Za-z]+:).+)"
    rf"|POST {API}/(upload|queue/join|(run|call|call/v2)/[^/]+/?|cancel|reset/?)"
)
"""All that the page and Gradio's clients ask for; nothing else is answered, URLs to fetch least."""
CALL_BYTES = 200_000
"""Largest call: files are uploaded before, and named in it."""
FORM_BYTES = 10_000
"""What an upload has beside its file."""
ENDING_S = 0.5
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
FULL = "As many are waiting as may wait here: try again in a minute."
_META = re.compile(rb'\s*<meta\s+(property="og:|name="twitter:)[^>]*>')
_BUSY, _TOO_MANY = 503, 429  # of 503 Gradio's page tells words of its own


class Guard:
    """Middleware around Gradio's application.

    Args:
      app: that is guarded.
      files: where all uploads lie; nothing else can be named in a call.
      upload_bytes: largest upload.
      ending: set when the server is told to end.
    """

    def __init__(self, app: ASGIApp, files: Files, upload_bytes: int, ending: threading.Event):
        self._app, self._files, self._upload_bytes = app, files, upload_bytes
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if not USED.fullmatch(f"{scope['method']} {path}"):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif path == f"{API}/upload":
            await self._upload(scope, receive, send)
        elif scope["method"] == "POST":
            await self._call(scope, receive, send)
        elif path == "/":
            await self._page(scope, receive, send)
        elif path.startswith(f"{API}/heartbeat/"):
            await self._app(scope, self._until_the_end(receive), send)
        else:
            await self._app(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        most = self._upload_bytes + FORM_BYTES
        if not length.isdigit():
            await PlainTextResponse("say how large the upload is", 411)(scope, receive, send)
        elif int(length) > most:
            text = f"The file is too large: {self._upload_bytes / 1e6:.0f} MB at most."
            await PlainTextResponse(text, 413)(scope, receive, send)
        else:
            try:
                with self._files.room(int(length)):
                    await self._app(scope, receive, send)
            except FullError as error:
                await PlainTextResponse(str(error), 507)(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole(receive, CALL_BYTES)
        if body is None:
            await PlainTextResponse("the call is too long", 413)(scope, receive, send)
            return
        try:
            foreign = next(
                (path for path in _paths(json.loads(body)) if path not in self._files), None
            )
        except (ValueError, RecursionError):
            foreign = "what is no JSON"
        if foreign is not None:
            text = f"{foreign[:200]} was not uploaded, or has been removed since: upload it again."
            await _told(text, 400)(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        refused = False

        async def answer(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == _BUSY:
                refused = True
            elif not refused:
                await send(message)

        await self._app(scope, again, answer)
        if refused:
            await _told(FULL, _TOO_MANY)(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page without its links to other servers."""
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def changed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                body = _META.sub(b"", b"".join(parts))
                if "content-length" in (headers := MutableHeaders(scope=start)):
                    headers["content-length"] = str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self._app({**scope, "headers": plain}, receive, changed)

    def _until_the_end(self, receive: Receive) -> Receive:
        """As if the browser had gone, when the server ends: it would wait for it."""

        async def received() -> Message:
            waiting = asyncio.ensure_future(receive())
            while not (await asyncio.wait({waiting}, timeout=ENDING_S))[0]:
                if self._ending.is_set():
                    waiting.cancel()
                    return {"type": "http.disconnect"}
            return waiting.result()

        return received


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = POLICY
            headers["referrer-policy"] = "no-referrer"
            headers["x-content-type-options"] = "nosniff"
        await send(message)

    return sent


async def _whole(receive: Receive, most: int) -> bytes | None:
    """A request's body; None: it is larger, or nobody waits for its answer."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return body


def _paths(value: Any) -> Iterator[str]:
    """All that a call names as a file."""
    if isinstance(value, dict):
        if (path := value.get("path")) is not None:
            yield str(path)
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list):
        for one in value:
            yield from _paths(one)


def _told(text: str, status: int) -> Response:
    return Response(json.dumps({"detail": text}), status, media_type="application/json")
