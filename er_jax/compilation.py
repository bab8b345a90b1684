"""How XLA compiles the project's programs, and where it keeps them; chosen by commands."""

import os
from pathlib import Path

import jax

# On a CPU, XLA gives convolutions, matrix products and reductions to YNNPACK. Its reductions are
# the fastest there are, but Eigen, which XLA then falls back to, is faster for the other two: a
# training step of ResNet-50 takes an eighth less time. GPUs know nothing of this.
CPU_KERNELS = "--xla_cpu_experimental_ynn_fusion_type=reduce"


def choose_cpu_kernels() -> None:
    """Selects the CPU kernels of all programs compiled from now on.

    Must come before JAX is first used. What the user's own XLA_FLAGS say wins.
    """
    os.environ["XLA_FLAGS"] = f"{CPU_KERNELS} {os.environ.get('XLA_FLAGS', '')}".strip()


def keep_programs_in(folder: Path) -> None:
    """Has the same programs loaded instead of compiled at the next start.

    For programs that start often and compile little. A process that loaded dozens of kept programs
    on a CPU once ended in a segmentation fault (JAX 0.10.2), so training keeps none.
    Where JAX is told of another folder (JAX_COMPILATION_CACHE_DIR), it uses that one.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
