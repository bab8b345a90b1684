"""What several tests share: a compilation cache, a small stand-in dataset, the tiny config."""

import gc
import os
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from data_pipeline.build import __main__ as build
from data_pipeline.synthetic import Settings, write_dataset
from er_jax.configs.tiny import get_config
from er_jax.detection import DetectorError
from er_jax.detection.weights import weights_dir
from er_jax.utils.xla_cpu import add_flags

# Most of the time is compilation, which this shortens; the flags also in processes that tests
# start. The demo and the benchmarks compile as users do.
jax.config.update("jax_disable_most_optimizations", True)
add_flags(
    {
        "xla_cpu_opt_preset": "FAST_COMPILE",
        "xla_cpu_parallel_codegen_split_count": "1",  # the other core has a test of its own
        "xla_cpu_use_fusion_emitters": "false",  # of JAX 0.10: a third of the time
    }
)
# Tracing makes millions of objects, hardly any of them in cycles: looking for those less often
# saves a twentieth of its time.
gc.freeze()
gc.set_threshold(100_000)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that several tests compile are compiled once; `ER_JAX_TEST_CACHE` keeps them."""
    if kept := os.environ.get("ER_JAX_TEST_CACHE"):
        folder = Path(kept)
    elif "PYTEST_XDIST_WORKER" in os.environ:  # shared with the other workers
        folder = tmp_path_factory.getbasetemp().parent / "compiled"
        folder.mkdir(exist_ok=True)
    else:
        folder = tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder


@pytest.fixture(scope="session")
def raw_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw stand-in dataset of a few images."""
    folder = tmp_path_factory.mktemp("raw")
    write_dataset(folder, Settings(train=24, val=6, test=8), workers=1)
    return folder


@pytest.fixture(scope="session")
def data_dir(raw_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw stand-in dataset, built."""
    folder = tmp_path_factory.mktemp("datasets")
    arguments = ["interhand26m", f"--raw_dir={raw_dir}", f"--data_dir={folder}"]
    assert build.main(arguments) == 0
    return folder


@pytest.fixture(scope="session")
def detector_dir() -> Path:
    """The detector's networks, fetched into the user's cache where they are not; else a skip."""
    try:
        return weights_dir()
    except DetectorError as error:
        pytest.skip(f"the detector's networks cannot be had: {error}")


@pytest.fixture
def tiny_config(data_dir: Path) -> ConfigDict:
    """`configs/tiny.py` on the small dataset."""
    config = get_config()
    config.data_dir = str(data_dir)
    return config
