"""How a training ends where something is wrong: one message, an exit code, nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from er_jax.training.metric_log import read_metric_log

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path, compilation_cache):
    """Starts a training by the command line; what it says goes to `tmp_path/said.txt`."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "COLUMNS": "1000",  # a message stays in one line
    }

    def start(workdir: Path, data_dir: Path | str, *options: str) -> subprocess.Popen:
        command = [
            *(sys.executable, "-m", "er_jax.main", "--config", "configs/tiny.py"),
            *("--workdir", str(workdir), f"--config.data_dir={data_dir}"),
            *("--config.validation.stop_after=0", *options),
        ]
        with (tmp_path / "said.txt").open("w") as said:
            return subprocess.Popen(command, env=environment, stdout=said, stderr=said)

    return start


def said(tmp_path: Path) -> str:
    return (tmp_path / "said.txt").read_text()


def logged_steps(workdir: Path) -> list[int]:
    file = workdir / "metrics.jsonl"
    entries = read_metric_log(file) if file.exists() else []
    return [entry["step"] for entry in entries if "train/loss" in entry]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_cut_short(tmp_path, data_dir, start, workers):
    copy = shutil.copytree(data_dir, tmp_path / "datasets")
    (shard,) = copy.rglob("*-train.array_record-*")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert start(tmp_path / "run", copy, f"--config.data.workers={workers}").wait() == 65
    assert str(shard) in said(tmp_path)
    assert "build the dataset again" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_killed_worker(tmp_path, data_dir, start):
    run, options = (
        tmp_path / "run",
        ("--config.data.workers=1", "--config.checkpoint.every_steps=2"),
    )
    process = start(run, data_dir, *options)
    while process.poll() is None and len(logged_steps(run)) < 4:
        time.sleep(0.05)
    for child in children(process.pid):
        if "forkserver" in Path(f"/proc/{child}/cmdline").read_text():
            for worker in children(child):
                os.kill(worker, signal.SIGKILL)
    assert process.wait() == 71
    assert "prepares samples was killed" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert start(run, data_dir, *options).wait() == 0
    assert "Going on from step" in said(tmp_path)
    assert logged_steps(run) == list(range(1, 13))


def test_a_full_disk(tmp_path, data_dir, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        run, filler = disk / "run", disk / "filler"
        step = "--config.optimizer.schedule=step"  # under which a run may get longer
        assert start(run, data_dir, step, "--config.epochs=1").wait() == 0
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        assert start(run, data_dir, step).wait() == 74
        assert "Make room" in said(tmp_path)  # after what Orbax's own threads say
        filler.unlink()
        assert start(run, data_dir, step).wait() == 0
        assert "Going on from step 6" in said(tmp_path)
        assert logged_steps(run) == list(range(1, 13))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--config.batch_size=0", 78, "batch_size=0 does not divide"),
        ("--config.data.train_split=holiday", 65, "has no split 'holiday'"),
        ("--config.mano_dir=nowhere", 65, "nowhere"),
    ],
)
def test_a_wrong_setting(tmp_path, data_dir, start, option, code, message):
    assert start(tmp_path / "run", data_dir, option).wait() == code
    assert message in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
