"""What is chosen for a CPU takes effect there alone, gives way to the user, and is right."""

import os
import platform
import subprocess
import sys

import pytest

from er_jax.commands import logs

FLAGS = """
{before}
import os
from er_jax.utils import xla_cpu
xla_cpu.PLAIN_REDUCTIONS["xla_cpu_flag_that_nobody_has"] = "true"
xla_cpu.metadata.version = lambda name: "0.11.0"
xla_cpu.avoid_wrong_reductions()
print(os.environ.get("XLA_FLAGS", "none"))
{compute}
"""

REDUCTIONS = """
import er_jax  # nothing else of the project, as in a user's own program
import jax, jax.numpy as jnp, numpy as np
random = np.random.default_rng(0)
matrix, rows = random.normal(size=(3, 5)), random.normal(size=(40000, 5))
found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.float32(matrix) @ row) ** 2)))(jnp.float32(rows))
print(int((np.abs(np.asarray(found) - ((rows @ matrix.T) ** 2).sum(1)) > 1e-3).sum()))
left, right = (jnp.float32(random.normal(size=(5, 1, 2, 2, 9, 9, 9))) for _ in range(2))
summed = jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(left, right)
print(bool(np.allclose(summed, np.sum(np.asarray(left) * np.asarray(right), axis=3), atol=1e-4)))
"""

MEMORY = """
import resource
from er_jax.utils.xla_cpu import prepare_cpu
prepare_cpu()
import jax, jax.numpy as jnp
program = jax.jit(lambda x: x * 2 + 1)
numbers = jnp.ones(2**24)
for _ in range(20):  # until there is enough of it
    jax.block_until_ready(program(numbers))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    jax.block_until_ready(program(numbers))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
"""
PAGES = 2**24 * 4 // 4096  # of such a program's output


def printed_by(program: str, **variables: str) -> list[str]:
    """The words that a program prints in a process of its own."""
    ours = ("JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", "XLA_FLAGS", "MALLOC_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment | variables,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()


def test_a_flag_that_xla_does_not_know_is_not_set():
    """It would end the process."""
    compute = "import jax; print(int(jax.jit(lambda x: x + 1)(1)))"
    flags = printed_by(FLAGS.format(before="", compute=compute))
    assert flags == ["--xla_cpu_experimental_ynn_fusion_type=", "2"]


def test_the_users_own_flag_stays():
    theirs = "--xla_cpu_experimental_ynn_fusion_type=reduce"
    assert printed_by(FLAGS.format(before="", compute=""), XLA_FLAGS=theirs) == [theirs]


@pytest.mark.parametrize("backend", ["cuda", "tpu", "cuda,cpu"])
def test_nothing_is_set_where_the_cpu_is_not_the_backend(backend):
    assert printed_by(FLAGS.format(before="", compute=""), JAX_PLATFORMS=backend) == ["none"]
    before = f"import jax; jax.config.update('jax_platforms', {backend!r})"
    assert printed_by(FLAGS.format(before=before, compute="")) == ["none"]


def test_reductions_are_right_wherever_the_package_is_imported():
    assert printed_by(REDUCTIONS) == ["0", "True"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told so")
def test_a_program_gets_the_memory_of_its_last_call_again():
    (faults,) = printed_by(MEMORY)
    assert float(faults) < PAGES / 4
    (faults,) = printed_by(MEMORY, MALLOC_PERTURB_="0")  # the user's own choice
    assert float(faults) > PAGES / 2


@pytest.mark.parametrize(("on_a_cpu", "asked"), [(True, False), (True, True), (False, False)])
def test_accelerators_keep_their_programs(monkeypatch, tmp_path, on_a_cpu, asked):
    folders = []
    monkeypatch.setattr(logs, "prepare_cpu", folders.append)
    monkeypatch.setattr(logs, "cpu_is_the_backend", lambda: on_a_cpu)
    monkeypatch.setattr(logs, "log_to", lambda file: None)
    logs.prepare(tmp_path, cache_compilation=asked)
    assert folders == [tmp_path / "compiled" if asked or not on_a_cpu else None]
