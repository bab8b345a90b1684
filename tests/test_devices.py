"""Training on one, two and four devices, of one process or two, is the same computation."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("train_on_devices.py")


def train(
    data_dir: Path,
    precision: str,
    output: Path,
    devices: str,
    *,
    processes: int = 1,
    network: str = "tiny",
) -> None:
    """Runs the script in one process or several."""
    output.mkdir()
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={max(devices.split(','))}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(SCRIPT.parents[1]),
    }
    if network == "pooled":  # what it compiles is small, and its time is compilation
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    arguments = [str(data_dir), network, precision, devices, str(output)]
    command = [sys.executable, str(SCRIPT), *arguments]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    ranks = (
        [[coordinator, str(processes), str(rank)] for rank in range(processes)]
        if processes > 1
        else [[]]
    )
    children = [subprocess.Popen([*command, *rank], env=environment) for rank in ranks]
    assert [child.wait(timeout=1500) for child in children] == [0] * len(ranks)


def ended(file: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses, and arrays of the state."""
    losses, *leaves = np.load(file).values()
    return losses, leaves


def assert_agreement(file: Path, reference: Path, precision: str) -> None:
    """Losses agree; in float64 the states do too, relative to each array's largest element."""
    losses, leaves = ended(file)
    expected_losses, expected = ended(reference)
    assert expected_losses[0] != expected_losses[-1]
    rtol = 1e-7 if precision == "float64" else 1e-3
    np.testing.assert_allclose(losses, expected_losses, rtol=rtol)
    distances = [
        np.abs(a - b).max() / (np.abs(b).max() + 1e-30)
        for a, b in zip(leaves, expected, strict=True)
    ]
    print(f"{file.name}, {precision}: states differ by {max(distances):.1e} at most, relatively")
    if precision == "float64":
        assert max(distances) < 1e-7


def test_two_devices_step_as_one(data_dir, tmp_path):
    """A network that compiles fast, in float64: its statistics, gradients and losses agree."""
    train(data_dir, "float64", tmp_path / "run", "1,2", network="pooled")
    assert_agreement(tmp_path / "run/2.npz", tmp_path / "run/1.npz", "float64")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_one_two_and_four_devices_and_two_processes_agree(data_dir, tmp_path, precision):
    train(data_dir, precision, tmp_path / "one process", "1,2,4")
    train(data_dir, precision, tmp_path / "two processes", "2", processes=2)
    one = tmp_path / "one process/1.npz"
    for other in ("one process/2.npz", "one process/4.npz", "two processes/2.npz"):
        assert_agreement(tmp_path / other, one, precision)
