"""The stage with an ocean: its configuration, and the chain to the report."""

import json

import numpy as np
import pydantic
import pytest
import xarray as xr
import yaml
from small_planet import small_planet
from small_store import NETWORK, write_store

import emulator as em
from emulator.report.panels.conservation import budget_table, conservation
from emulator.report.view import View
from pipelines.cli import main
from pipelines.config import RolloutConfig

PLACES = {"store": "a.zarr", "checkpoint": "c", "output": "f.zarr"}
CO2 = "carbon_dioxide_mole_fraction"


def test_a_configuration_says_which_ocean_and_one_without_is_written_as_before():
    plain = RolloutConfig(**PLACES)
    assert not {"ocean", "bounds"} & set(json.loads(plain.model_dump_json()))
    slab = RolloutConfig(**PLACES, ocean={"depth": 50})
    assert slab.ocean.kind == "slab" and slab.ocean.convergence is None
    again = RolloutConfig(**json.loads(slab.model_dump_json()))
    assert again == slab
    other = RolloutConfig(**PLACES, ocean={"kind": "emulator", "checkpoint": "o", "store": "o.zarr"})
    assert str(other.ocean.store) == "o.zarr"
    for wrong in ({"kind": "puddle"}, {"kind": "slab", "deep": 3}, {"kind": "emulator", "store": "o.zarr"}):
        with pytest.raises(pydantic.ValidationError):
            RolloutConfig(**PLACES, ocean=wrong)


@pytest.mark.slow
def test_from_the_configuration_to_the_report(tmp_path):
    """Under more carbon dioxide than in the training; the slab's energy has its line, and the sea's temperature is scored."""
    planet = small_planet(times=40, nlat=8)
    course = np.where(np.arange(40) < 20, 280e-6 + 1e-6 * np.arange(40), 560e-6)
    planet[CO2] = ("time", course, {"units": "mol mol-1", "role": "forcing", "cell_methods": "time: point"})
    store = write_store(tmp_path, planet)
    end = str(planet.time.values[19])[:13]
    em.statistics(store, tmp_path / "s.nc", end=end)
    options = {"network": NETWORK, "phases": [{"updates": 2, "batch_size": 2}], "period": {"end": end}}
    em.train(store, tmp_path / "s.nc", tmp_path / "train", **options)
    run = {
        "store": str(store),
        "checkpoint": str(tmp_path / "train" / "checkpoint"),
        "output": str(tmp_path / "f.zarr"),
    }
    run |= {"period": {"start": str(planet.time.values[22])[:13]}, "every_hours": 24, "lead_days": 1, "bounds": "none"}
    run |= {"also": ["netcdf", "grib"]}
    run |= {"long_run_days": 2, "uncorrected_inits": 1, "ocean": {"kind": "slab", "depth": 50, "convergence": 0}}
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(run))
    assert main(["rollout", str(tmp_path / "rollout.yaml"), "--check"]) == 0
    assert main(["rollout", str(tmp_path / "rollout.yaml")]) == 0
    for name in ("f.zarr", "long_run.zarr", "uncorrected.zarr"):
        assert "sea_surface_temperature" in em.open_forecast(tmp_path / name)
    with xr.open_dataset(next((tmp_path / "f_netcdf").glob("*.nc"))) as netcdf:
        assert netcdf["sea_surface_temperature"].dtype == np.float64
    assert list((tmp_path / "f_grib").iterdir())
    scores = em.score({"emulator": tmp_path / "f.zarr"}, store)
    assert "sea_surface_temperature" in scores["channel"].values
    view = View(scores)
    assert "coupled_energy" in scores["budget"].values and "Energy with the slab" in budget_table(view)
    assert conservation(view)
    with pytest.raises(ValueError, match="parallel.space 1 with an ocean"):
        from pipelines.rollout import sea_of

        sea_of(RolloutConfig(**run, parallel={"space": 2}), None, None, 1)
    run["ocean"] = {"kind": "slab"}
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(run))
    assert main(["rollout", str(tmp_path / "rollout.yaml"), "--check"]) != 0
