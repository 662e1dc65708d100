"""An emulator of a sea: trained with its budgets, it keeps heat and salt for years, and never writes on land."""

import numpy as np
import pytest
import torch
import xarray as xr
from small_sea import HEAT, SALT, SO, THETAO, grid, small_sea, water
from small_store import store_of

import emulator as em
from emulator.conservation.options import SchemeOptions
from emulator.model.sea import sea_of
from emulator.planet.grid import CLOSED
from emulator.verify.audit import audit

NETWORK = {"kind": "samudra", "widths": [4], "dilations": [1], "norm": "none"}
BUDGETS = {"kind": "projection", "budgets": ["ocean_heat", "ocean_salt"]}
OPTIONS = {"network": NETWORK, "bounds": "none", "phases": [{"updates": 3, "batch_size": 2, "rollout_steps": 2}]}
DAYS = 100


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sea")
    paths = store_of(folder, small_sea())
    em.train(*paths, folder / "out", conservation=BUDGETS, **OPTIONS)
    return folder / "out" / "checkpoint", paths


def test_a_forecast_keeps_heat_and_salt_and_stays_off_land(trained, tmp_path):
    checkpoint, (store, _) = trained
    truth = xr.open_zarr(store, consolidated=False)
    init = truth["time"].values[5]
    found = em.forecast(checkpoint, store, init, days=DAYS, output=tmp_path / "forecast.zarr").load()
    wet = water()
    for name in (THETAO, SO):
        assert np.isnan(found[name].values[..., ~wet]).all() and np.isfinite(found[name].values[..., wet]).all()
        assert HEAT not in found  # what is prescribed is not forecast
    book = audit(found, truth)
    assert list(book["budget"].values) == ["ocean_heat", "ocean_salt"]
    relative = book["budget_relative"].values[..., 1:]
    np.testing.assert_allclose(relative, 0, rtol=0, atol=2e-7)  # float32 on 64 columns
    for name in ("ocean_heat", "ocean_salt"):
        np.testing.assert_allclose(found[f"residual_after_{name}"].values, 0, rtol=0, atol=2e-7)
        assert np.abs(found[f"residual_before_{name}"].values[:, 1:]).max() > 1e-5
    area = np.where(wet[0], grid().area, 0) / grid().area[wet[0]].sum()
    flux = np.nan_to_num(truth[HEAT].values[6 : 6 + DAYS // 5])
    total = book["budget_total"].sel(budget="ocean_heat").values[0]
    brought = np.cumsum((flux * area).sum((1, 2))) * 5 * 86400
    np.testing.assert_allclose(total[1:] - total[0], brought, rtol=0, atol=1e-6 * total[0])
    assert np.abs(brought).max() > 1e-4 * total[0]


def test_true_states_close_in_the_audit_and_forgotten_fluxes_are_seen(trained):
    truth = xr.open_zarr(trained[1][0], consolidated=False).load()
    found = audit(truth)["budget_relative"].values[..., 1:]
    np.testing.assert_allclose(found, 0, rtol=0, atol=1e-6)  # as float32 has them
    wrong = audit(truth.assign({HEAT: 0 * truth[HEAT], SALT: truth[SALT]}))["budget_relative"]
    assert np.abs(wrong.sel(budget="ocean_heat").values[..., 1:]).max() > 1e-5
    np.testing.assert_allclose(wrong.sel(budget="ocean_salt").values[..., 1:], 0, rtol=0, atol=1e-6)


def test_a_forecast_that_was_stopped_goes_on_to_the_same_values(trained, tmp_path):
    """From its 50th day on, it starts from what it was then: the scheme holds on to nothing else."""
    checkpoint, (store, _) = trained
    step = em.load_model(checkpoint)
    truth = xr.open_zarr(store, consolidated=False)
    whole = em.forecast(step, store, truth["time"].values[5], days=DAYS)
    middle = whole.sel(lead_time=np.timedelta64(50, "D")).isel(init_time=0)
    later = truth.load().copy(deep=True)
    for name in (THETAO, SO):
        later[name][15] = middle[name].values
    again = em.forecast(step, later, truth["time"].values[15], days=DAYS - 50)
    for name in (THETAO, SO):
        np.testing.assert_array_equal(again[name].values[0, 1:], whole[name].values[0, 11:])


def test_the_scheme_of_a_checkpoint_is_that_of_the_training(trained):
    step = em.load_model(trained[0])
    sea, data = step.scheme.atmosphere, small_sea()
    expected = sea_of(data, SchemeOptions(budgets=("ocean_heat", "ocean_salt")))
    for name in ("area", "depths", "wet"):
        torch.testing.assert_close(getattr(sea, name), getattr(expected, name), rtol=0, atol=0)
    assert sea.constants == expected.constants and sea.step_seconds == expected.step_seconds


def test_what_cannot_be_closed_is_refused_by_name(tmp_path):
    options = SchemeOptions(budgets=("ocean_heat",))
    open_sea = small_sea(closed=False)
    with pytest.raises(ValueError, match=f"closed sides, got .*water at its edge, and no attribute {CLOSED}"):
        sea_of(open_sea, options)
    inner = np.zeros((3, 8, 8))
    inner[:, 1:-1, 1:-1] = 1
    walled = open_sea.assign(sea_water_mask=open_sea["sea_water_mask"].copy(data=inner))
    assert int(sea_of(walled, options).wet.sum()) == 108
    with pytest.raises(ValueError, match="depths with depth_bounds"):
        sea_of(small_sea().drop_vars("depth_bounds"), options)
    means = small_sea()
    means[THETAO].attrs["cell_methods"] = "time: mean"
    paths = store_of(tmp_path, means)
    with pytest.raises(ValueError, match=f"{THETAO} as a snapshot, got cell_methods 'time: mean'"):
        em.train(*paths, tmp_path / "out", conservation=BUDGETS, **OPTIONS)
    with pytest.raises(ValueError, match=r"train.conservation.budgets=\[ocean_heat,ocean_salt\]"):
        em.train(*paths, tmp_path / "out", **OPTIONS)
    with pytest.raises(ValueError, match=f"no penalty on budgets with fluxes that are forcing, got {HEAT}"):
        paths = store_of(tmp_path, small_sea())
        em.train(*paths, tmp_path / "out", conservation=BUDGETS | {"penalty": 0.1}, **OPTIONS)
