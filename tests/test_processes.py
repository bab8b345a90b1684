"""Training with several processes: they find each other, agree, and end as one process does."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from er_jax.training.load import load_trained
from er_jax.training.metric_log import read_metric_log
from er_jax.utils.errors import EXIT_STOPPED


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(
    workdir: Path,
    data_dir: str,
    cache: Path,
    output: Path,
    *,
    devices: int,
    processes: int = 1,
    epochs: int = 4,
    options: Sequence[str] = (),
) -> list[subprocess.Popen]:
    """The processes of a training, each with so many virtual CPU devices, in a SLURM-like step."""
    base = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(processes),
        "SLURM_STEP_NUM_TASKS": str(processes),
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    command = [
        *(sys.executable, "-m", "er_jax.main", "--config", "configs/tiny.py"),
        *("--workdir", str(workdir), f"--config.data_dir={data_dir}"),
        *(f"--config.epochs={epochs}", "--config.validation.stop_after=0"),
        *("--config.checkpoint.every_steps=100", "--config.optimizer.schedule=step"),
        *options,
    ]
    started = []
    for rank in range(processes):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        with output.open("a") as file:
            environment = base | step | own if processes > 1 else base
            started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
    return started


def finish(processes: list[subprocess.Popen]) -> list[int]:
    try:
        return [process.wait(timeout=1500) for process in processes]
    finally:
        for process in processes:
            process.kill()


def losses(workdir: Path) -> list[float]:
    """Of every step in order."""
    entries = read_metric_log(workdir / "metrics.jsonl")
    return [entry["train/loss"] for entry in entries if "train/loss" in entry]


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_goes_on_from_their_checkpoint(
    tmp_path, tiny_config, compilation_cache
):
    where = tiny_config.data_dir, compilation_cache, tmp_path / "output.txt"
    assert finish(start(tmp_path / "one", *where, devices=1)) == [0]
    two = start(tmp_path / "two", *where, devices=2, processes=2)
    log = tmp_path / "two/metrics.jsonl"
    while all(process.poll() is None for process in two) and not (
        log.exists() and log.read_bytes().count(b"\n") >= 8
    ):
        time.sleep(0.1)
    two[1].send_signal(signal.SIGTERM)  # at one of them only
    assert finish(two) == [EXIT_STOPPED] * 2, where[2].read_text()
    stopped_at = read_metric_log(log)[-1]["step"]
    assert (tmp_path / f"two/checkpoints/{stopped_at}").is_dir()
    assert finish(start(tmp_path / "two", *where, devices=1)) == [0], where[2].read_text()

    one, two_and_one = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 24
    np.testing.assert_allclose(two_and_one, one, rtol=0.02)
    assert len(list((tmp_path / "two/tensorboard").glob("events*"))) == 2  # a start each
    last = len(one)
    for ours, theirs in zip(
        *(
            jax.tree.leaves(load_trained(tiny_config, tmp_path / n, last).weights)
            for n in ("one", "two")
        ),
        strict=True,
    ):
        assert np.shape(ours) == np.shape(theirs)


@pytest.mark.slow
def test_a_process_that_is_stuck_ends_the_run(tmp_path, tiny_config, compilation_cache):
    """The other one says which does not answer, and that the command goes on from there."""
    output = tmp_path / "output.txt"
    where = tiny_config.data_dir, compilation_cache, output
    options = ["--config.stuck_after_s=20", "--config.checkpoint.every_steps=2"]
    two = start(tmp_path / "two", *where, devices=1, processes=2, epochs=40, options=options)
    log = tmp_path / "two/metrics.jsonl"
    while all(process.poll() is None for process in two) and not (
        log.exists() and log.read_bytes().count(b"\n") >= 8
    ):
        time.sleep(0.1)
    two[1].send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        assert two[0].wait(timeout=90) == EXIT_STOPPED, output.read_text()
    finally:
        for process in two:
            process.kill()
    print(f"ended {time.monotonic() - stopped_at:.0f} s after the other one was stopped")
    said = " ".join(output.read_text().split())
    assert "(config.stuck_after_s=20)" in said
    assert re.search(r"process 1 does not answer since \d+ s, at step \d+", said), said
    assert list((tmp_path / "two/checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, tiny_config, compilation_cache):
    where = tiny_config.data_dir, compilation_cache, tmp_path / "output.txt"
    assert finish(start(tmp_path / "one", *where, devices=1, epochs=3)) == [0]
    for epochs, devices in enumerate((1, 4, 2), start=1):
        parts = start(tmp_path / "parts", *where, devices=devices, epochs=epochs)
        assert finish(parts) == [0], where[2].read_text()
    one, parts = (losses(tmp_path / name) for name in ("one", "parts"))
    assert len(one) == 18
    np.testing.assert_allclose(parts, one, rtol=0.02)
