"""How XLA computes on a CPU, and where it keeps compiled programs; chosen by commands."""

import ctypes
import os
import platform
from importlib.metadata import entry_points
from pathlib import Path

import jax

# On a CPU, XLA can give convolutions, matrix products and reductions to YNNPACK. Its reductions are
# the fastest there are; so are its products, but for oneDNN's, which JAX 0.12 has and 0.10 has not.
# Convolutions are Eigen's where oneDNN is not. GPUs know nothing of these.
WITH_ONEDNN = [
    "--xla_cpu_experimental_onednn_custom_call=true",
    "--xla_cpu_experimental_ynn_fusion_type=reduce",
]
WITHOUT_ONEDNN = ["--xla_cpu_experimental_ynn_fusion_type=reduce,dot"]
# Loops that XLA compiles itself use vectors of 512 bits where the CPU has them, not of 256.
WIDE = "--xla_cpu_prefer_vector_width=512"

# Parameters of glibc's mallopt (malloc.h): large arrays come from the heap like all others, instead
# of from mappings of their own, and none of the heap is given back to the system.
KEEP_FREED_MEMORY = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def prepare_cpu(keep_programs_in: Path | None = None) -> None:
    """Selects the CPU kernels of all programs compiled from now on, and how memory is reused.

    Must come before JAX is first used. What the user's own XLA_FLAGS and MALLOC_… variables say
    wins.

    Args:
        keep_programs_in: a folder from which the same programs are loaded at the next start,
            instead of compiled; JAX_COMPILATION_CACHE_DIR comes before it. For commands that start
            often and compile little: a process that loaded dozens of kept programs once ended in a
            segmentation fault (JAX 0.10.2). Kept programs are without oneDNN, whose calls JAX
            cannot write down: trying may end the process (0.12.0).
    """
    if keep_programs_in is not None and not programs_are_kept():
        jax.config.update("jax_compilation_cache_dir", str(keep_programs_in))
    kernels = WITHOUT_ONEDNN if programs_are_kept() or not has_onednn() else WITH_ONEDNN
    os.environ["XLA_FLAGS"] = " ".join([*kernels, WIDE, os.environ.get("XLA_FLAGS", "")]).strip()
    if not entry_points(group="jax_plugins"):  # no JAX for GPUs is installed
        _keep_freed_memory()


def has_onednn() -> bool:
    """Whether this JAX is built with oneDNN."""
    return jax.__version_info__ >= (0, 12) and platform.machine() in ("x86_64", "AMD64")


def programs_are_kept() -> bool:
    """Whether JAX keeps compiled programs in a folder."""
    return jax.config.values["jax_compilation_cache_dir"] is not None


def _keep_freed_memory() -> None:
    """Has freed memory handed to the next array that asks, where glibc is the C library.

    XLA allocates the arrays of a program anew at each call. Fresh pages from the system cost a
    training step of ResNet-50 a sixth of its time. The heap is the main thread's, so programs must
    run in the thread that calls them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    for parameter, value in KEEP_FREED_MEMORY.values():
        mallopt(parameter, value)
