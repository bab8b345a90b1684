"""CPU tuning: all that this project does for XLA on CPUs alone, and until when.

Ratios are of a call's time without the form to its time with it, medians of alternating calls in
one run on two shared cores of an AMD EPYC, JAX 0.12.0 on Python 3.12 where nothing else is said.

- Freed memory is used again (`_keep_freed_memory`): the demo's training step 1.28, `Reconstructor`
  1.0. May go when XLA keeps its arrays' memory between calls.
- Depthwise convolutions as nine shifted images (`er_jax/models/convolution.py`): `Reconstructor`
  with TinyViT-5M at batch 1 1.47. May go when XLA's grouped convolution is no slower.
- Reductions by XLA itself (JAX 0.10.2 and 0.11.0): right results, see `avoid_wrong_reductions`.
  Goes with the support of these releases.

Left out, although it gives about a tenth: oneDNN's products with reductions by YNNPACK, which are
experimental flags of JAX 0.12 alone, and which JAX cannot keep in its compilation cache. In two
runs the demo's step 0.94 and 1.12, evaluation 1.23 and 1.07, `Reconstructor` at batch 1 1.11 and
1.12, MANO's gradient at 1024 0.94 and 0.88. Nor are YNNPACK's products alone left to JAX 0.10.2,
whose reductions are wrong: a matrix product 1.30, but the demo's step 0.98, ER at batch 1 0.87.
Left out, as it gives less: YNNPACK's products, vectors of 512 bits, the gradient of 3×3 kernels as
one product, a form of a ResNet's first convolution, and the network's weights as constants of
`Reconstructor`'s programs (1.05). MANO at 1024 with gradient in pieces of 256 poses: 1.23 with JAX
0.10.2, 0.85 with 0.12.0.
"""

import mmap
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from er_jax.utils.cache import keep_compiled_programs

# JAX is imported where it is needed: the package avoids wrong reductions when it is imported, and
# worker processes, which import the package too, do without JAX.

WRONG_REDUCTIONS = ("0.10.2", "0.11.0")
PLAIN_REDUCTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Parameters of glibc's mallopt (malloc.h): large arrays come from the heap like all others, instead
# of from mappings of their own, and none of the heap is given back to the system.
KEEP_FREED_MEMORY = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def prepare_cpu(cache_dir: Path | None = None) -> None:
    """Sets how a process compiles for a CPU and reuses its memory.

    Must come before JAX is first used. What the user's own XLA_FLAGS and MALLOC_… variables say
    wins, and where an accelerator may be JAX's backend only the cache is set.

    Args:
      cache_dir: of JAX's persistent compilation cache; JAX_COMPILATION_CACHE_DIR comes before it.
        For commands that start often and compile little: a process that loaded dozens of cached
        programs once ended in a segmentation fault (JAX 0.10.2).
    """
    if cache_dir is not None:
        keep_compiled_programs(cache_dir)
    avoid_wrong_reductions()
    if cpu_is_the_backend():
        _keep_freed_memory()


def avoid_wrong_reductions() -> None:
    """Has XLA compile reductions itself, in the releases whose other way of doing so is wrong.

    By default these give wrong rows past 32,768 of fewer than 49,152, and products and sums of
    seven axes that end the process (jax-ml/jax issues 39103 and 39257). Too late where JAX was used
    before.
    """
    if metadata.version("jaxlib") in WRONG_REDUCTIONS and cpu_is_the_backend():
        add_flags(PLAIN_REDUCTIONS)


def cpu_is_the_backend() -> bool:
    """Returns whether JAX can have no other backend: it is told so, or no plug-in is there."""
    jax = sys.modules.get("jax")
    told = jax.config.jax_platforms if jax else os.environ.get("JAX_PLATFORMS")
    if told:
        return told == "cpu"
    return not (
        metadata.entry_points(group="jax_plugins")
        or find_spec("jax_plugins")
        or find_spec("libtpu")
        or os.environ.keys() & {"PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH"}
    )


def add_flags(flags: dict[str, str]) -> None:
    """Puts those flags into XLA_FLAGS that XLA knows and the user does not set."""
    given = os.environ.get("XLA_FLAGS", "").strip()
    if given and not given.startswith("-"):  # the name of a file that holds the flags
        return
    set_already = {word.partition("=")[0].lstrip("-") for word in given.split()}
    added = [
        f"--{name}={value}"
        for name, value in flags.items()
        if name not in set_already and _is_known(name)
    ]
    if added:
        os.environ["XLA_FLAGS"] = " ".join([*added, given]).strip()


def _is_known(flag: str) -> bool:
    """Returns whether XLA has a flag of that name: one that it has not ends the process.

    XLA can tell only by ending it. The names lie in its library as strings of C, which takes 10 ms
    to see, or a third of a second where there is none.
    """
    name = b"\0" + flag.encode() + b"\0"
    package = find_spec("jaxlib")
    assert package is not None and package.origin is not None
    for library in Path(package.origin).parent.glob("*jax_common*"):
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.find(name) >= 0:
                return True
    return False


def _keep_freed_memory() -> None:
    """Has freed memory handed to the next array that asks, where glibc is the C library.

    XLA allocates the arrays of a program anew at each call, and fresh pages of the system take
    time. The heap is the main thread's, so programs must run in the thread that calls them.
    """
    import ctypes

    import jax

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    for parameter, value in KEEP_FREED_MEMORY.values():
        mallopt(parameter, value)
