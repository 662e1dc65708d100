"""Stores of mllam-data-prep through ingest: the layout written by xarray alone, bit for bit, and maps by their names."""

import numpy as np
import pytest
import xarray as xr

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.formats import mllam
from emulator.sources.open import format_of
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of

X, Y = np.arange(7) * 2500.0 + 1e5, np.arange(5) * 2500.0 - 4e5
CONFIG = """extra:
  projection:
    class_name: LambertConformal
    kwargs:
      central_latitude: 56.7
      central_longitude: 25.0
      globe:
        semimajor_axis: 6371229.0
        semiminor_axis: 6371229.0
      standard_parallels:
      - 50.0
      - 6.0e+1
output:
  variables: {}
"""


def write(path, config=CONFIG, spatial=("x", "y")):
    """A store as mllam-data-prep 0.7 writes it: x runs slowest."""
    rng, cells, times = np.random.default_rng(0), len(X) * len(Y), np.datetime64("2019-01-01", "ns")
    x, y = (each.ravel() for each in np.meshgrid(X, Y, indexing="ij"))
    features = {"state": ["t850", "t500", "t2m", "r925hPa"], "forcing": ["swavr0m"], "static": ["lsm"]}
    units = {"state": ["K", "K", "K", "1"], "forcing": ["W m**-2"], "static": ["1"]}
    data = {
        kind: rng.normal(size=((6,) if kind != "static" else ()) + (cells, len(names))).astype("f4")
        for kind, names in features.items()
    }
    data["state"][..., :3] += 280
    data["static"] = np.clip(data["static"], 0, 1)
    dims = {k: (*["time"] * (k != "static"), "grid_index", f"{k}_feature") for k in features}
    coordinates = {spatial[0]: ("grid_index", x), spatial[1]: ("grid_index", y), "grid_index": np.arange(cells)}
    coordinates |= {"time": times + np.arange(6) * np.timedelta64(3, "h")}
    coordinates |= {f"{k}_feature": names for k, names in features.items()}
    coordinates |= {f"{k}_feature_units": (f"{k}_feature", each) for k, each in units.items()}
    attributes = {
        "created_with": "mllam-data-prep (https://github.com/mllam/mllam-data-prep)",
        "creation_config": config,
    }
    dataset = xr.Dataset({k: (dims[k], v) for k, v in data.items()}, coordinates, attributes)
    dataset["state__train__diff_std"] = ("state_feature", np.ones(4))
    dataset.to_zarr(path, zarr_format=2, encoding={"state": {"chunks": (4, cells, 4)}})
    return data


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
def test_fields_levels_cells_and_the_map_are_those_that_were_written(tmp_path):
    data = write(tmp_path / "danra.zarr")
    assert format_of(str(tmp_path / "danra.zarr")).name == "mllam"
    options = IngestOptions([SourceOptions(str(tmp_path / "danra.zarr"))], variables=("temperature", "2m_temperature"))
    ingest(options, tmp_path / "analysis.zarr")
    store = open_analysis(tmp_path / "analysis.zarr")

    def on_the_map(feature):
        return data["state"][..., feature].reshape(6, len(X), len(Y)).transpose(0, 2, 1)[:, ::-1]

    np.testing.assert_array_equal(store["temperature"].values[:, 0], on_the_map(1))
    np.testing.assert_array_equal(store["temperature"].values[:, 1], on_the_map(0))
    np.testing.assert_array_equal(store["2m_temperature"].values, on_the_map(2))
    grid = grid_of(store)
    assert grid.kind == "projected" and grid.shape == (5, 7)
    np.testing.assert_allclose(grid.x, X)
    assert grid.mapping["standard_parallel"] == [50.0, 60.0]
    assert grid.mapping["longitude_of_central_meridian"] == 25.0 and grid.mapping["semi_major_axis"] == 6371229.0


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore:The data type:FutureWarning")
def test_refusals(tmp_path):
    write(tmp_path / "a.zarr", CONFIG.replace("LambertConformal", "InterruptedGoodeHomolosine"))
    with pytest.raises(ValueError, match="cartopy's maps LambertConformal.*got InterruptedGoodeHomolosine"):
        mllam.opens(str(tmp_path / "a.zarr"), "a.zarr", None)
    write(tmp_path / "b.zarr", spatial=("a", "b"))
    with pytest.raises(ValueError, match="x and y, or longitude and latitude.*got none"):
        mllam.opens(str(tmp_path / "b.zarr"), "b.zarr", None)
