"""Budgets of a limited area with what leaves it by its sides: made of driving data, closed in forecasts, audited."""

import shutil

import numpy as np
import pytest
import xarray as xr
from small_planet import CONSTANTS, FLUXES, small_planet
from small_store import write_store

import emulator as em
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.outflow import Outflow, cells_of
from emulator.store.schema import grid_of
from emulator.verify.options import OutflowOptions
from emulator.verify.outflow import outflow

STEP = 21600.0
BUDGETS = ("dry_air", "water", "energy")
ROWS, COLUMNS = slice(4, 19), slice(5, 29)
KINDS = ("sequential", "projection")


def cut(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.isel(latitude=ROWS, longitude=COLUMNS)


def still(times: int = 6) -> xr.Dataset:
    """A planet on which all is uniform and only pressure grows, by 8 Pa a step, on flat ground."""
    planet = small_planet(times, nlat=24).assign_attrs(time_step_seconds=STEP)
    uniform = {"temperature": 256.0, "specific_humidity": 2.0**-8, "u_component_of_wind": 4.0} | FLUXES
    uniform |= {"v_component_of_wind": 0.0, "geopotential_at_surface": 0.0}
    for name, value in uniform.items():
        planet[name] = xr.full_like(planet[name], value)
    grown = 8.0 * xr.DataArray(np.arange(times), dims="time")
    planet["surface_pressure"] = (xr.full_like(planet["surface_pressure"], 98304.0) + grown).astype(np.float32)
    return planet


def known_outflow() -> dict[str, float]:
    """What leaves any domain of the still planet: what enters at the top and the ground less what is stored."""
    moisture, mass = 2.0**-8, 8.0 / CONSTANTS.gravity / STEP
    content = CONSTANTS.heat_capacity_dry_air * 256 + CONSTANTS.latent_heat_vaporisation * moisture + 8.0
    flux = {name: float(np.float32(value)) for name, value in FLUXES.items()}
    heat = sum(
        value * (1 if "_top_" in name else -1) for name, value in flux.items() if "net" in name or "heat" in name
    )
    water = -flux["mean_total_precipitation_rate"] - flux["mean_evaporation_rate"]
    return {"dry_air": -(1 - moisture) * mass, "water": water - moisture * mass, "energy": heat - content * mass}


@pytest.mark.parametrize("domain", ["cut", "other cells", "forecasts"])
def test_what_leaves_is_what_the_driving_data_leave_unexplained(domain):
    planet, known = still(), known_outflow()
    area = cut(planet)
    if domain == "other cells":
        grid = Grid.box(7, 9, (-20.0, 30.0, 40.0, 110.0))
        area = planet.isel(latitude=slice(0, 7), longitude=slice(0, 9))
        area = area.assign_coords(latitude=grid.latitude, longitude=grid.longitude)
    driving = planet
    if domain == "forecasts":
        leads = (np.arange(4) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
        moving = planet[[name for name in planet.data_vars if "time" in planet[name].dims]]
        runs = [moving.isel(time=slice(i, i + 4)).assign_coords(time=leads).rename(time="lead_time") for i in (0, 2)]
        driving = xr.concat(runs, "init_time").assign_coords(init_time=planet["time"].values[[0, 2]])
        driving = driving.assign({name: planet[name] for name in set(planet.data_vars) - set(moving.data_vars)})
    found = outflow(driving, area)
    for name, value in known.items():
        np.testing.assert_allclose(found[f"outflow_{name}"], value, rtol=2e-10)
    shape = (2, 3) if domain == "forecasts" else (5,)
    assert found["outflow_water"].shape == shape
    read, time = Outflow(found, BUDGETS, grid_of(area)), planet["time"].values
    init = time[2]
    np.testing.assert_allclose(read.at(init, time[3], time[5]), list(known.values()), rtol=2e-10)


def test_what_leaves_is_the_mean_divergence_of_transport():
    planet = still()
    area = grid_of(cut(planet)).area
    field = xr.zeros_like(planet["surface_pressure"]) + 1e-5 * np.cos(np.radians(planet["longitude"]))
    names = {"mean_vertically_integrated_moisture_divergence": ("kg m-2 s-1", 1.0)}
    names |= {"mean_vertical_integral_of_divergence_of_mass_flux": ("kg m-2 s-1", 300.0)}
    names |= {"mean_vertical_integral_of_divergence_of_total_energy_flux": ("W m-2", 1e7)}
    for name, (units, factor) in names.items():
        planet[name] = (factor * field).astype(np.float32).assign_attrs(units=units, cell_methods="time: mean")
    mean = float((cut(field).isel(time=1).values * area).sum() / area.sum())
    found = outflow(planet, cut(planet), OutflowOptions(divergence=BUDGETS))
    for name, factor in (("water", 1.0), ("dry_air", 299.0), ("energy", 1e7)):
        np.testing.assert_allclose(found[f"outflow_{name}"], factor * mean, rtol=1e-5)
    own = outflow(planet, cut(planet), OutflowOptions(divergence=("water",)))
    np.testing.assert_allclose(own["outflow_energy"], known_outflow()["energy"], rtol=2e-10)
    with pytest.raises(ValueError, match="as a mean over the step .* got its time cell 'point'"):
        planet["mean_vertically_integrated_moisture_divergence"].attrs["cell_methods"] = "time: point"
        outflow(planet, cut(planet), OutflowOptions(divergence=("water",)))
    with pytest.raises(ValueError, match="in W m-2, got MW m-2"):
        planet["mean_vertical_integral_of_divergence_of_total_energy_flux"].attrs["units"] = "MW m-2"
        outflow(planet, cut(planet), OutflowOptions(divergence=("energy",)))
    with pytest.raises(ValueError, match="it lacks mean_vertical_integral_of_divergence_of_mass_flux"):
        gone = planet.drop_vars("mean_vertical_integral_of_divergence_of_mass_flux")
        outflow(gone, cut(planet), OutflowOptions(divergence=("dry_air",)))


def test_a_file_is_told_by_what_it_holds_and_a_domain_by_its_cells():
    planet = still()
    area, found = cut(planet), outflow(planet, cut(planet))
    own = Outflow(found, BUDGETS, grid_of(area)).fingerprint
    assert Outflow(found.assign_attrs(driving="others"), BUDGETS, grid_of(area)).fingerprint == own
    changed = found.copy(deep=True)
    changed["outflow_water"] *= 2
    assert Outflow(changed, BUDGETS, grid_of(area)).fingerprint != own
    near = area.assign_coords(longitude=area["longitude"] + 1e-9, latitude=area["latitude"] - 1e-9)
    assert (
        cells_of(grid_of(near))
        == cells_of(grid_of(area))
        != cells_of(grid_of(planet.isel(latitude=slice(5, 20), longitude=COLUMNS)))
    )


def test_what_leaves_over_longer_steps_is_the_mean_and_parts_of_a_step_are_refused():
    planet = still(9)
    planet["surface_pressure"] = planet["surface_pressure"] + xr.DataArray(np.arange(9.0) ** 2, dims="time")
    found = outflow(planet, cut(planet))
    read, time = Outflow(found, ("dry_air",), grid_of(cut(planet))), planet["time"].values
    series = found["outflow_dry_air"].values
    np.testing.assert_allclose(read.at(None, time[2], time[6]), series[2:6].mean(), rtol=1e-14)
    with pytest.raises(ValueError, match="has means over 6 h that do not begin and end with it"):
        read.at(None, time[2], time[2] + np.timedelta64(3, "h"))


def spoiled(path, folder, change) -> str:
    with xr.open_dataset(path, decode_timedelta=True) as dataset:
        change(dataset := dataset.load())
    dataset.to_netcdf(folder / "spoiled.nc")
    return str(folder / "spoiled.nc")


def attribute(name, **values):
    return lambda dataset: dataset[name].attrs.update(values)


def hole(dataset):
    dataset["outflow_energy"][5] = np.nan


BAD = {
    "units": (attribute("outflow_water", units="mm d-1"), "outflow_water with units 'kg m-2 s-1', got 'mm d-1'"),
    "sign": (attribute("outflow_energy", sign="positive inward"), "'positive outward', got 'positive inward'"),
    "snapshots": (attribute("outflow_dry_air", cell_methods="time: point"), "as means over steps .* got 'time: point'"),
    "domain": (lambda d: d.attrs.update(domain_cells="x", domain="Spain"), "by the sides of .* is of Spain"),
    "energy": (
        attribute("outflow_energy", form="form total"),
        "outflow_energy of the energy form hydrostatic, .* got form",
    ),
    "hole": (hole, "at every step, .* has none of energy from 2001-01-02T06:00"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a globe, a box cut from it, what leaves the box, and the box's networks by scheme."""
    folder = tmp_path_factory.mktemp("open")
    planet = small_planet(28, nlat=24).assign_attrs(time_step_seconds=STEP)
    write_store(folder, planet, "globe.zarr")
    write_store(folder, cut(planet), "box.zarr")
    em.statistics(folder / "box.zarr", folder / "statistics.nc")
    em.outflow(folder / "globe.zarr", folder / "box.zarr", folder / "outflow.nc")
    for kind in ("none", *KINDS):
        train(folder, kind)
    return folder


def train(folder, name, kind=None, **more):
    boundary = {"store": folder / "globe.zarr", "width": 2, "outflow": folder / "outflow.nc"} | more.pop("boundary", {})
    options = {"network": {"kind": "unet", "width": 4, "depth": 1}, "conservation": {"kind": kind or name}}
    options |= {"phases": [{"updates": 3, "batch_size": 2, "rollout_steps": 2}]}
    return em.train(folder / "box.zarr", folder / "statistics.nc", folder / name, boundary=boundary, **options | more)


def forecast(folder, kind, inits=("2001-01-03", "2001-01-04T06"), **more):
    return em.forecast(folder / kind / "checkpoint", folder / "box.zarr", list(inits), days=2, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrected_forecast_closes_with_what_leaves_and_an_uncorrected_one_does_not(trained, kind):
    truth, made = open_analysis(trained / "box.zarr"), forecast(trained, kind)
    found = em.budgets(made, truth)
    assert [str(name) for name in found["budget"].values] == list(BUDGETS)
    closed, estimate = (
        np.abs(found[f"budget_{what}"].isel(lead_time=slice(1, None))) for what in ("closed_relative", "relative")
    )
    assert float(closed.max()) < 1e-8
    free = em.budgets(forecast(trained, "none"), truth)
    open_ = np.abs(free["budget_closed_relative"].isel(lead_time=slice(1, None)))
    for name in BUDGETS:
        assert float(estimate.sel(budget=name).max()) > 1e-6
        assert float(open_.sel(budget=name).max()) > 1e-6
        np.testing.assert_allclose(
            made[f"outflow_{name}"].isel(init_time=0, lead_time=slice(1, None)),
            xr.open_dataset(trained / "outflow.nc")[f"outflow_{name}"].sel(
                time=slice("2001-01-03T06", "2001-01-05T00")
            ),
            rtol=1e-6,
        )


def test_a_flux_of_zero_is_a_closed_domain(trained):
    """Dry air stays what it was, and water and energy change by what passes the top and the ground alone."""
    with xr.open_dataset(trained / "outflow.nc", decode_timedelta=True) as dataset:
        closed = dataset.load()
    closed.update({f"outflow_{name}": 0 * closed[f"outflow_{name}"] for name in BUDGETS})
    for name in BUDGETS:
        closed[f"outflow_{name}"].attrs = dataset[f"outflow_{name}"].attrs
    closed.to_netcdf(trained / "closed.nc")
    made = forecast(trained, "projection", boundary={"store": trained / "globe.zarr", "outflow": trained / "closed.nc"})
    found = em.budgets(made, open_analysis(trained / "box.zarr")).isel(lead_time=slice(1, None))
    assert float(np.abs(found["budget_relative"]).max()) < 1e-8
    np.testing.assert_array_equal(found["budget_relative"], found["budget_closed_relative"])


def test_forecasts_do_not_depend_on_their_batch(trained):
    inits = ("2001-01-03", "2001-01-04T06", "2001-01-02T12")
    together, apart = forecast(trained, "projection", inits), forecast(trained, "projection", inits, batch_size=1)
    fields = [str(n) for n in together.data_vars if "latitude" in together[n].dims or str(n).startswith("outflow_")]
    for name in fields:  # convolutions round otherwise in other batches
        scale = float(np.abs(together[name]).max())
        np.testing.assert_allclose(together[name], apart[name], rtol=0, atol=1e-5 * scale, err_msg=name)


def test_given_as_forecasts_it_is_that_of_the_same_initial_time(trained):
    """Perfect driving forecasts let out what the analysis does; late ones do so at their longer leads."""
    truth = open_analysis(trained / "globe.zarr")
    moving = truth[[name for name in truth.data_vars if "time" in truth[name].dims]]
    leads = (np.arange(11) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    inits = moving["time"].values[[6, 8, 11, 13]]
    runs = [moving.sel(time=init + leads).assign_coords(time=leads).rename(time="lead_time") for init in inits]
    driving = xr.concat(runs, "init_time").assign_coords(init_time=inits)
    driving = driving.assign({name: truth[name] for name in ("half_level_a", "half_level_b")})
    driving.attrs = {n: v for n, v in driving.attrs.items() if n not in ("emulator_schema", "complete", "fingerprint")}
    driving.drop_encoding().to_zarr(trained / "runs.zarr", consolidated=False, mode="w")
    em.outflow(trained / "runs.zarr", trained / "box.zarr", trained / "runs.nc", static=trained / "globe.zarr")
    given = {"store": trained / "runs.zarr", "outflow": trained / "runs.nc"}
    perfect = forecast(trained, "projection")
    for more in ({}, {"delay_hours": 12}):
        made = forecast(trained, "projection", boundary=given | more)
        for name in BUDGETS:
            np.testing.assert_allclose(made[f"outflow_{name}"], perfect[f"outflow_{name}"], rtol=1e-5, err_msg=name)
    short = {"store": trained / "globe.zarr", "outflow": trained / "runs.nc"}
    with pytest.raises(ValueError, match="as far as the forecast, from 2001-01-05T12.* to 2001-01-05T12"):
        em.forecast(
            trained / "projection" / "checkpoint", trained / "box.zarr", str(inits[1]), days=2.75, boundary=short
        )
    with pytest.raises(ValueError, match="in a forecast from 2001-01-03T12.* has 4 from"):
        forecast(trained, "projection", ["2001-01-03T12"], boundary=short)


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_a_file_that_will_not_do_is_refused(trained, tmp_path, change, message):
    given = {"store": trained / "globe.zarr", "outflow": spoiled(trained / "outflow.nc", tmp_path, change)}
    with pytest.raises(ValueError, match=message):
        forecast(trained, "projection", ["2001-01-02"], boundary=given)
    with pytest.raises(ValueError, match=message):
        train(trained, tmp_path / "other", "projection", boundary={"outflow": given["outflow"]})


WRONG = {
    "none": (
        {"outflow": None},
        {},
        "train.boundary.outflow to close budgets of .* let an unknown amount through, got none",
    ),
    "inside": ({"place": "inside"}, {}, "without a boundary inside"),
    "penalty": ({}, {"penalty": 0.1}, "without a penalty"),
    "anchor": ({}, {"anchor": "given", "dry_mass": 1e4}, "without the anchor given"),
}


@pytest.mark.parametrize("boundary, closing, message", WRONG.values(), ids=WRONG)
def test_what_does_not_go_with_open_sides_is_refused(trained, tmp_path, boundary, closing, message):
    with pytest.raises(ValueError, match=message):
        train(trained, tmp_path / "other", conservation={"kind": "sequential"} | closing, boundary=boundary)


def test_forecasts_without_what_leaves_and_with_nudging_are_refused(trained):
    shutil.copytree(trained / "globe.zarr", trained / "again.zarr", dirs_exist_ok=True)
    store = {"store": trained / "again.zarr"}
    with pytest.raises(ValueError, match="Expected rollout.boundary.outflow, .*dry_air, water, energy.* got none"):
        forecast(trained, "projection", boundary=store)
    nudged = store | {"outflow": trained / "outflow.nc", "nudging": {"length_km": 6000, "hours": 6}}
    with pytest.raises(ValueError, match="no nudging with conservation"):
        forecast(trained, "projection", boundary=nudged)
    em.outflow(trained / "globe.zarr", trained / "box.zarr", trained / "short.nc", period=(None, "2001-01-04"))
    with pytest.raises(ValueError, match="as far as the forecast, from 2001-01-04T18.* to 2001-01-04T18"):
        forecast(trained, "projection", ["2001-01-03"], boundary=store | {"outflow": trained / "short.nc"})
    with pytest.raises(ValueError, match="without one, got one"):
        plain = train(trained, "plain", "none", boundary={"outflow": None})
        em.forecast(
            plain, trained / "box.zarr", "2001-01-03", days=1, boundary=store | {"outflow": trained / "outflow.nc"}
        )
