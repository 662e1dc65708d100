"""What the report says of a limited area's driving data, from what forecast stores record of them."""

import json
from types import SimpleNamespace

import pytest
import xarray as xr

from emulator.report.panels.caveats import _boundaries

RECORD = {"kind": "forecast", "width": 4, "place": "outside", "delay_hours": 0.0}


def sentences(scores=None, **more):
    told = {"ours": {"boundary": json.dumps(RECORD | more)}}
    scores = xr.Dataset() if scores is None else scores
    return _boundaries(SimpleNamespace(forecasts=["ours"], note=lambda name: told, scores=scores))


@pytest.mark.parametrize(("kind", "perfect"), [("analysis", True), ("forecast", False), ("emulator", False)])
def test_forecasts_that_are_nudged_say_in_what_how_fast_and_whether_to_an_analysis(kind, perfect):
    assert len(sentences(kind=kind)) == 1
    asked = {"length_km": 2000.0, "hours": 6.0, "variables": ["temperature", "surface_pressure"]}
    _, said = sentences(kind=kind, nudging=asked)
    assert "2000 km and more in temperature, surface pressure are" in said and "a departure falls to 1/e in 6 h" in said
    assert ("those of an analysis at its valid times" in said) == perfect and "truth" not in said
    assert "whole at every step" in sentences(kind=kind, nudging=asked | {"hours": 0.0})[1]


def test_a_flux_through_the_sides_that_no_real_forecast_knows_is_told_and_what_closes_budgets_with_it():
    assert len(sentences(outflow_of="forecast")) == 1
    assert "by its sides is that of an analysis" in sentences(outflow_of="analysis")[1]
    assert len(sentences(kind="analysis", outflow_of="analysis")) == 1  # perfect boundaries, which are told
    estimate = xr.Dataset({"budget_relative": 0.0}, attrs={"open_domain": 1})
    assert "no correction closes them" in sentences(estimate)[-1]
    assert "close them with a given flux" in sentences(estimate.assign(budget_closed_relative=0.0))[-1]
