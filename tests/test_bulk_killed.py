"""A bulk that is killed again and again, and one by Ray: at the end every input once."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coded_pictures import picture
from test_bulk import names, put

from er_jax.bulk.results import FAILED, HANDS, INPUTS

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("bulk_coded.py")
PICTURES, KILLS = 240, 10


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = put(
        tmp_path_factory.mktemp("in"), {f"{i // 50}/{i}.png": i % 3 for i in range(PICTURES)}
    )
    (folder / "cut.png").write_bytes(picture(1)[:300])
    return folder


@pytest.fixture(scope="module")
def plain(inputs, tmp_path_factory, environment):
    """What comes of it undisturbed."""
    output = tmp_path_factory.mktemp("plain")
    subprocess.run(command(inputs, output), check=True, env=environment)
    return tables(output)


@pytest.fixture(scope="module")
def environment(compilation_cache):
    return os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
    }


def command(inputs: Path, output: Path, *ray: str) -> list[str]:
    return [sys.executable, str(SCRIPT), str(inputs), str(output), *ray]


def tables(output: Path) -> dict[tuple[str, str], pa.Table]:
    """All shards."""
    return {
        (kind, path.name): pq.read_table(path)
        for kind in (HANDS, INPUTS, FAILED)
        for path in (output / kind).glob("*.parquet")
    }


def children_of(process: int) -> list[int]:
    """All processes below one."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                found += [child, *children_of(child)]
    return found


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes below a command, when it has some; none if it has ended."""
    while process.poll() is None:
        if found := children_of(process.pid):
            return found
        time.sleep(0.05)
    return []


def check(output: Path, expected: dict) -> None:
    assert names(output, INPUTS) == Counter({(f"{i}.png", ""): 1 for i in range(PICTURES)})
    assert names(output, FAILED) == Counter({("cut.png", ""): 1})
    found = tables(output)
    assert set(found) == set(expected)
    assert all(found[name].equals(table) for name, table in expected.items())


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_kills_of_workers_and_of_the_command_lose_nothing(
    inputs, plain, tmp_path, environment, seed
):
    rng = random.Random(seed)
    killed: Counter[str] = Counter()
    while True:
        process = subprocess.Popen(command(inputs, tmp_path), env=environment)
        while killed.total() < KILLS and (workers := workers_of(process)):
            time.sleep(rng.uniform(0, 5))
            whom = "command" if killed["worker"] > killed["command"] else "worker"
            victim = process.pid if whom == "command" else rng.choice(workers)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:  # it ended by itself
                continue
            killed[whom] += 1
            if whom == "command":
                break
        if process.wait() == 0:
            break
    assert killed == {"worker": KILLS / 2, "command": KILLS / 2}
    check(tmp_path, plain)
    assert not list(tmp_path.rglob("*.unfinished"))


def test_by_ray_it_is_the_same_rows_whoever_is_killed(inputs, plain, tmp_path, environment):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    environment = environment | {"RAY_AUTH_MODE": "disabled"}
    os.environ |= environment
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        node = cluster.add_node(num_cpus=2)
        ray = command(inputs, tmp_path, cluster.address)
        process = subprocess.Popen(ray, env=environment)
        wait_for_units(tmp_path, 3)
        cluster.remove_node(node, allow_graceful=False)  # a machine is lost, and another comes
        cluster.add_node(num_cpus=2)
        wait_for_units(tmp_path, 8)
        process.kill()
        process.wait()
        some = len(list((tmp_path / HANDS).glob("*.parquet")))
        assert 0 < some < PICTURES // 10
        subprocess.run(ray, check=True, env=environment)
        check(tmp_path, plain)
    finally:
        cluster.shutdown()


def wait_for_units(output: Path, count: int) -> None:
    for _ in range(3000):
        if len(list((output / HANDS).glob("*.parquet"))) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"not {count} units after five minutes")
