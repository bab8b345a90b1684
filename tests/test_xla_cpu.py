"""What is chosen for a CPU takes effect there alone, gives way to the user, and is right."""

import os
import platform
import subprocess
import sys

import jax
import pytest

KERNELS = """
from pathlib import Path
from er_jax.utils.xla_cpu import prepare_cpu
prepare_cpu({folder!r} and Path({folder!r}))
import jax, jax.numpy as jnp
square = jax.jit(lambda x: x @ x).lower(jnp.ones((512, 512))).compile().as_text()
print("onednn" in square, jax.config.jax_compilation_cache_dir)
"""

FLAGS = """
import os
from er_jax.utils import xla_cpu
xla_cpu.ONEDNN["xla_cpu_flag_that_nobody_has"] = "true"
xla_cpu.has_onednn = lambda: True
xla_cpu.prepare_cpu()
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


def test_kernels_are_set_before_jax_starts():
    """Products are oneDNN's where JAX has it, unless the user says otherwise."""
    onednn = jax.__version_info__ >= (0, 12) and platform.machine() == "x86_64"
    assert printed_by(KERNELS.format(folder=None)) == [str(onednn), "None"]
    flags = "--xla_cpu_experimental_onednn_custom_call=false"
    assert printed_by(KERNELS.format(folder=None), XLA_FLAGS=flags) == ["False", "None"]


def test_cached_programs_are_without_onednn(tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert printed_by(KERNELS.format(folder=ours)) == ["False", ours]
    for folder in (None, ours):
        output = printed_by(KERNELS.format(folder=folder), JAX_COMPILATION_CACHE_DIR=theirs)
        assert output == ["False", theirs]


def test_a_flag_that_xla_does_not_know_is_not_set():
    """It would end the process."""
    compute = "import jax; print(int(jax.jit(lambda x: x + 1)(1)))"
    *flags, two = printed_by(FLAGS.format(compute=compute))
    assert two == "2"
    assert "--xla_cpu_experimental_onednn_custom_call=true" in flags
    assert "nobody" not in " ".join(flags)


@pytest.mark.parametrize("backend", ["cuda", "tpu", "cuda,cpu"])
def test_nothing_is_set_where_the_cpu_is_not_the_backend(backend):
    assert printed_by(FLAGS.format(compute=""), JAX_PLATFORMS=backend) == ["none"]


def test_reductions_are_right_wherever_the_package_is_imported():
    assert printed_by(REDUCTIONS) == ["0", "True"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told so")
def test_a_program_gets_the_memory_of_its_last_call_again():
    (faults,) = printed_by(MEMORY)
    assert float(faults) < PAGES / 4
    (faults,) = printed_by(MEMORY, MALLOC_PERTURB_="0")  # the user's own choice
    assert float(faults) > PAGES / 2
