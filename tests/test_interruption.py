"""A run of the command line that is stopped and killed again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from er_jax.training.load import load_trained
from er_jax.training.metric_log import read_metric_log
from er_jax.utils.errors import EXIT_STOPPED

INTERRUPTIONS = 10
EPOCHS = 12  # of 6 steps: more than ten interruptions are likely to see


def command(workdir: Path, data_dir: str) -> list[str]:
    return [
        *(sys.executable, "-m", "er_jax.main", "--config", "configs/tiny.py"),
        *("--workdir", str(workdir), f"--config.data_dir={data_dir}"),
        *(f"--config.epochs={EPOCHS}", "--config.validation.every_epochs=3"),
        *("--config.validation.stop_after=0", "--config.checkpoint.every_steps=4"),
    ]


def lines(workdir: Path) -> int:
    file = workdir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def results(workdir: Path) -> list[dict[str, float]]:
    """All that was logged but how fast it went."""
    entries = read_metric_log(workdir / "metrics.jsonl")
    return [entry for entry in entries if not any(name.startswith("speed/") for name in entry)]


def interrupt(process: subprocess.Popen, number: signal.Signals, workdir: Path, steps: int) -> int:
    """Signals a run once it has logged some more steps; its exit code."""
    wanted = lines(workdir) + steps
    while process.poll() is None and lines(workdir) < wanted:
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait()


@pytest.mark.slow
def test_stopped_and_killed_it_ends_as_if_nothing_had_happened(
    tmp_path, tiny_config, compilation_cache
):
    """Equal losses at every step also say that no sample is repeated or skipped."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    calm, rough = (tmp_path / name for name in ("calm", "rough"))
    chance = random.Random(0)
    with (tmp_path / "output.txt").open("w") as output:

        def start(workdir: Path) -> subprocess.Popen:
            return subprocess.Popen(
                command(workdir, tiny_config.data_dir),
                env=os.environ | cache,
                stdout=output,
                stderr=output,
            )

        assert start(calm).wait() == 0
        for interruption in range(INTERRUPTIONS):
            number = signal.SIGKILL if interruption % 2 else signal.SIGTERM
            code = interrupt(start(rough), number, rough, chance.randint(1, 5))
            assert code == (-signal.SIGKILL if number == signal.SIGKILL else EXIT_STOPPED)
            print(
                f"{number.name} after step {read_metric_log(rough / 'metrics.jsonl')[-1]['step']}"
            )
        assert start(rough).wait() == 0

    assert results(rough) == results(calm)
    assert lines(rough) > lines(calm)  # steps were lost to a kill, and done again
    last = int(results(calm)[-1]["step"])
    states = [load_trained(tiny_config, workdir, last).weights for workdir in (calm, rough)]
    jax.tree.map(np.testing.assert_array_equal, *states)
