"""Errors of several hosts come together on each of them."""

import socket
import subprocess
import sys

import pytest

HOST = """
import sys
import jax
import numpy as np
rank, address = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(address, num_processes=2, process_id=rank)
from er_jax.evaluation.summary import across_hosts
from made_up_errors import made_up
from er_jax.evaluation.summary import select, summarize
whole = made_up(count=25).errors
mine = select(whole, np.arange(25) % 3 == 0 if rank == 0 else np.arange(25) % 3 != 0)
together = across_hosts(mine)
assert sorted(together.attributes.sample_id) == sorted(whole.attributes.sample_id)
order = np.concatenate([np.flatnonzero(np.arange(25) % 3 == 0), np.flatnonzero(np.arange(25) % 3)])
assert summarize(together) == summarize(select(whole, order))
print("agreed")
"""


@pytest.mark.slow
def test_hosts_with_different_numbers_of_samples():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"PYTHONPATH": ":".join(["tests", "."]), "JAX_PLATFORMS": "cpu"}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(rank), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for host in hosts:
        out, error = host.communicate(timeout=300)
        assert host.returncode == 0, error
        assert "agreed" in out
