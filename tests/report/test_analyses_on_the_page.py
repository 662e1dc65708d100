"""What the page says of a cycle's analyses: their errors against time, and themselves held as a baseline."""

import json

import numpy as np
import pytest
import xarray as xr
from made_scores import verified

from emulator.report.display import number
from emulator.report.panels.analysis_errors import analysis_errors
from emulator.report.panels.comparison import comparison, comparison_verdict
from emulator.report.panels.errors import error_panel
from emulator.report.panels.spectra import spectra_panels
from emulator.report.panels.summary import verdict
from emulator.report.style import HELD, figures
from emulator.report.tables import to_json
from emulator.report.view import View
from emulator.verify.assemble import open_scores
from emulator.verify.held import Held
from emulator.verify.merging import combine


@pytest.fixture(scope="module")
def errors(scored) -> xr.Dataset:
    """Scores with errors of six analyses: 3 units, then 4, of the first headline field one of them missing."""
    scores = open_scores(scored)
    times = np.datetime64("2001-01-08", "ns") + 6 * np.arange(6) * np.timedelta64(1, "h")
    values = np.full((6, scores.sizes["channel"]), 4.0)
    values[:3] = 3.0
    first = View(scores).headline[0]
    values[4, list(scores["channel"].values).index(first)] = np.nan
    data = xr.DataArray(
        values, {"analysis_time": times, "channel": scores["channel"].values}, ("analysis_time", "channel")
    )
    return scores.assign(analysis_rmse=data)


def test_errors_of_analyses_are_drawn_and_read_in_the_units_of_the_page(errors):
    view = View(errors)
    with figures():
        panel = analysis_errors(view)
    axes = [axis for axis in panel.markup.figure.axes if axis.get_visible()]
    assert len(axes) == min(6, len(view.headline))
    for axis, channel in zip(axes, view.headline, strict=False):
        line, reference = axis.get_lines()
        expected = view.scores["analysis_rmse"].sel(channel=channel).values * view.factor(channel)
        np.testing.assert_allclose(line.get_ydata(), expected)
        climatology = view.get("rmse", "climatology", channel)
        np.testing.assert_allclose(reference.get_ydata(), climatology[np.isfinite(climatology)].mean())
    for channel in view.headline[:6]:  # the missing one does not count
        assert f"{view.title(channel)} {number(4 * view.factor(channel))} {view.units(channel)}" in panel.caption
    assert "of 6 analyses against the truth, 2001-01-08T00 to 2001-01-09T06" in panel.caption


def test_a_half_without_any_error_is_a_dash_and_a_single_analysis_no_figure(errors):
    view = View(errors)
    view.scores = errors.assign(analysis_rmse=errors["analysis_rmse"].where(np.arange(6)[:, None] < 3))
    with figures():
        assert f"In the second half: {view.title(view.headline[0])} –" in analysis_errors(view).caption
    view.scores = errors.isel(analysis_time=[0])
    assert analysis_errors(view) is None


@pytest.fixture(scope="module")
def with_held(scored, tmp_path_factory) -> xr.Dataset:
    folder = scored.parent
    forecasts = {"emulator": folder / "forecast.zarr", "still": Held(folder / "analysis.zarr")}
    path = tmp_path_factory.mktemp("held") / "scores.nc"
    return open_scores(
        verified(path, folder / "analysis.zarr", forecasts, variables=("temperature", "surface_pressure"))
    )


def test_held_analyses_are_a_baseline_in_the_curves_and_nowhere_else(with_held):
    stepped, held = "emulator", "still"
    view = View(with_held)
    assert view.main == stepped and held not in view.forecasts and view.held == [held]
    with figures():
        lines = {line.get_label(): line for line in error_panel(view).markup.figure.axes[0].get_lines()}
        assert [panel.title for panel in spectra_panels(view)] == [
            "Spectra" + (f" of {name}" if len(view.forecasts) > 1 else "") for name in view.forecasts
        ]
    assert lines[held].get_linestyle() == "--" == lines["persistence"].get_linestyle()
    assert lines[held].get_color() == HELD["color"] and lines[stepped].get_linestyle() == "-"
    said = " ".join([*verdict(view), *comparison_verdict(view), *comparison(view)])
    assert stepped in said and held not in said
    assert {row["forecast"] for row in json.loads(to_json(view))["headline"]} == {stepped}


def test_cycles_beside_each_other_keep_their_names_and_what_they_hold(with_held):
    both = combine({"all": with_held, "denied temp": with_held})
    assert View(both).forecasts == ["all", "denied temp"]
    assert View(both).held == ["all still", "denied temp still"]
    for name in ("rmse", "acc"):
        ours, whole = both[name].sel(forecast="denied temp still"), with_held[name].sel(forecast="still")
        np.testing.assert_allclose(ours, whole, rtol=1e-9)
