"""Times of files: units that nothing decodes are named with a way out, which works."""

import numpy as np
import pytest
from source_files import TIMES, truth

from emulator.ingestion.plan import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.open import open_source
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis

GIVEN = "hours since 2001-02-27"


def write(path, units, name="time", values=None, form="nc"):
    hours = 6.0 * np.arange(8) if values is None else values
    data = truth().drop_vars("time").assign_coords(time=("time", hours, {} if units is None else {"units": units}))
    data = data if name == "time" else data.rename(time=name)
    data.to_zarr(path, zarr_format=2) if form == "zarr" else data.to_netcdf(path)


def times(tmp_path, path, **options):
    ingest(IngestOptions([SourceOptions(str(path), **options)]), tmp_path / "store.zarr")
    return open_analysis(tmp_path / "store.zarr")["time"].values


@pytest.mark.parametrize("form", ["nc", "zarr"])
@pytest.mark.parametrize(
    "units",
    ["hours since foo", "fortnights since 2001-01-01", "hours after 2001-01-01", "hours", None, "h since 0.0.0"],
)
def test_units_that_nothing_decodes(tmp_path, units, form):
    path = tmp_path / f"a.{form}"
    write(path, units, form=form)
    with pytest.raises(ValueError, match=r"units.*hours since 1900-01-01.*units: \{time: ") as error:
        times(tmp_path, path)
    assert (
        "install" not in str(error.value) and "decode_times" not in str(error.value) and str(path) in str(error.value)
    )
    np.testing.assert_array_equal(times(tmp_path, path, units={"time": GIVEN}), TIMES)


def test_units_that_are_wrong_give_way(tmp_path):
    write(tmp_path / "a.nc", "hours since 1801-01-01")
    np.testing.assert_array_equal(times(tmp_path, tmp_path / "a.nc", units={"time": GIVEN}), TIMES)


@pytest.mark.parametrize("by", ["Times", "time"])
def test_a_time_of_another_name(tmp_path, by):
    write(tmp_path / "a.nc", None, "Times")
    with pytest.raises(ValueError, match=r"Expected a time, got .*'Times'.*rename: \{t: time\}"):
        times(tmp_path, tmp_path / "a.nc")
    found = times(tmp_path, tmp_path / "a.nc", rename={"Times": "time"}, units={by: GIVEN})
    np.testing.assert_array_equal(found, TIMES)


def test_dates_as_numbers(tmp_path):
    dates = 20010227 + np.arange(8) // 4 + 0.25 * (np.arange(8) % 4)
    write(tmp_path / "a.nc", "day as %Y%m%d.%f", values=dates)
    np.testing.assert_array_equal(times(tmp_path, tmp_path / "a.nc"), TIMES)
    assert open_source(str(tmp_path / "a.nc"))[0].dataset.sizes["time"] == 8
