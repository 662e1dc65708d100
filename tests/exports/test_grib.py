"""Fields of the variable table as GRIB: ECMWF's numbers, and what ingest recognises when it reads them."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.variables import VARIABLES
from emulator.sources.harmonise import matches
from emulator.sources.open import open_source

eccodes = pytest.importorskip("eccodes")

NUMBERED = {name: entry for name, entry in VARIABLES.items() if entry.parameter and entry.vertical in (None, "level")}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A forecast of every field that GRIB has a number for, two leads on a small grid, as a file."""
    from emulator.exports.messages import write_grib

    grid = Grid.equiangular(6, 12)
    coordinates = {
        "lead_time": np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"),
        "level": ("level", [500.0, 850.0], {"units": "hPa"}),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
        "init_time": np.datetime64("2001-01-01T00", "ns"),
    }
    fields = {}
    for number, (name, entry) in enumerate(NUMBERED.items()):
        dims = ("lead_time",) * (entry.cell != "fixed") + ("level",) * entry.levels + ("latitude", "longitude")
        shape = [{"lead_time": 2, "level": 2, "latitude": 6, "longitude": 12}[dim] for dim in dims]
        fields[name] = (dims, np.full(shape, 1.0 + number, np.float32), {"units": entry.units, "role": entry.role})
    fields["plankton"] = (
        ("lead_time", "latitude", "longitude"),
        np.ones((2, 6, 12)),
        {"units": "kg m-3", "role": "forcing"},
    )
    path = tmp_path_factory.mktemp("grib") / "a.grib2"
    write_grib(xr.Dataset(fields, coordinates), path)
    return path


def test_every_number_of_the_table_is_written(written):
    found = set()
    with open(written, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            found.add(eccodes.codes_get(message, "paramId"))
            eccodes.codes_release(message)
    assert found == {entry.parameter for entry in NUMBERED.values()}


def test_ingest_recognises_what_is_written(written):
    found = {}
    for source in open_source(str(written)):
        (name,) = source.dataset.data_vars
        (match,) = matches(name, source.dataset[name])
        found[match.name] = float(source.dataset[name].isel(step=-1).max())
    assert found == {name: 1.0 + number for number, name in enumerate(NUMBERED)}
