"""Fixtures shared by all tests."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run on every core already, and threads that wait for one spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import xarray as xr
from small_planet import small_planet

JAX_CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def pytest_configure(config):
    """What JAX compiles of the embedded model is kept for the run, for all workers and the processes that they start."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="emulator-tests-jax-", ignore_cleanup_errors=True)
        os.environ.update({"JAX_COMPILATION_CACHE_DIR": folder.name, **JAX_CACHE})
        config.add_cleanup(folder.cleanup)


hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder of real files is not here")
    return SHARED


@pytest.fixture(scope="session")
def planet() -> xr.Dataset:
    return small_planet()
