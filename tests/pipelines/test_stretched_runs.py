"""A stretched grid through the stages: a network of the coarse globe goes on with a fine region in it."""

import numpy as np
import pytest
import xarray as xr
import yaml
from limited_area_stores import LEVEL, globe
from regional_sources import UNITS, wave
from small_store import write_store

from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.cli import main

REGION = Grid.box(10, 14, (30.0, 70.0, 90.0, 146.0))
NETWORK = {"kind": "graph", "refinement": 2, "width": 16, "rounds": 2}
FINE = {"network": NETWORK | {"inside": 3}, "region_weight": {"box": [30, 70, 90, 146], "share": 0.3}}


def region() -> xr.Dataset:
    """The globe's wave at the cells of the region."""
    time, fields = wave(*np.meshgrid(REGION.latitude, REGION.longitude, indexing="ij"))
    dims = {"temperature": ("time", "level"), "surface_pressure": ("time",)}
    data = {n: ((*d, "latitude", "longitude"), fields[n], {"units": UNITS[n]}) for n, d in dims.items()}
    coordinates = {"time": time, "level": LEVEL, "latitude": REGION.latitude, "longitude": REGION.longitude}
    return xr.Dataset(data, coordinates).assign_attrs(vertical_coordinate="pressure", time_step_seconds=21600.0)


def experiment(folder, name, ingest, **train):
    raw = {
        "directory": str(folder / name),
        "ingest": ingest,
        "stats": {"period": {"end": "2001-01-07"}},
        "train": {"period": {"end": "2001-01-07"}, "conservation": {"kind": "none"}, **train},
        "rollout": {"period": {"start": "2001-01-08"}, "every_hours": 12, "lead_days": 1},
        "verify": {"climatology": {"end": "2001-01-07"}},
        "report": {"title": name},
    }
    raw["train"]["optimizer"] = {"warmup_steps": 5, "lr": 0.004}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def error_in_the_region(run):
    """Root mean square error of temperature after a step, over the fine cells."""
    truth, forecast = open_analysis(run / "analysis.zarr")["temperature"], open_forecast(run / "forecast.zarr")
    starts, lead = forecast["init_time"].values, forecast["lead_time"].values[1]
    fine = slice(0, REGION.area.size)
    difference = forecast["temperature"].isel(lead_time=1).values - truth.sel(time=starts + lead).values
    return np.sqrt((difference[..., fine] ** 2).mean())


@pytest.mark.slow
def test_weights_of_the_coarse_globe_are_better_in_the_region_than_none(tmp_path):
    fine, coarse = write_store(tmp_path, region(), "fine.zarr"), write_store(tmp_path, globe(40), "globe.zarr")
    path = experiment(
        tmp_path, "coarse", {"sources": [{"path": str(coarse)}]}, network=NETWORK, phases=[{"updates": 200}]
    )
    for stage in ("ingest", "stats", "train"):
        assert main([stage, str(path)]) == 0
    ingest = {"kind": "cutout", "sources": [{"path": str(fine)}, {"path": str(coarse)}]}
    start = {"checkpoint": str(tmp_path / "coarse" / "train" / "checkpoint"), "statistics": "new"}
    errors = {}
    for name, more in {"alone": {}, "started": {"start": start}}.items():
        path = experiment(tmp_path, name, ingest, phases=[{"updates": 40}], **FINE, **more)
        assert main(["run", str(path), "--check"]) == 0
        assert main(["run", str(path)]) == 0
        assert next((tmp_path / name / "report").glob("*.html")).exists()
        errors[name] = error_in_the_region(tmp_path / name)
    assert errors["started"] < 0.9 * errors["alone"]
