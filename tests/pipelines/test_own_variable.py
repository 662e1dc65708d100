"""A variable of the user's own name, from a NetCDF file to the report, by the example of docs/data.md."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import entry
from pipelines.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
TIMES = np.datetime64("2001-01-01T00", "ns") + np.arange(52) * np.timedelta64(6, "h")


def waves() -> xr.Dataset:
    """Waves that grow with a wind that goes round the globe; `(time, latitude, longitude)`."""
    latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(16) * 22.5
    t, north, east = np.meshgrid(np.arange(52.0), np.radians(latitude), np.radians(longitude), indexing="ij")
    wind = 8 + 4 * np.cos(north) * np.sin(2 * east - 0.2 * t)
    dims = ("time", "latitude", "longitude")
    fields = {"Hm0": 0.02 * wind**2, "u10": wind, "v10": 0.5 * wind * np.sin(east)}
    units = {"Hm0": "m", "u10": "m s-1", "v10": "m s-1"}
    data = {name: (dims, values.astype(np.float32), {"units": units[name]}) for name, values in fields.items()}
    return xr.Dataset(data, {"time": TIMES, "latitude": latitude, "longitude": longitude})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("waves")
    text = DOCS.read_text().split("### Example: a wave height")[1].split("```yaml\n")[1].split("```")[0]
    (folder / "waves").mkdir()
    waves().to_netcdf(folder / "waves" / "a.nc")
    experiment = yaml.safe_load(text)
    assert experiment["ingest"]["define"]["wave_height"]["role"] == "prognostic"
    experiment["directory"] = str(folder / "run")
    experiment["ingest"]["sources"][0]["path"] = str(folder / "waves" / "*.nc")
    tiny = {"network": {"kind": "unet", "width": 8, "depth": 1}, "phases": [{"updates": 6}], "save_every": 6}
    experiment["train"] |= tiny
    experiment["rollout"] |= {"also": ["netcdf"]}
    (folder / "waves.yaml").write_text(yaml.safe_dump(experiment))
    assert main(["run", str(folder / "waves.yaml")]) == 0
    return folder / "run"


def test_the_store_keeps_what_the_field_is(run, capsys):
    store = open_analysis(run / "analysis.zarr")
    found = entry(store, "wave_height")
    assert (found.units, found.role, found.minimum, found.maximum) == ("m", "prognostic", 0.0, 30.0)
    np.testing.assert_array_equal(store.wave_height, waves().Hm0)
    assert main(["inspect", str(run / "analysis.zarr")]) == 0
    (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("wave_height ")]
    assert line[1:3] == ["m", "prognostic"]


def test_forecasts_scores_exports_and_report_know_it(run):
    forecast = open_forecast(run / "forecast.zarr")
    assert entry(forecast, "wave_height") == entry(open_analysis(run / "analysis.zarr"), "wave_height")
    assert np.isfinite(forecast.wave_height.values).all() and forecast.attrs["prescribed"].startswith("10m_u")
    scores = xr.open_dataset(run / "scores.nc")
    at = list(scores["variable"].values).index("wave_height")
    assert (
        scores["channel_units"].values[at] == "m" and np.isfinite(scores["rmse"].isel(channel=at).values[..., 1:]).any()
    )
    (first, *_) = sorted((run / "forecast_netcdf").glob("*.nc"))
    exported = xr.open_dataset(first)["wave_height"].attrs
    assert exported["standard_name"] == "sea_surface_wave_significant_height" and exported["units"] == "m"
    page = (run / "report" / "report.html").read_text()
    assert "Wave height" in page
