"""The choice of kernels reaches the compiler, and gives way to the user's own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from er_jax.compilation import choose_cpu_kernels, keep_programs_in
choose_cpu_kernels()
keep_programs_in({folder!r})
import jax, jax.numpy as jnp
square = jax.jit(lambda x: x @ x).lower(jnp.ones((512, 512))).compile().as_text()
print("ynn" in square, jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("flags", "ynn"), [("", False), ("--xla_cpu_experimental_ynn_fusion_type=individual_dot", True)]
)
def test_kernels_and_cache_are_set_before_jax_starts(tmp_path, flags, ynn):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))],
        env=environment | {"XLA_FLAGS": flags},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert output.split() == [str(ynn), str(tmp_path)]
