"""The table of downscaled fields: ratios that were put into the scores come out of it."""

import json

import numpy as np
import pytest
import xarray as xr

from emulator.report.panels import downscaling
from emulator.report.view import View

RAIN, PRESSURE = "mean_total_precipitation_rate", "surface_pressure"
FORECASTS, CHANNELS, DEGREES = ["network", "bilinear"], [RAIN, PRESSURE], 10


def scores(leads=(6, 12, 18, 24), coarse_hours=24.0) -> xr.Dataset:
    """Errors of interpolation are 2, those of the network 1 of rain and 3 of pressure; 0 at the first of several leads."""
    grown = np.where(np.arange(len(leads)) > 0, 1.0, 0.0) if len(leads) > 1 else np.ones(1)
    size = np.array([[1.0, 3.0], [2.0, 2.0]])  # (forecast, channel)
    errors = size[:, None, :, None] * grown
    power = np.where(np.arange(DEGREES) < 6, 1.0, np.array([[0.5], [0.25], [1.0]]))  # (source, degree)
    quantile = np.array([[[1.0, 5.0], [1.0, 3.0], [1.0, 9.0]], [[7.0, 9.0], [7.0, 8.0], [6.0, 8.0]]])
    notes = {
        name: {"downscaling": json.dumps({"method": method, "coarse_step_hours": coarse_hours})}
        for name, method in (("network", "deterministic"), ("bilinear", "bilinear"))
    }
    return xr.Dataset(
        {
            "rmse": (("forecast", "region", "channel", "lead_time"), errors),
            "crps": (("forecast", "region", "map_channel", "lead_time"), errors),
            "power_ratio": (
                ("source", "channel", "spectrum_lead", "wavenumber"),
                np.broadcast_to(power[:, None, None], (3, 2, 2, DEGREES)),
            ),
            "downscaled_quantile": (("downscaled_channel", "downscaled", "downscaled_quantile_level"), quantile),
            "diurnal_strength": (("downscaled_channel", "downscaled"), [[0.7, 0.2, 1.0], [0.9, 0.3, 1.0]]),
            "diurnal_error": (("downscaled_channel", "downscaled"), [[0.4, 0.8, 0.0], [0.5, 0.6, 0.0]]),
            "headline_rank": ("channel", [0, 1]),
        },
        {
            "forecast": FORECASTS,
            "region": ["global"],
            "channel": CHANNELS,
            "map_channel": CHANNELS,
            "downscaled_channel": CHANNELS,
            "lead_time": np.array(leads, "timedelta64[h]").astype("timedelta64[ns]"),
            "source": [*FORECASTS, "truth"],
            "downscaled": [*FORECASTS, "truth"],
            "downscaled_quantile_level": [0.5, 0.999],
            "wavenumber": np.arange(DEGREES),
        },
        {"provenance": json.dumps(notes)},
    )


def test_errors_are_relative_to_those_of_interpolation_over_all_leads():
    view = View(scores())
    plain = downscaling._interpolated(view)
    assert plain == "bilinear"
    np.testing.assert_allclose(downscaling._ratios(view, plain, "network", RAIN), [0.5, 0.5])
    np.testing.assert_allclose(downscaling._ratios(view, plain, "network", PRESSURE), [1.5, 1.5])
    np.testing.assert_allclose(downscaling._ratios(view, plain, "bilinear", RAIN), [1, 1])
    assert np.isnan(downscaling._ratios(view, None, "network", RAIN)).all()


def test_an_rmse_over_leads_is_that_of_all_their_squares_and_a_crps_the_mean():
    made = scores()
    for score in ("rmse", "crps"):
        made[score][0, 0, 0] = [0.0, 2.0, 4.0, 4.0]
        made[score][1, 0, 0] = [1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(downscaling._ratios(View(made), "bilinear", "network", RAIN), [3.0, 2.5])


def test_power_of_the_finest_third_the_tail_and_the_diurnal_cycle_are_relative_to_the_truth():
    view = View(scores())
    # degrees 0 to 9, the finest third of them 6 to 9; 5 - 1 of 9 - 1, and 9 - 7 of 8 - 6
    np.testing.assert_allclose(downscaling._relative(view, "network", RAIN), [0.5, 0.5, 0.7, 0.4])
    np.testing.assert_allclose(downscaling._relative(view, "bilinear", RAIN), [0.25, 0.25, 0.2, 0.8])
    np.testing.assert_allclose(downscaling._relative(view, "network", PRESSURE), [0.5, 1.0, 0.9, 0.5])


@pytest.mark.parametrize(
    ("leads", "coarse_hours", "told"),
    [((6, 12, 18, 24), 24.0, True), ((6, 12, 18, 24), 6.0, False), ((24,), 24.0, False), ((0, 24, 48), 24.0, False)],
)
def test_a_diurnal_cycle_is_told_of_several_steps_in_an_interval_alone(leads, coarse_hours, told):
    """Several leads of downscaled forecasts are not several steps."""
    cycle = downscaling._relative(View(scores(leads, coarse_hours)), "network", RAIN)[2:]
    assert np.isfinite(cycle).tolist() == [told, told]


def test_the_nearest_coarse_cell_is_found_around_the_globe():
    coarse, fine = np.array([0.0, 90.0, 180.0, 270.0]), np.array([10.0, 50.0, 200.0, 310.0, 350.0])
    np.testing.assert_array_equal(downscaling._nearest(coarse, fine, 360.0), [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(downscaling._nearest(np.array([60.0, 0, -60]), np.array([80.0, 25, -31])), [0, 1, 2])
