"""The library's own entry from sources to a store and its statistics, without configuration, workers or a screen."""

import numpy as np
import pytest
import xarray as xr
from source_files import TIMES, truth

from emulator.ingestion.options import GridOptions, IngestOptions
from emulator.ingestion.run import ingest
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from emulator.store.statistics import write_statistics

TRUTH = truth()


@pytest.fixture
def source(tmp_path):
    TRUTH.to_netcdf(tmp_path / "a.nc")
    return tmp_path / "a.nc"


def test_a_path_is_enough(tmp_path, source, caplog):
    seen = []
    ingest(IngestOptions(source), tmp_path / "a.zarr", report=lambda *progress: seen.append(progress))
    store = open_analysis(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.temperature.values, TRUTH.temperature.values)
    assert seen[0] == (0, 3, "") and seen[-1] == (3, 3, "")
    with caplog.at_level("INFO"):
        ingest(IngestOptions([str(source)]), tmp_path / "a.zarr")
    assert "is complete" in caplog.text
    write_statistics([tmp_path / "a.zarr"], tmp_path / "s.nc", end=TIMES[3])
    statistics = xr.load_dataset(tmp_path / "s.nc")
    assert statistics.attrs["samples"] == 4
    expected = float(TRUTH.mean_sea_level_pressure[:4].max())
    assert float(statistics.mean_sea_level_pressure.sel(statistic="maximum")) == expected


def test_options_make_another_store(tmp_path, source):
    output = tmp_path / "a.zarr"
    ingest(IngestOptions(source), output)
    before = open_analysis(output).attrs["fingerprint"]
    ingest(IngestOptions(source, grid=GridOptions(6), variables=["temperature"], end="2001-02-27"), output)
    store = open_analysis(output)
    assert grid_of(store).shape == (6, 12) and store.sizes["time"] == 4 and "mean_sea_level_pressure" not in store
    assert store.attrs["fingerprint"] != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "at least one source"),
        ({"kind": "reanalysis"}, "kind among analysis, forecast, joined, cutout, got 'reanalysis'"),
        ({"missing": "guess"}, "missing among refuse, keep, interpolate, got 'guess'"),
        ({"longest_gap": 0}, "longest_gap of at least 1, got 0"),
        ({"step_hours": -6.0}, "step_hours above 0, got -6"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        IngestOptions(**{"sources": "a.nc"} | options)
