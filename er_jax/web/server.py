"""The reconstruction behind one HTTP endpoint; `docs/server.md` shows how programs use it."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from er_jax.photographs.photograph import read_photograph
from er_jax.photographs.result import Reconstruction
from er_jax.utils.arguments import numbers
from er_jax.utils.errors import BadImageError, ConfigError, UserError
from er_jax.web.engines import Choice
from er_jax.web.limits import Limits
from er_jax.web.metrics import Metrics
from er_jax.web.worker import BusyError, Worker

ENDPOINT = "/reconstruct"
DECODERS = 4
"""Pictures that are decoded at once."""
ANSWER_SENT_S = 30.0
"""In which a client must have taken its answer."""
_CLIENT_GONE = 499  # as nginx counts clients that did not wait
_LAST = {"Connection": "close"}  # of answers to bodies that were not read to their end
_BODY = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string"}}}}}


class Options(BaseModel, extra="forbid"):
    """What a request's query may say."""

    network: Annotated[str | None, Field(description="name of the weights")] = None
    hand_model: Annotated[str | None, Field(description="stand-in or MANO")] = None
    focal: Annotated[str | None, Field(description="pixels; one number, or x,y")] = None
    principal_point: Annotated[str | None, Field(description="x,y in pixels")] = None
    meshes: Annotated[bool, Field(description="with vertices and faces")] = True


def make_app(
    worker: Worker, metrics: Metrics, limits: Limits, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """The application: `POST /reconstruct`, `GET /health`, `GET /metrics`, `GET /openapi.json`.

    When it ends, what it has accepted is answered, and the worker is closed.

    Args:
      worker: that does the work; a page may share it.
      metrics: to count in.
      limits: of requests.
      hosts: names by which browsers may call it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(worker.close)

    app = FastAPI(title="er_jax", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(_Watched, metrics=metrics, limits=limits)
    metrics.watch(lambda: worker.waiting)
    places = _Places(limits.requests)
    decoders = anyio.CapacityLimiter(DECODERS)

    @app.post(ENDPOINT, openapi_extra=_BODY)
    async def reconstruct(request: Request, options: Annotated[Options, Query()]) -> Response:
        """The hands in a picture, which is the request's body, as the command's JSON has them."""
        with places.one(), _errors_as_statuses():
            choice = _choice(options, worker)
            data = await _body(request, limits)
            photograph = await anyio.to_thread.run_sync(
                lambda: read_photograph(Path("the picture"), data, most_pixels=limits.pixels),
                limiter=decoders,
            )
            future = worker.reconstruct(dataclasses.replace(photograph, path=None), choice)
            result = await _wait(request, asyncio.wrap_future(future), limits.answer_s)
            text = await run_in_threadpool(_text, result, options.meshes)
        return Response(text, media_type="application/json")

    @app.get("/health")
    def health() -> Response:
        """Status 200 while pictures are taken, else 503."""
        engines = worker.engines
        told = {
            "status": "ready" if worker.alive else "closing",
            "waiting": worker.waiting,
            "networks": engines.networks,
            "hand_models": engines.hand_models,
        }
        status = 200 if worker.alive else 503
        return Response(json.dumps(told), status, media_type="application/json")

    @app.get("/metrics")
    def all_metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


class _Watched:
    """Counts the endpoint's answers, and ends those whose clients do not take them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, limits: Limits):
        self._app, self._metrics = app, metrics
        self._most_s = limits.body_s + limits.answer_s + ANSWER_SENT_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != ENDPOINT:
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.timed(lambda: status):
            async with asyncio.timeout(self._most_s):
                await self._app(scope, receive, watched)


class _Places:
    """For so many requests at once."""

    def __init__(self, most: int):
        self._most, self._taken = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        if self._taken >= self._most:
            raise _busy(f"{self._taken} requests are being answered")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@contextmanager
def _errors_as_statuses() -> Iterator[None]:
    try:
        yield
    except BadImageError as error:
        raise HTTPException(400, str(error)) from None
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
    except UserError as error:
        raise HTTPException(500, str(error)) from None
    except BusyError as error:
        raise _busy(str(error)) from None


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"busy: {reason}; ask again later", headers={"Retry-After": "1"})


def _choice(options: Options, worker: Worker) -> Choice:
    """What the query asks for.

    Raises:
      ConfigError: there is no such thing.
    """
    focal = numbers("focal", options.focal)
    middle = numbers("principal_point", options.principal_point, 2)
    usual = worker.engines.usual
    choice = Choice(
        network=options.network or usual.network,
        hand_model=options.hand_model or usual.hand_model,
        focal_px=(focal[0], focal[-1]) if focal else None,
        principal_point_px=(middle[0], middle[1]) if middle else None,
    )
    worker.engines.check(choice)
    return choice


async def _body(request: Request, limits: Limits) -> bytes:
    """The picture's file, which the request's body is."""
    too_large = HTTPException(
        413, f"more than {limits.body_bytes / 1e6:g} MB: make the picture smaller", headers=_LAST
    )
    if int(request.headers.get("content-length", 0)) > limits.body_bytes:
        raise too_large
    if request.headers.get("content-type", "").startswith("multipart/"):
        told = "a form: send the file itself as the body (curl --data-binary @photo.jpg)"
        raise HTTPException(415, told, headers=_LAST)
    data = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        told = f"the picture did not come within {limits.body_s:g} s"
        raise HTTPException(408, told, headers=_LAST) from None
    except ClientDisconnect:
        raise HTTPException(_CLIENT_GONE, "the client has gone") from None
    if not data:
        raise HTTPException(400, "no body: send the picture's file (curl --data-binary @photo.jpg)")
    return bytes(data)


async def _wait(
    request: Request, future: "asyncio.Future[Reconstruction]", seconds: float
) -> Reconstruction:
    """What comes of a picture; nobody's picture is taken out of the queue."""

    async def client_left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    left = asyncio.ensure_future(client_left())
    both: set[asyncio.Future[Any]] = {future, left}
    done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    left.cancel()
    if future in done:
        return future.result()
    future.cancel()
    if left in done:
        raise HTTPException(_CLIENT_GONE, "the client has gone")
    raise HTTPException(504, f"not done within {seconds:g} s: ask again later")


def _text(result: Reconstruction, meshes: bool) -> str:
    told = result.to_dict(vertices=meshes)
    if meshes:
        right, left = result.faces.tolist()
        told["faces"] = {"right": right, "left": left}
    return json.dumps(told, allow_nan=False)
