import numpy as np
import pytest
import xarray as xr
from made_forecasts import made_forecast, made_truth

from emulator.planet.constants import Constants
from emulator.store.forecast import to_disk_names
from emulator.store.schema import grid_of, levels_of
from emulator.verify import audit, budgets
from emulator.verify.budgets import Ledger

STEP = 21600.0


@pytest.fixture(scope="module")
def truth():
    return made_truth(40)


def total_of(dataset, name):
    fields = {n: dataset[n].values.astype(np.float64) for n in budgets.audited()["energy"].needed if n in dataset}
    constants = Constants.from_json(dataset.attrs["constants"])
    return budgets.totals(fields, levels_of(dataset), grid_of(dataset), constants)[name]


def test_forecast_equal_to_the_truth_has_the_truths_residuals(truth):
    forecast = made_forecast(truth, [3, 9, 20], 6, error=0.0)
    found, skipped = audit.audit_stores(
        truth, {"ours": forecast}, forecast["init_time"].values, forecast["lead_time"].values
    )
    assert skipped == {"ours": {}, "truth": {}}
    assert list(found["audit_source"].values) == ["ours", "truth"]
    assert list(found["budget"].values) == list(budgets.audited("air"))
    ours, theirs = (found["budget_residual"].sel(audit_source=name) for name in ("ours", "truth"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert np.isnan(ours.isel(audit_lead_time=0)).all() and np.isfinite(ours.isel(audit_lead_time=slice(1, None))).all()
    np.testing.assert_allclose(
        found["budget_total"].sel(audit_source="ours", budget="energy").isel(audit_init_time=1),
        total_of(truth, "energy")[9:16],
        rtol=1e-12,
    )


def test_names_and_orders_of_other_tools_are_those_of_the_figures(truth):
    forecast = made_forecast(truth, [3], 2, error=0.0)
    theirs = to_disk_names(forecast).isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", ...)
    xr.testing.assert_identical(audit.audit(theirs, truth.transpose("longitude", ...)), audit.audit(forecast, truth))


def test_a_leak_of_dry_air_is_found_at_its_size(truth):
    forecast = made_forecast(truth, [2, 8], 5, error=0.0)
    steady = forecast.isel(lead_time=0, drop=True).expand_dims(lead_time=forecast["lead_time"], axis=1)
    leak = xr.DataArray(np.arange(6) * 7.0, dims="lead_time")
    leaking = xr.Dataset(
        {name: array if "lead_time" in array.dims else forecast[name] for name, array in steady.items()}
    )
    leaking["surface_pressure"] = (steady["surface_pressure"] + leak).transpose("init_time", "lead_time", ...)
    leaking = leaking.assign(half_level_a=forecast["half_level_a"], half_level_b=forecast["half_level_b"]).assign_attrs(
        truth.attrs
    )
    leaking["geopotential_at_surface"] = truth["geopotential_at_surface"]
    found, _ = audit.audit_stores(truth, {"leaky": leaking}, leaking["init_time"].values, leaking["lead_time"].values)
    residual = found["budget_residual"].sel(audit_source="leaky", budget="dry_air")[:, 1:]
    dry_share = 1 - total_of(truth, "water") / (total_of(truth, "water") + total_of(truth, "dry_air"))
    np.testing.assert_allclose(residual, 7.0 / 9.81 * np.broadcast_to(dry_share[[2, 8], None], (2, 5)), rtol=2e-3)


def test_unaccounted_rates_leave_the_relative_residual_alone(truth):
    forecast = made_forecast(truth, [5], 4, error=0.0)
    plain, _ = audit.audit_stores(truth, {"a": forecast}, forecast["init_time"].values, forecast["lead_time"].values)
    residual = plain["budget_residual"].sel(audit_source="a")
    rates = {"unaccounted_heating": 3.0, "unaccounted_moistening": 2e-6, "unaccounted_dry_mass": 1e-6}
    known = forecast.assign_attrs(forecast.attrs | rates)
    found, _ = audit.audit_stores(truth, {"a": known}, forecast["init_time"].values, forecast["lead_time"].values)
    xr.testing.assert_identical(found["budget_residual"].sel(audit_source="a"), residual)
    expected = {"energy": 3.0 * STEP, "water": 2e-6 * STEP, "dry_air": 1e-6 * STEP}
    for budget, rate in expected.items():
        amount = residual.sel(budget=budget) * (STEP if budget == "energy" else 1) - rate
        relative = amount / found["budget_total"].sel(audit_source="a", budget=budget)
        np.testing.assert_allclose(
            found["budget_relative"].sel(audit_source="a", budget=budget)[0, 1:], relative[0, 1:]
        )
    # The truth is held to the same rates.
    assert float(found["unaccounted"].sel(audit_source="truth", budget="energy")) == 3.0


@pytest.mark.parametrize("missing", ["mean_evaporation_rate", "temperature", "geopotential_at_surface"])
def test_what_lacks_a_field_is_skipped_with_the_reason(truth, missing):
    short = truth.drop_vars(missing)
    forecast = made_forecast(short, [5], 4)
    found, skipped = audit.audit_stores(
        short, {"a": forecast}, forecast["init_time"].values, forecast["lead_time"].values
    )
    budget = "water" if missing == "mean_evaporation_rate" else "energy"
    assert skipped["a"] == {budget: f"missing {missing}"} == skipped["truth"]
    assert budget not in found["budget"].values or not found["budget_residual"].sel(budget=budget).notnull().any()
    assert found["budget_residual"].sel(budget="dry_air").notnull().any()


def test_leads_apart_from_the_step_of_the_fluxes_are_audited_for_mass_alone(truth):
    daily = made_forecast(truth, [1, 2], 12).isel(lead_time=slice(0, None, 4))
    found, skipped = audit.audit_stores(truth, {"a": daily}, daily["init_time"].values, daily["lead_time"].values)
    assert "leads are 24 h apart, fluxes are means over 6 h" in skipped["a"]["water"]
    assert set(skipped["truth"]) == {"water", "energy"}
    assert list(found["budget"].values) == ["dry_air"]


def test_a_store_without_levels_has_no_budget(truth):
    surface = truth[["surface_pressure"]].assign_attrs(truth.attrs)
    found, skipped = audit.audit_stores(surface, {}, surface["time"].values[:3], np.array([0, 6], "timedelta64[h]"))
    assert not found.data_vars
    assert skipped["truth"]["dry_air"] == "no column: no levels"


def test_blocks_and_members(truth, monkeypatch):
    forecast = made_forecast(truth, [4], 6, members=3)
    whole = Ledger(forecast, truth).read({"init_time": 0}, "lead_time")
    monkeypatch.setattr("emulator.verify.budgets.BLOCK_BYTES", 1)
    parts = Ledger(forecast, truth).read({"init_time": 0}, "lead_time")
    for one, other in zip(whole, parts, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-13)
    first = Ledger(forecast.isel(member=0), truth).read({"init_time": 0}, "lead_time")
    np.testing.assert_array_equal(whole[0]["water"], first[0]["water"])


def test_levels_and_constants_come_from_the_truth_where_a_tool_records_none(truth):
    forecast = made_forecast(truth, [4], 3)
    bare = forecast.drop_vars(["half_level_a", "half_level_b", "geopotential_at_surface"]).assign_attrs({})
    bare.attrs = {}
    for ours, theirs in zip(
        Ledger(bare, truth).read({"init_time": 0}, "lead_time"),
        Ledger(forecast, truth).read({"init_time": 0}, "lead_time"),
        strict=True,
    ):
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_records_of_the_scheme_are_carried_through(truth):
    forecast = made_forecast(truth, [4, 8], 3)
    values = np.array([[0, 1, 2, 3], [0, 3, 2, 1.0]])
    forecast["correction_rms_temperature"] = (("init_time", "lead_time"), values)
    forecast["residual_after_water"] = (("init_time", "lead_time"), 1e-9 * values)
    found, _ = audit.audit_stores(truth, {"a": forecast}, forecast["init_time"].values, forecast["lead_time"].values)
    np.testing.assert_allclose(
        found["correction_rms_temperature"].sel(audit_source="a"), [0, np.sqrt(5), 2, np.sqrt(5)]
    )
    assert np.isnan(found["residual_after_water"].sel(audit_source="truth")).all()
