"""Means over other intervals, and snapshots beside means, are never compared in silence."""

import numpy as np
import pytest
import xarray as xr
from made_forecasts import made_forecast, made_truth

from emulator.verify.averaging import unlike
from emulator.verify.inputs import open_inputs
from emulator.verify.options import VerifyOptions

RAIN = "mean_total_precipitation_rate"


def store(cell: str | None, leads=None, **attributes) -> xr.Dataset:
    dims = ("time",) if leads is None else ("init_time", "lead_time")
    field = xr.Variable(
        dims, np.zeros((1, *(() if leads is None else (len(leads),)))), {"cell_methods": cell} if cell else {}
    )
    coordinates = {} if leads is None else {"lead_time": np.array(leads, "timedelta64[h]").astype("timedelta64[ns]")}
    return xr.Dataset({RAIN: field}, coordinates, attributes)


OURS = {"emulator_schema": "x", "time_step_seconds": 21600.0}
SIX, TWELVE, MEAN = "time: mean (interval: 6 hours)", "time: mean (interval: 12 hours)", "time: mean"
TRUTH = store(SIX, **OURS)


@pytest.mark.parametrize(
    ("truth", "forecast", "words"),
    [
        (TRUTH, store(SIX, [0, 6, 12], **OURS), None),
        (TRUTH, store(MEAN, [0, 6, 12], **OURS), None),
        (TRUTH, store(None, [6, 12]), None),  # nothing is known of it
        (store(None), store(SIX, [6, 12]), None),
        (TRUTH, store(SIX, [0, 24, 48], **OURS), None),  # every fourth step is written, each with its own mean
        # steps of 12 h; a store written before said 6 h with them
        (TRUTH, store(TWELVE, [0, 12, 24], **OURS | {"time_step_seconds": 43200.0}), "12 h"),
        (TRUTH, store(SIX, [0, 12, 24], **OURS | {"time_step_seconds": 43200.0}), "12 h"),
        # ingested: over the steps between the leads, which may grow longer
        (TRUTH, store(MEAN, [0, 6, 12], **OURS | {"time_step_seconds": 0.0}), None),
        (TRUTH, store(MEAN, [3, 6, 12], **OURS | {"time_step_seconds": 0.0}), "3 and 6 h"),
        (TRUTH, store(MEAN, [24, 48], **OURS | {"time_mean": 1}), "24 h"),
        (TRUTH, store("time: point", [6, 12], **OURS), "snapshots"),
        (store("time: point"), store("time: maximum", [6, 12]), "the maximum"),
        (TRUTH, store("area: mean time: mean (interval: 1 day comment: of hours)", [24, 48]), "24 h"),
        (TRUTH, store("time: mean (interval: 360 minutes)", [6, 12]), None),
    ],
)
def test_what_is_alike(truth, forecast, words):
    reason = unlike(RAIN, truth, {"a": forecast})
    if words is None:
        assert reason is None
    else:
        assert words in reason and "the forecast a" in reason and "the truth" in reason


def test_unlike_fields_are_left_out_with_a_reason_and_refused_by_name(caplog):
    truth = made_truth()
    truth.attrs["emulator_schema"] = "analysis"
    truth[RAIN] = truth["surface_pressure"].rename(RAIN) * 1e-10
    truth[RAIN].attrs = {"units": "kg m-2 s-1", "cell_methods": SIX}
    forecast = made_forecast(truth, [10, 14], 4)
    for seconds, scored in ((21600.0, True), (43200.0, False)):
        ours = forecast.assign_attrs(emulator_schema="forecast-1", time_step_seconds=seconds)
        inputs = open_inputs(truth, {"a": ours})
        assert (RAIN in [v.name for v in inputs.variables]) == scored == (RAIN not in inputs.skipped)
        assert (RAIN in caplog.text) != scored
    assert "surface_pressure" in [v.name for v in inputs.variables] and "step_hours: 12" in inputs.skipped[RAIN]
    with pytest.raises(ValueError, match=rf"{RAIN}.*means over 6 h in the truth.*means over 12 h in the forecast a"):
        open_inputs(truth, {"a": ours}, VerifyOptions(variables=[RAIN]))
