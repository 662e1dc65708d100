"""The stage with an ocean: its configuration, the chain to the report, and carbon dioxide beyond the training's."""

import json
from pathlib import Path

import numpy as np
import pydantic
import pytest
import xarray as xr
import yaml
from small_planet import small_planet
from small_sea import HEAT, small_sea
from small_store import NETWORK, write_store

import emulator as em
from emulator.report.panels.caveats import caveats
from emulator.report.panels.conservation import budget_table, conservation
from emulator.report.view import View
from emulator.verify.audit import audit
from pipelines.cli import main
from pipelines.config import RolloutConfig
from pipelines.load import load_stage
from pipelines.outputs import files

PLACES = {"store": "a.zarr", "checkpoint": "c", "output": "f.zarr"}
CO2 = "carbon_dioxide_mole_fraction"


def test_a_configuration_says_which_ocean_and_one_without_is_written_as_before():
    plain = RolloutConfig(**PLACES)
    assert not {"ocean", "bounds", "restoring"} & set(json.loads(plain.model_dump_json()))
    slab = RolloutConfig(**PLACES, ocean={"depth": 50})
    assert slab.ocean.kind == "slab" and slab.ocean.convergence is None
    again = RolloutConfig(**json.loads(slab.model_dump_json()))
    assert again == slab
    other = RolloutConfig(**PLACES, ocean={"kind": "emulator", "checkpoint": "o", "store": "o.zarr"})
    assert str(other.ocean.store) == "o.zarr"
    for wrong in ({"kind": "puddle"}, {"kind": "slab", "deep": 3}, {"kind": "emulator", "store": "o.zarr"}):
        with pytest.raises(pydantic.ValidationError):
            RolloutConfig(**PLACES, ocean=wrong)
    with pytest.raises(pydantic.ValidationError, match="either an ocean .* or restoring .*, got both"):
        RolloutConfig(**PLACES, ocean={"depth": 50}, restoring={"days": 30})


def test_fluxes_that_answer_the_surface_of_a_sea(tmp_path, capfd):
    """Forecasts, the uncorrected ones and a long run beyond the store, whose fluxes are their own."""
    store = write_store(tmp_path, small_sea())
    em.statistics(store, tmp_path / "s.nc")
    network = {"kind": "samudra", "widths": [4], "dilations": [1], "norm": "none"}
    scheme = {"kind": "projection", "budgets": ["ocean_heat", "ocean_salt"]}
    options = {"network": network, "conservation": scheme, "phases": [{"updates": 2, "batch_size": 2}]}
    em.train(store, tmp_path / "s.nc", tmp_path / "train", **options)
    run = {
        "store": str(store),
        "checkpoint": str(tmp_path / "train" / "checkpoint"),
        "output": str(tmp_path / "f.zarr"),
    }
    run |= {"every_hours": 480, "lead_days": 20, "uncorrected_inits": 1, "long_run_days": 300, "beyond_store": True}
    run |= {"restoring": {"days": 30}}
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(run))
    assert main(["rollout", str(tmp_path / "rollout.yaml"), "--check"]) == 0
    assert main(["rollout", str(tmp_path / "rollout.yaml")]) == 0
    for name in ("f.zarr", "uncorrected.zarr", "long_run.zarr"):
        found = xr.open_zarr(tmp_path / name, consolidated=False)
        assert json.loads(found.attrs["restoring"])["days"] == 30 and HEAT in found
    short = em.open_forecast(tmp_path / "f.zarr")
    book = audit(short, xr.open_zarr(store, consolidated=False))
    np.testing.assert_allclose(book["budget_relative"].values[..., 1:], 0, rtol=0, atol=2e-7)
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(run | {"restoring": {"days": 3}}))
    capfd.readouterr()
    assert main(["rollout", str(tmp_path / "rollout.yaml"), "--check"]) != 0
    assert "above the length of a step, 5 days, got 3" in capfd.readouterr().err


@pytest.mark.slow
def test_from_the_configuration_to_the_report(tmp_path, capfd):
    """Trained at 280 to 300 ppm and run at 560: said in the log and the caveats; the slab's energy has its line."""
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
    assert (
        f"{CO2} goes beyond what the network was trained on (0.00028 to 0.000299): 0.00056 to 0.00056"
        in capfd.readouterr().err
    )
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
    told = [
        sentence for sentence in caveats(view) if "beyond its training's 0.00028 mol mol-1 to 0.000299 mol" in sentence
    ]
    assert len(told) == 1 and "0.00056" in told[0]
    with pytest.raises(ValueError, match="parallel.space 1 with a network as the ocean, got 2"):
        from pipelines.rollout import sea_of

        network = {"ocean": {"kind": "emulator", "checkpoint": "c", "store": "d"}, "parallel": {"space": 2}}
        sea_of(RolloutConfig(**run | network), None, None, 1)
    run["ocean"] = {"kind": "slab"}
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(run))
    assert main(["rollout", str(tmp_path / "rollout.yaml"), "--check"]) != 0


def test_a_stage_knows_the_stores_of_an_oceans_network_and_of_a_run_whose_length_is_a_lead():
    given = {"store": "a", "checkpoint": "b", "output": "r/f.zarr", "long_run_lead": "1y"}
    network = {"kind": "emulator", "checkpoint": "c", "store": "d"}
    names = [
        [path.name for path in files("rollout", RolloutConfig(**given, **more))] for more in ({}, {"ocean": network})
    ]
    assert names == [["f.zarr", "long_run.zarr"], ["f.zarr", "long_run.zarr", "f-ocean.zarr", "long_run-ocean.zarr"]]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, {"emulator": Path("r/forecast-ocean.zarr")}),
        ({"forecasts": {"coupled": "r/forecast.zarr"}}, {}),
        ({"truth": None, "observations": {"path": "metar.parquet"}}, {}),
    ],
)
def test_what_an_ocean_exchanges_is_audited_where_verify_names_nothing_else(tmp_path, more, found):
    network = {"kind": "emulator", "checkpoint": "c", "store": "d"}
    text = {"directory": "r", "rollout": {"ocean": network}, "verify": more}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(text))
    assert load_stage("verify", tmp_path / "experiment.yaml").oceans == found
