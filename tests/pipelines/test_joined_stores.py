"""A six-hourly atmosphere and a daily ocean of two stores, from one experiment to the report, with nothing copied."""

import numpy as np
import pytest
import xarray as xr
import yaml
from small_planet import small_planet
from tiny_experiment import tiny_experiment

from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.cli import main

SEA = "sea_surface_temperature"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    path, planet = tiny_experiment(folder), small_planet(times=72)
    days = planet.isel(time=slice(0, None, 4))[[SEA]]
    days[SEA] = days[SEA] + np.arange(18.0)[:, None, None].astype(np.float32)
    days[SEA].attrs = planet[SEA].attrs
    planet.drop_vars(SEA).to_netcdf(folder / "atmosphere.nc")
    days.assign_attrs(constants=planet.attrs["constants"]).to_netcdf(folder / "ocean.nc")
    for name in ("atmosphere", "ocean"):
        ingest(folder / f"{name}.nc", folder / f"{name}.zarr")
    raw = yaml.safe_load(path.read_text())
    sources = [{"path": str(folder / "atmosphere.zarr")}, {"path": str(folder / "ocean.zarr"), "variables": [SEA]}]
    raw["ingest"] = {"kind": "joined", "sources": sources}
    raw["train"]["phases"] = [{"updates": 4}]
    raw["rollout"] |= {"uncorrected_inits": 0, "long_run_days": 0, "maximum_inits": 3}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_from_two_stores_to_the_report(experiment):
    run = experiment.parent / "run"
    assert main(["run", str(experiment)]) == 0
    store = open_analysis(run / "analysis.zarr")
    np.testing.assert_allclose(
        np.diff(store[SEA].values[:, 0, 0]), (np.arange(1, 72) % 4 == 0).astype(float), atol=1e-4
    )
    assert sum(file.stat().st_size for file in (run / "analysis.zarr").rglob("*")) < 2000
    forecast = open_forecast(run / "forecast.zarr")
    assert forecast.sizes["init_time"] == 3
    assert (run / "report" / "report.html").exists()
    assert main(["inspect", str(run / "analysis.zarr")]) == 0
    with xr.open_dataset(run / "statistics.nc") as statistics:
        assert SEA in statistics


def test_what_a_join_has_no_use_for_is_refused(experiment, tmp_path):
    folder = experiment.parent
    paths = [str(folder / f"{name}.zarr") for name in ("atmosphere", "ocean")]
    for more, fact in (({"missing": "keep"}, "missing"), ({"derive": ["wind_speed"]}, "derive")):
        with pytest.raises(ValueError, match=fact):
            ingest(IngestOptions(paths, kind="joined", **more), tmp_path / "joined.zarr")
    with pytest.raises(ValueError, match="part"):
        ingest(IngestOptions(paths, kind="joined"), tmp_path / "joined.zarr", part=(1, 2))
    with pytest.raises(ValueError, match="variables"):
        IngestOptions.of({"sources": [{"path": paths[0], "variables": [SEA]}]})
    assert not (tmp_path / "joined.zarr").exists()
