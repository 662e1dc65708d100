"""Surface fluxes that answer the surface of a sea's forecast, and stay in its budgets."""

import numpy as np
import pytest
import xarray as xr
from small_sea import CONSTANTS, HEAT, SALT, SO, STEP, THETAO, THICKNESS, grid, small_sea, water
from small_store import store_of

import emulator as em
from emulator.verify.audit import audit

DAYS, TAU = 100, 30.0
RATE = {
    HEAT: CONSTANTS.sea_water_density * CONSTANTS.sea_water_heat_capacity * THICKNESS[0] / (TAU * 86400),  # W m-2 K-1
    SALT: CONSTANTS.sea_water_density / 1000 * THICKNESS[0] / (TAU * 86400),  # kg m-2 s-1 for g kg-1
}
FIELD = {HEAT: THETAO, SALT: SO}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restored")
    paths = store_of(folder, small_sea())
    em.train(
        *paths,
        folder / "out",
        network={"kind": "samudra", "widths": [4], "dilations": [1], "norm": "none"},
        conservation={"kind": "projection", "budgets": ["ocean_heat", "ocean_salt"]},
        bounds="none",
        phases=[{"updates": 3, "batch_size": 2, "rollout_steps": 2}],
    )
    return folder / "out" / "checkpoint", paths[0]


@pytest.fixture(scope="module")
def pair(trained):
    """The store, and forecasts with fluxes that answer and with prescribed ones."""
    checkpoint, store = trained
    truth = xr.open_zarr(store, consolidated=False).load()
    init = truth["time"].values[5]
    found = em.forecast(checkpoint, store, init, days=DAYS, restoring={"days": TAU})
    return truth, found, em.forecast(checkpoint, store, init, days=DAYS)


def test_fluxes_are_the_stores_and_what_the_surface_departs_by(pair):
    truth, found = pair[0], pair[1].isel(init_time=0)
    wet, steps = water()[0], DAYS // 5
    for flux, field in FIELD.items():
        assert np.isnan(found[flux].values[0]).all() and np.isnan(found[flux].values[:, ~wet]).all()
        prescribed = truth[flux].values[6 : 6 + steps]
        np.testing.assert_array_equal(found[flux].values[1], prescribed[0])  # from the store's own state
        departure = truth[field].values[5 : 5 + steps, 0].astype(float) - found[field].values[:-1, 0]
        expected = prescribed + RATE[flux] * departure
        np.testing.assert_allclose(found[flux].values[1:], expected, rtol=1e-5, atol=1e-6 * np.nanmax(abs(expected)))
        assert np.nanmax(abs(departure)) > 1e-2


def test_budgets_close_with_the_fluxes_that_were_given(pair):
    """The audit has them from the forecast; of heat beyond the truth's a step takes what the answer brings, no more."""
    truth, found, prescribed = pair
    wet = water()[0]
    area = np.where(wet, grid().area, 0) / grid().area[wet].sum()
    book, other = audit(found, truth), audit(prescribed, truth)
    np.testing.assert_allclose(book["budget_relative"].values[..., 1:], 0, rtol=0, atol=2e-7)
    for budget, flux in (("ocean_heat", HEAT), ("ocean_salt", SALT)):
        beyond = book["budget_total"].sel(budget=budget).values[0] - other["budget_total"].sel(budget=budget).values[0]
        answer = np.nan_to_num(found[flux].values[0, 1:] - truth[flux].values[6 : 6 + DAYS // 5])
        brought = np.cumsum((answer * area).sum((1, 2))) * STEP
        scale = abs(brought).max()
        assert scale > 0
        room = 1e-6 * float(book["budget_total"].sel(budget=budget).max())
        np.testing.assert_allclose(beyond[1:], brought, rtol=0, atol=room)


def test_a_surface_that_departs_is_drawn_back(trained):
    """A sea that begins 2 K too warm everywhere loses that heat; without an answer it keeps all of it."""
    checkpoint, store = trained
    truth = xr.open_zarr(store, consolidated=False).load()
    init, warm = truth["time"].values[5], truth.copy(deep=True)
    warm[THETAO][5] += 2.0
    left = {}
    for name, how in (("answering", {"restoring": {"days": TAU}}), ("prescribed", {})):
        heat = [audit(em.forecast(checkpoint, data, init, days=30, **how), truth) for data in (warm, truth)]
        total = [book["budget_total"].sel(budget="ocean_heat").values[0] for book in heat]
        left[name] = (total[0] - total[1]) / (total[0] - total[1])[0]
    np.testing.assert_allclose(left["prescribed"], 1, rtol=0, atol=2e-5)
    # the first step starts from the warm store itself, so that its flux is the store's
    np.testing.assert_allclose(left["answering"][:2], 1, rtol=0, atol=2e-5)
    assert np.all(np.diff(left["answering"][1:]) < 0) and left["answering"][-1] < 0.99


def test_a_stopped_forecast_ends_with_the_same_bits_and_the_store_says_what_answered(trained, tmp_path):
    checkpoint, store = trained
    times = xr.open_zarr(store, consolidated=False)["time"].values[[5, 7]]
    how = {"restoring": {"days": TAU, "fluxes": [HEAT]}, "days": 30}
    whole = em.forecast(checkpoint, store, times, output=tmp_path / "whole.zarr", **how)
    again = em.forecast(checkpoint, store, times, batch_size=1, **how)
    for name in (THETAO, SO, HEAT):
        np.testing.assert_array_equal(whole[name].values, again[name].values)
    thin = em.forecast(checkpoint, store, times, thin={"variables": [THETAO]}, **how)
    np.testing.assert_array_equal(thin[HEAT].values, whole[HEAT].values)  # which the audit of heat needs
    assert SO not in thin
    assert SALT not in whole and whole.attrs["prescribed"].split(", ") == [SALT]
    assert "30" in whole.attrs["restoring"]


@pytest.mark.parametrize(
    ("restoring", "message"),
    [
        ({"days": 4}, "days above the length of a step, 5 days, got 4"),
        ({"days": 30, "fluxes": ["mean_evaporation_rate"]}, f"{HEAT}, {SALT}, got mean_evaporation_rate"),
        ({"days": 30, "fluxes": []}, "got none"),
        ({"days": 0}, "above 0"),
        (30, "restoring as options such as {'days': 30}, got 30"),
    ],
)
def test_what_cannot_answer_is_refused(trained, restoring, message):
    checkpoint, store = trained
    init = xr.open_zarr(store, consolidated=False)["time"].values[5]
    with pytest.raises(ValueError, match=message):
        em.forecast(checkpoint, store, init, days=10, restoring=restoring)
