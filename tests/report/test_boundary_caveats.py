"""What the report says of a limited area's driving data, from what forecast stores record of them."""

import json
from types import SimpleNamespace

import pytest
import xarray as xr

from emulator.report.panels.caveats import _boundaries

RECORD = {"kind": "forecast", "width": 4, "place": "outside", "delay_hours": 0.0}


def sentences(**more):
    told = {"ours": {"boundary": json.dumps(RECORD | more)}}
    return _boundaries(SimpleNamespace(forecasts=["ours"], note=lambda name: told, scores=xr.Dataset()))


@pytest.mark.parametrize(("kind", "perfect"), [("analysis", True), ("forecast", False), ("emulator", False)])
def test_forecasts_that_are_nudged_say_so_and_whether_to_the_truth(kind, perfect):
    assert len(sentences(kind=kind)) == 1
    _, said = sentences(kind=kind, nudging={"length_km": 2000.0, "hours": 6.0, "variables": None})
    assert "2000 km" in said and "within 6 h" in said and ("the truth's" in said) == perfect
    assert "at every step" in sentences(kind=kind, nudging={"length_km": 2000.0, "hours": 0.0})[1]
