"""What commands choose for a CPU takes effect, and gives way to the user's own choice."""

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
print("ynn" in square, "onednn" in square, jax.config.jax_compilation_cache_dir)
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
    ours = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "MALLOC_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment | variables,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()


def test_kernels_are_set_before_jax_starts():
    """Products are oneDNN's where JAX has it, YNNPACK's elsewhere, and what the user says."""
    onednn = jax.__version_info__ >= (0, 12) and platform.machine() == "x86_64"
    assert printed_by(KERNELS.format(folder=None)) == [str(not onednn), str(onednn), "None"]
    flags = "--xla_cpu_experimental_ynn_fusion_type=reduce"
    flags += " --xla_cpu_experimental_onednn_custom_call=false"
    output = printed_by(KERNELS.format(folder=None), XLA_FLAGS=flags)
    assert output == ["False", "False", "None"]


def test_kept_programs_are_without_onednn(tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert printed_by(KERNELS.format(folder=ours)) == ["True", "False", ours]
    for folder in (None, ours):
        output = printed_by(KERNELS.format(folder=folder), JAX_COMPILATION_CACHE_DIR=theirs)
        assert output == ["True", "False", theirs]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told so")
def test_a_program_gets_the_memory_of_its_last_call_again():
    (faults,) = printed_by(MEMORY)
    assert float(faults) < PAGES / 4
    (faults,) = printed_by(MEMORY, MALLOC_PERTURB_="0")  # the user's own choice
    assert float(faults) > PAGES / 2
