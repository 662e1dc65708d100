"""Negative values of what cannot be negative: by hand, in parts, and as the report says it."""

import numpy as np
import pytest
import xarray as xr
from made_scores import made_analysis, made_forecast_store, verified

from emulator.report.panels.caveats import below_zero, caveats
from emulator.report.panels.summary import verdict
from emulator.report.view import View
from emulator.verify.assemble import open_scores
from emulator.verify.merging import merge
from emulator.verify.metrics.below_zero import below_zero_statistics, is_positive

RAIN = "mean_total_precipitation_rate"
INITS = [30, 33, 36, 39, 42]


def test_share_and_mean_by_hand():
    members = np.array([[1.0, -2.0, 0.0, -1.0], [-4.0, 1.0, 0.0, 1.0]])[:, None, None]
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.0, 0.0]])
    found = below_zero_statistics(members, weights)
    np.testing.assert_allclose(found["below_zero_share"][0, 0], [(0.1 + 0.2 + 0.4) / 2, 0.5])
    np.testing.assert_allclose(found["below_zero_mean"][0, 0], [-(0.4 + 0.4 + 0.4) / 2, -(2.0 + 1.0) / 2])
    mask = np.array([True, True, False, False])[None, None]
    masked = below_zero_statistics(members, weights, mask)
    np.testing.assert_allclose(masked["below_zero_mean"][0, 0], [-(0.4 + 0.4) / 2 / 0.3, -1.5])
    members[0, 0, 0, 3] = np.nan
    broken = below_zero_statistics(members, weights)
    assert np.isnan(broken["below_zero_share"][0, 0, 0]) and np.isnan(broken["below_zero_mean"][0, 0, 0])
    np.testing.assert_allclose(broken["below_zero_mean"][0, 0, 1], -1.5)


def test_of_what_it_is():
    assert is_positive(RAIN) and is_positive("specific_humidity")
    assert not any(map(is_positive, ("temperature", "mean_evaporation_rate", "u_component_of_wind", "my_tracer")))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """An analysis with rain everywhere, and two forecasts: of it, and of it with less than none west of 90 E."""
    folder = tmp_path_factory.mktemp("rain")
    truth = made_analysis(folder / "plain.zarr")
    rain = (2 + np.sin(np.arange(truth.sizes["time"]))) * 1e-5
    truth[RAIN] = (truth.surface_pressure * 0 + 1) * rain.reshape(-1, 1, 1)
    truth[RAIN].attrs = {"units": "kg m-2 s-1", "role": "diagnostic", "cell_methods": "time: mean"}
    truth.to_zarr(folder / "analysis.zarr", zarr_format=3)
    less = truth.copy()
    less[RAIN] = truth[RAIN].where(truth.longitude >= 90, -4e-6).assign_attrs(truth[RAIN].attrs)
    for name, data in (("good", truth), ("bad", less)):
        made_forecast_store(folder / f"{name}.zarr", data, INITS, 6, 0.0)
    return folder


def test_the_report_says_it_of_the_forecast_that_has_it(stores, tmp_path):
    both = {"bad": stores / "bad.zarr", "good": stores / "good.zarr"}
    view = View(open_scores(verified(tmp_path / "s.nc", stores / "analysis.zarr", both)))
    share = view.get("below_zero_share", "bad", RAIN, scaled=False)
    columns = (view.scores.longitude.values < 90).mean()
    np.testing.assert_allclose(share[1:], columns, rtol=1e-6)
    np.testing.assert_allclose(view.get("below_zero_mean", "bad", RAIN)[1:], -4e-6 * 86400 * columns, rtol=1e-6)
    for name in ("good", "persistence"):
        np.testing.assert_array_equal(view.get("below_zero_share", name, RAIN), 0)
    assert below_zero(view, "good") == []
    (sentence,) = [text for text in verdict(view) if "below zero" in text]
    assert (
        f"bad is below zero where nothing can be: Precipitation in up to {100 * columns:.2g} % of the area" in sentence
    )
    assert f"which takes up to {0.3456 * columns:.3g} mm/day from its mean. Conservation schemes" in sentence
    assert not any("below zero" in text for text in caveats(view))
    other = View(open_scores(verified(tmp_path / "t.nc", stores / "analysis.zarr", dict(reversed(both.items())))))
    assert any("bad is below zero where" in text for text in caveats(other))
    assert not any("below zero" in text for text in verdict(other))


def test_parts_over_initial_times_add_up(stores, tmp_path):
    truth, less = xr.open_zarr(stores / "analysis.zarr").load(), xr.open_zarr(stores / "bad.zarr").load()
    for array in (*truth.variables.values(), *less.variables.values()):
        array.encoding = {}
    for name, part in (("first", slice(0, 2)), ("last", slice(2, None))):
        less.isel(time=part).to_zarr(tmp_path / f"{name}.zarr", zarr_format=3)
    own = {"climatology": (None, str(truth.time.values[29])[:19])}
    paths = {"whole": stores / "bad.zarr", "first": tmp_path / "first.zarr", "last": tmp_path / "last.zarr"}
    whole, first, last = (
        open_scores(verified(tmp_path / f"{name}.nc", stores / "analysis.zarr", {"bad": path}, **own))
        for name, path in paths.items()
    )
    merged = merge([first, last])
    for name in ("below_zero_share", "below_zero_mean"):
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-12, atol=1e-20)
