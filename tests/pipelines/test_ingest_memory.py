"""Memory of an ingest stays bounded, however much there is to read: fields of 0.25 degrees on 13 levels."""

import os
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import xarray as xr

GIGABYTES = float(os.environ.get("EMULATOR_INGEST_GIGABYTES", "2"))
LIMIT = 1.5 if GIGABYTES < 4 else 3.0
LEVELS = [50.0, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
UNITS = {"geopotential": "m2 s-2", "temperature": "K", "u_component_of_wind": "m s-1"}

SCRIPT = """
import resource, sys
from pipelines.config import IngestConfig
from pipelines.ingest import ingest
ingest(IngestConfig(sources=[{"path": sys.argv[1]}], output=sys.argv[2], dask={"workers": int(sys.argv[3]), "threads": 2}))
own, children = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print((own + int(sys.argv[3]) * children) * 1024 / 1e9)
"""


def write(folder, count):
    """`count` six-hourly times in files of four, written a field at a time."""
    latitude, longitude = np.linspace(90, -90, 721), np.arange(1440) * 0.25
    noise = np.random.default_rng(0).normal(0, 0.1, (721, 1440)).astype(np.float32)
    wave = (np.cos(np.radians(latitude))[:, None] * np.sin(np.radians(5 * longitude))).astype(np.float32) + noise
    for number, first in enumerate(range(0, count, 4)):
        steps = range(first, min(first + 4, count))
        with netCDF4.Dataset(folder / f"{number:03d}.nc", "w") as file:
            for name, values, units in (
                ("time", [6 * n for n in steps], "hours since 2001-01-01"),
                ("level", LEVELS, "hPa"),
                ("latitude", latitude, "degrees_north"),
                ("longitude", longitude, "degrees_east"),
            ):
                file.createDimension(name, len(values))
                variable = file.createVariable(name, "f8", (name,))
                variable.units = units
                variable[:] = values
            for name, units in UNITS.items():
                variable = file.createVariable(name, "f4", ("time", "level", "latitude", "longitude"))
                variable.units = units
                for at, step in enumerate(steps):
                    for level in range(len(LEVELS)):
                        variable[at, level] = 250 + (1 + level / 10 + step / 100) * wave


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("workers", [0, 2])
def test_it_does_not_grow_with_what_there_is_to_read(tmp_path, workers):
    if workers and GIGABYTES < 4:
        pytest.skip("the libraries of two processes weigh more than so little data")
    one = 4 * len(UNITS) * len(LEVELS) * 721 * 1440 / 1e9
    count = round(GIGABYTES / one)
    write(tmp_path, count)
    output = tmp_path / "a.zarr"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "*.nc"), str(output), str(workers)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    gigabytes = float(found.stdout.split()[-1])
    print(f"{gigabytes:.2f} GB over all processes for {GIGABYTES:g} GB of fields, {workers} workers")
    assert gigabytes < LIMIT, f"{gigabytes:.2f} GB for {GIGABYTES} GB"
    assert gigabytes > 0.2  # a measure that measures
    with xr.open_zarr(output, chunks=None) as store, xr.open_dataset(tmp_path / "000.nc") as source:
        assert store.sizes["time"] == count
        np.testing.assert_array_equal(store.temperature[3, 7].values, source.temperature[3, 7].values)
