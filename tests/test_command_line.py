"""What the command line says to somebody who mistypes it, and where it finds configs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "er_jax.main", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modl.input_size=3", "--config has no field 'modl'; the nearest is 'model'"),
        ("--config.model.input_siz=3", "no field 'input_siz'; the nearest is 'input_size'"),
        ("--config=configs/nowhere.py", "configs/nowhere.py: there is no such file; the project's"),
    ],
)
def test_a_typing_error_ends_in_one_line(argument, message):
    result = start("--config=configs/tiny.py", "--mode=describe", argument)
    assert result.returncode == 78
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["configs/tiny.py", "tiny"])
def test_own_configs_are_found_from_anywhere(tmp_path, name):
    result = start(
        "--config", name, "--config.model.backbone=nothing", "--workdir=run", folder=tmp_path
    )
    assert result.returncode == 78
    assert "config.data_dir is not set" in result.stderr.replace("\n", " ")


def test_worker_processes_import_no_jax():
    """A worker of `python -m er_jax.main` imports that module anew."""
    code = "import sys, er_jax.main, data_pipeline.workers; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_build_starts_no_backend_of_jax():
    """On a GPU it would take most of the memory."""
    code = """
import sys
import data_pipeline.build.__main__
from er_jax.utils.progress import tracker
from jax._src import xla_bridge
with tracker() as track:
    track("images", 1, 2)
sys.exit(xla_bridge.backends_are_initialized())
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
