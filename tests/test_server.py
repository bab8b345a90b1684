"""The HTTP endpoint: what it answers, what it refuses, and that nobody can hold it up."""

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_photographs import Known, detected, drawn
from test_worker import OneEngine

from er_jax.commands.web import main
from er_jax.mano import load_hands
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import read_photograph
from er_jax.utils.errors import DataError
from er_jax.web.engines import warm
from er_jax.web.limits import Limits
from er_jax.web.worker import Worker

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from er_jax.web import protocol  # noqa: E402
from er_jax.web.metrics import Metrics  # noqa: E402
from er_jax.web.server import ENDPOINT, make_app  # noqa: E402

LIMITS = Limits(body_bytes=200_000, pixels=300_000, requests=6, body_s=1.0, answer_s=60.0)


def png(width: int = 512, height: int = 400, seed: int = 0) -> bytes:
    colour = tuple(np.random.default_rng(seed).integers(0, 255, 3).tolist())
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


class Held:
    """An engine that tells when it was asked, waits until it may go on; wide pictures break it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

    def many(self, pictures, **camera):
        self.asked.release()
        assert self.go.wait(30)
        if any(one.size_px[0] > 600 for one in pictures):
            raise DataError("the network is tired")
        return self._engine.many(pictures, **camera)


class Running:
    """A server in a thread."""

    def __init__(self, app, worker: Worker, engine: Held) -> None:
        self.worker, self.engine = worker, engine
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(app, http=protocol.ImpatientProtocol, log_level="error")
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, args=([self._socket],))
        self._thread.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def post(self, data: bytes, **query):
        return self.client.post(ENDPOINT, content=data, params=query)

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def counted(self, name: str) -> float:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.M)
        return float(value)

    def end(self) -> None:
        self.engine.go.set()
        self.client.close()
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def engine():
    made = Engine(load_hands(), detector=Known(detected(drawn(1, (0, 1), seed=7))))
    warm(made, 4)  # no answer waits for a compiler
    return made


@pytest.fixture
def serve(engine, monkeypatch):
    """Starts servers, and ends them."""
    monkeypatch.setattr(protocol, "HEADERS_S", 1.0)
    started = []

    def start(limits: Limits) -> Running:
        held, metrics = Held(engine), Metrics()
        worker = Worker(OneEngine(held), waiting=4, at_once=4, did=metrics.batch)
        app = make_app(worker, metrics, limits, ["127.0.0.1"])
        started.append(Running(app, worker, held))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture
def served(serve):
    return serve(LIMITS)


def test_the_answer_is_what_the_engine_says_with_its_meshes(served, engine):
    data = png()
    answer = served.post(data, focal="620,600", principal_point="255.5,199.5")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    result = engine(
        read_photograph(Path("a"), data).pixels,
        focal_px=(620.0, 600.0),
        principal_point_px=(255.5, 199.5),
    )
    told = answer.json()
    faces = told.pop("faces")
    assert told == json.loads(json.dumps(result.to_dict(vertices=True)))
    assert [faces["right"], faces["left"]] == result.faces.tolist()
    assert told["camera"]["focal_source"] == "given"
    (person,) = told["persons"]
    assert np.shape(person["right"]["vertices_m"]) == (778, 3)
    assert np.array(faces["left"]).max() == 777
    small = served.post(data, meshes="false").json()
    assert "faces" not in small and "vertices_m" not in small["persons"][0]["left"]
    assert small["camera"]["focal_source"] == "assumed"


@pytest.mark.parametrize(
    ("data", "query", "status", "told"),
    [
        (b"no picture", {}, 400, "the picture: not an image"),
        (png()[:-50], {}, 400, "cannot be read whole"),
        (b"", {}, 400, "no body"),
        (png(1000, 400), {}, 400, "larger than 0 megapixels"),
        (bytes(200_001), {}, 413, "more than 0.2 MB"),
        (png(), {"focal": "wide"}, 422, "focal=wide: give one number"),
        (png(), {"focal": "-5"}, 422, "focal length above zero"),
        (png(), {"focal_px": "5"}, 422, "focal_px"),
        (png(), {"network": "hers"}, 422, "network='hers': choose one of"),
        (png(610, 100), {}, 500, "the network is tired"),
    ],
)
def test_what_cannot_be_answered_is_told(served, data, query, status, told):
    answer = served.post(data, **query)
    assert answer.status_code == status, answer.text
    assert told in json.dumps(answer.json(), ensure_ascii=False)
    assert served.counted(f'er_jax_answers_total{{status="{status}"}}') == 1
    assert served.post(png()).status_code == 200


def test_a_form_is_told_how_to_do_it(served):
    answer = served.client.post(ENDPOINT, files={"file": png()})
    assert answer.status_code == 415 and "--data-binary" in answer.json()["detail"]


def test_other_sites_cannot_call_it_by_another_name(served):
    assert served.client.get("/health", headers={"Host": "elsewhere.org"}).status_code == 400
    assert served.client.get("/health").json()["status"] == "ready"
    assert served.client.get("/docs").status_code == 404  # it would fetch from another server
    query = served.client.get("/openapi.json").json()["paths"][ENDPOINT]["post"]["parameters"]
    assert {one["name"] for one in query} >= {"focal", "principal_point", "network", "meshes"}


def test_requests_at_once_are_done_together_and_too_many_refused(served):
    served.engine.go.clear()
    with ThreadPoolExecutor(12) as clients:
        first = clients.submit(served.post, png(seed=1))
        assert served.engine.asked.acquire(timeout=20)
        others = [clients.submit(served.post, png(seed=seed)) for seed in range(2, 6)]
        wait_for(lambda: served.worker.waiting == 4)
        full = served.post(png(seed=9))  # the queue
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert "4 are waiting" in full.json()["detail"]
        assert served.client.get("/health").json()["waiting"] == 4
        assert served.counted("er_jax_waiting") == 4
        served.engine.go.set()
        assert {one.result().status_code for one in [first, *others]} == {200}
    assert served.counted('er_jax_batch_pictures_bucket{le="1.0"}') == 1
    assert served.counted("er_jax_batch_pictures_sum") == 5
    assert served.counted("er_jax_batch_pictures_count") == 2
    assert served.counted('er_jax_answers_total{status="503"}') == 1


def test_no_more_requests_than_may_are_read(served):
    """Bodies that never end take places, until their time is over."""
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS.requests):
            sending = stack.enter_context(served.connection())
            sending.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            sending.sendall(b"Content-Length: 1000\r\n\r\nabc")
        wait_for(lambda: served.post(png()).status_code == 503)
        assert sending.recv(1000).startswith(b"HTTP/1.1 408")
        wait_for(lambda: served.post(png()).status_code == 200)


def test_a_client_that_hangs_is_left_and_others_are_served(served):
    with served.connection() as silent, served.connection() as halfway:
        halfway.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-")
        assert served.post(png()).status_code == 200
        assert silent.recv(1) == b"" and halfway.recv(1) == b""


def test_a_gigabyte_is_not_read(served):
    begin = b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with served.connection() as announced:
        announced.sendall(begin + b"Content-Length: 1000000000\r\n\r\n")
        assert announced.recv(1000).startswith(b"HTTP/1.1 413")
    with served.connection() as chunked:
        chunked.sendall(begin + b"Transfer-Encoding: chunked\r\n\r\n")
        sent, chunk = 0, b"10000\r\n" + bytes(65536) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while sent < 10**9:
                chunked.sendall(chunk)
                sent += 65536
        assert sent < 10**8
    assert served.post(png()).status_code == 200


def test_who_waits_too_long_is_told_and_who_leaves_is_forgotten(serve):
    served = serve(dataclasses.replace(LIMITS, answer_s=4.0))
    served.engine.go.clear()
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.post, png())
        assert served.engine.asked.acquire(timeout=20)
        with served.connection() as leaving:
            data = png(seed=3)
            leaving.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            leaving.sendall(f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
            wait_for(lambda: served.worker.waiting == 1)
        wait_for(lambda: 'status="499"' in served.client.get("/metrics").text)
        answer = first.result()
        assert answer.status_code == 504 and "within 4 s" in answer.json()["detail"]
    served.engine.go.set()
    assert served.post(png()).status_code == 200
    assert served.counted("er_jax_batch_pictures_sum") == 2  # not the one of whom had left


def wait_for(true) -> None:
    """Until it is; the session's own limit ends a test for which it never becomes so."""
    pause = threading.Event()
    for _ in range(2000):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to that")


# The command


def test_sigterm_answers_what_was_accepted(tmp_path, compilation_cache):
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
    }
    command = [sys.executable, str(Path(__file__).with_name("served.py")), "--batch=2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = ""
        while not address:
            line = process.stderr.readline()
            assert line, "it ended by itself"
            address = (re.findall(r"http://[\d.:]+", line) or [""])[0]
        with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(6) as pool:
            data = png(2000, 1500)
            answers = [pool.submit(client.post, ENDPOINT, content=data) for _ in range(6)]
            wait_for(lambda: client.get("/health").json()["waiting"] > 0)
            process.send_signal(signal.SIGTERM)
            statuses = [answer.result().status_code for answer in answers]
        assert statuses == [200] * 6
        assert process.wait(30) == 0
        assert not list(tmp_path.glob("er_jax_*"))
        with pytest.raises(OSError):
            socket.create_connection(tuple(address.removeprefix("http://").split(":")))
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main([f"--port={port}"], page=False)
    assert ended.value.code == 78
    said = " ".join(capsys.readouterr().err.split())
    assert f"127.0.0.1:{port}: cannot listen there" in said and "another --port" in said
