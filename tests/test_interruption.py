"""A run of the command line that is stopped and killed again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from er_jax.jobs import EXIT_STOPPED
from er_jax.training.metric_log import read_metric_log

EPOCHS = 6


def command(workdir: Path, data_dir: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "er_jax.main", "--config", "configs/tiny.py"),
        *("--workdir", str(workdir), f"--config.data_dir={data_dir}"),
        *(f"--config.epochs={EPOCHS}", "--config.checkpoint.every_steps=3"),
    ]


def logged(workdir: Path) -> list[dict]:
    file = workdir / "metrics.jsonl"
    entries = read_metric_log(file) if file.exists() else []
    return [entry for entry in entries if "train/loss" in entry]


@pytest.mark.slow
def test_stopped_and_killed_it_ends_as_if_nothing_had_happened(
    tmp_path, data_dir, compilation_cache
):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    subprocess.run(command(calm, data_dir), env=environment, check=True)
    chance = random.Random(0)
    for attempt in range(8):
        number = signal.SIGKILL if attempt % 2 else signal.SIGTERM
        before = len(logged(rough))
        process = subprocess.Popen(command(rough, data_dir), env=environment)
        wanted = before + chance.randint(1, 4)
        while process.poll() is None and len(logged(rough)) < wanted:
            time.sleep(0.05)
        process.send_signal(number)
        code = process.wait()
        if code == 0:
            break
        assert code == (EXIT_STOPPED if number == signal.SIGTERM else -signal.SIGKILL)
    subprocess.run(command(rough, data_dir), env=environment, check=True)
    assert logged(rough) == logged(calm)
