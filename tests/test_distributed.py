"""Several processes: which devices each takes, what they tell each other, when they agree."""

import re
import threading
import time

import jax
import numpy as np
import pytest

from er_jax.utils import distributed, watchdog
from er_jax.utils.errors import ConfigError, NotFoundError

STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}


@pytest.fixture
def joined(monkeypatch):
    """The local devices that `join_processes` asks for in an environment."""

    def join(**variables):
        asked = []
        for name in ("CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (STEP | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: asked.append(k))
        distributed.join_processes()
        jax.config.update("jax_enable_preemption_service", True)
        return asked[0]["local_device_ids"]

    return join


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "3"}, [0]),  # --gpus-per-task=1: bound
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1]),  # four tasks that see all of four
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [2, 3]),
        (
            {
                "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
                "SLURM_LOCALID": "0",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            },
            list(range(8)),  # one task a node
        ),
        (
            {
                "CUDA_VISIBLE_DEVICES": "0,1",
                "SLURM_NODEID": "2",
                "SLURM_STEP_TASKS_PER_NODE": "4(x2),2",
            },
            [1],
        ),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
        ({}, None),
    ],
)
def test_a_task_of_slurm_takes_its_share_of_the_gpus(joined, variables, devices):
    assert joined(**variables) == devices


def test_gpus_that_tasks_cannot_share(joined):
    with pytest.raises(ConfigError, match=r"4 tasks of this node cannot share its 6 GPUs equally"):
        joined(CUDA_VISIBLE_DEVICES="0,1,2,3,4,5")


class Channel:
    """Stands for the others' side of a broadcast: what the first process sends arrives."""

    def __init__(self, monkeypatch):
        self.sent = []
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(distributed.multihost_utils, "broadcast_one_to_all", self)

    def __call__(self, array):
        if array.dtype.kind == "i":
            assert array.dtype == np.int32
        self.sent.append(array)
        return array


class Unreadable(Exception):
    def __init__(self, first, second):
        super().__init__("no way back")


class Local(NotFoundError):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def test_what_the_first_process_finds_reaches_the_others(monkeypatch):
    Channel(monkeypatch)
    assert distributed.on_first_process(lambda: {"a": 1}) == {"a": 1}
    with pytest.raises(KeyError, match="k"):
        distributed.on_first_process(lambda: {}["k"])


@pytest.mark.parametrize(
    ("error", "arrives", "message"),
    [
        (lambda: Unreadable(1, 2), RuntimeError, "Unreadable: no way back"),
        (lambda: Local("file.x is not there"), Exception, "Local: file.x is not there"),
    ],
)
def test_an_error_that_cannot_be_sent_is_told_in_words(monkeypatch, error, arrives, message):
    """Else the others would wait for ever."""
    Channel(monkeypatch)

    def fail():
        raise error()

    with pytest.raises(arrives, match=re.escape(message)):
        distributed.on_first_process(fail)


def test_a_result_that_cannot_be_sent_is_told_in_words(monkeypatch):
    Channel(monkeypatch)
    with pytest.raises(RuntimeError, match="pickle"):
        distributed.on_first_process(lambda: lambda: 0)


def test_lengths_beyond_two_gibibytes(monkeypatch):
    """A big result is stood for by its length alone."""
    channel = Channel(monkeypatch)
    size = 3 * 2**30

    class Big(np.ndarray):
        size = property(lambda self: size)

    monkeypatch.setattr(distributed, "_pickled_outcome", lambda function: b"x")
    monkeypatch.setattr(distributed.np, "frombuffer", lambda *_: np.zeros(1, np.uint8).view(Big))
    monkeypatch.setattr(distributed.np, "resize", lambda content, length: [length])
    with pytest.raises(AttributeError):  # at the content, which stands for three gibibytes
        distributed.on_first_process(lambda: 0)
    high, low = channel.sent[0]
    assert int(high) * 2**16 + int(low) == size


def test_processes_agree_at_every_fourth_call(monkeypatch):
    asked = []

    def any_of_all(flag):
        asked.append(bool(flag[0]))
        return flag

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "replicate", lambda flag: np.array([flag]))
    monkeypatch.setattr(distributed, "first_replica", lambda flags: flags[0])
    agree = distributed.AnyProcess()
    monkeypatch.setattr(agree, "_any", any_of_all)
    answers = [agree(step >= 2) for step in range(13)]
    assert asked == [False, True, True, True]
    assert answers == [False] * 8 + [True] * 5


def test_devices_are_described():
    assert re.fullmatch(r"1 device \(cpu\) in 1 process", distributed.describe_devices())


class Service:
    """Stands for JAX's service of processes."""

    def __init__(self):
        self.told = {"er_jax/watchdog/1": f"{time.time() - 60} 41 {time.time() - 60}"}

    def key_value_set(self, key, value, allow_overwrite):
        self.told[key] = value

    def key_value_dir_get(self, folder):
        return list(self.told.items())


def test_the_watchdog_ends_a_process_that_waits_too_long(monkeypatch, caplog):
    ended = threading.Event()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(watchdog.jax_distributed.global_state, "client", Service())
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(watchdog.logging, "shutdown", lambda: None)
    with watchdog.Watchdog(0.5) as watch:
        for step in range(1, 8):
            watch.beat(step)
            time.sleep(0.1)
        assert not ended.is_set()
        assert ended.wait(30)
    assert "process 1 does not answer since 6" in caplog.text
    assert "process 0 is at step 7" in caplog.text
    assert "goes on from the newest checkpoint" in caplog.text


@pytest.mark.parametrize(("processes", "limit"), [(1, 0.05), (2, 0)])
def test_no_watch_in_one_process_or_where_it_is_not_wanted(monkeypatch, processes, limit):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: pytest.fail("ended"))
    with watchdog.Watchdog(limit) as watch:
        assert not watch._thread.is_alive()
