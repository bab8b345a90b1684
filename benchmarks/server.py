"""The server under load, against the same pictures one call at a time.

    python -m benchmarks.server [--clients=16 --requests=200 --flat=2000]

Drawn whole pictures, 640×480, as PNG files of about 400 KB, are posted by clients in a process of
their own; then many more, while the server's memory is watched. Needs the detector's networks.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from data_pipeline.synthetic.sequence import draw_sequence
from er_jax.photographs.load import load
from er_jax.photographs.photograph import read_photograph
from er_jax.utils.arguments import at_least
from er_jax.utils.cache import cache_dir
from er_jax.utils.xla_cpu import prepare_cpu

PICTURES = 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", type=at_least(1), default=16)
    parser.add_argument("--requests", type=at_least(1), default=200)
    parser.add_argument("--flat", type=at_least(0), default=2000)
    parser.add_argument("--in_flight", type=at_least(1), default=64, help="of the server")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.address:
        print(json.dumps(_post(options.address, options.pictures, options)))
        return
    prepare_cpu(cache_dir() / "compiled")
    table = Table(title=f"{options.requests} requests, {options.clients} clients")
    for column in ("", "answered", "refused", "pictures/s", "p50 ms", "p95 ms"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder))
        _row(table, "one call at a time", _one_at_a_time(Path(folder), options.requests))
        with _Server(options.in_flight) as server:
            _clients(server, folder, options.clients, options.clients)
            _row(table, "one client", _clients(server, folder, 1, options.requests // 2))
            said = _clients(server, folder, options.clients, options.requests)
            _row(table, f"{options.clients} clients", said)
            sizes = [server.megabytes()]
            for _ in range(4 if options.flat else 0):
                _clients(server, folder, options.clients, options.flat // 4)
                sizes.append(server.megabytes())
    console = Console()
    console.print(table)
    if options.flat:
        shown = ", ".join(f"{size:.0f}" for size in sizes)
        console.print(f"server's memory after each quarter of {options.flat} requests, MB: {shown}")


def _draw(folder: Path) -> None:
    for index, frame in enumerate(draw_sequence(0, seconds=PICTURES / 2, frame_rate=2).frames()):
        cv2.imwrite(str(folder / f"{index}.png"), frame[..., ::-1])


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.png"))]


Said = tuple[list[tuple[int, float]], float]
"""Status and seconds of each answer, and seconds of all together."""


def _timed(work: Callable[[bytes], int], files: list[bytes], count: int, clients: int) -> Said:
    def one(index: int) -> tuple[int, float]:
        began = time.monotonic()
        return work(files[index % len(files)]), time.monotonic() - began

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(one, range(count)))
    return answers, time.monotonic() - began


def _one_at_a_time(folder: Path, count: int) -> Said:
    engine = load()

    def work(data: bytes) -> int:
        json.dumps(engine(read_photograph(Path("a"), data)).to_dict(vertices=True))
        return 200

    files = _files(folder)
    _timed(work, files, len(files), 1)
    return _timed(work, files, count, 1)


def _post(address: str, folder: Path, options: argparse.Namespace) -> Said:
    client = httpx.Client(base_url=address, timeout=120)

    def work(data: bytes) -> int:
        answer = client.post("/reconstruct", content=data)
        if answer.status_code == 200:
            answer.json()["persons"]
        return answer.status_code

    return _timed(work, _files(folder), options.requests, options.clients)


def _clients(server: "_Server", folder: str, clients: int, count: int) -> Said:
    command = [
        *(sys.executable, "-m", "benchmarks.server", f"--address={server.address}"),
        *(f"--pictures={folder}", f"--clients={clients}", f"--requests={count}"),
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _row(table: Table, name: str, said: Said) -> None:
    answers, seconds = said
    statuses = Counter(status for status, _ in answers)
    if others := {*statuses} - {200, 503}:
        sys.exit(f"{name}: answered with {others}")
    times = 1000 * np.array([took for status, took in answers if status == 200])
    p50, p95 = np.percentile(times, (50, 95))
    numbers = (f"{len(times) / seconds:.1f}", f"{p50:.0f}", f"{p95:.0f}")
    table.add_row(name, str(statuses[200]), str(statuses[503]), *numbers)


class _Server:
    def __init__(self, in_flight: int) -> None:
        command = [sys.executable, "-m", "er_jax", "serve", "--port=0", f"--requests={in_flight}"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stream = self._process.stderr
        assert stream is not None
        said = next(line for line in stream if "http://" in line)
        self.address = re.findall(r"http://[\d.:]+", said)[0]
        threading.Thread(target=stream.read, daemon=True).start()

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        if self._process.wait(60):
            sys.exit(f"the server ended with {self._process.returncode}")

    def megabytes(self) -> float:
        """Resident memory of the server's process."""
        told = httpx.get(f"{self.address}/metrics").text
        return float(re.findall(r"^process_resident_memory_bytes (\S+)", told, re.M)[0]) / 1e6


if __name__ == "__main__":
    main()
