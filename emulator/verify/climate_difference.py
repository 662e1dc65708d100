"""Which of two long runs has the climate nearer to the truth's, and how sure that is."""

import numpy as np
import xarray as xr

from emulator.verify.significance import false_discovery, mean_interval

DIMS = ("climate_run", "climate_channel")
MEASURE = "climate_month_bias_squared"


def climate_differences(climate: xr.Dataset) -> dict:
    """The bias of every long run against the first run's, as `name -> (dims, values, attributes)`.

    From `climate_month_bias_squared` `(climate_run, climate_channel, month)`, the area mean of the squared bias of each
    calendar month: its root over the months, in percent of the first run's. Months are pairs, as initial times are for
    forecasts: Student's t with the inflation of Geer (2016), false discoveries controlled over all that is compared. Runs
    over other times than the first's are not compared and get NaN; fewer than two comparable runs give an empty result.
    """
    if MEASURE not in climate or climate.sizes["climate_run"] < 2:
        return {}
    squared = climate[MEASURE].transpose("month", *DIMS).values
    held = np.isfinite(squared).any(axis=(1, 2))
    squared = squared[held]
    alike = comparable(climate)
    paired = np.where(alike[None, :, None], squared - squared[:, :1], np.nan)
    first, ours = np.sqrt(squared[:, :1].mean(axis=0)), np.sqrt(squared.mean(axis=0))
    middle, half, p_value = mean_interval(paired)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 100 / np.where(first > 0, (ours + first) * first, np.nan)
    p_value = np.where(np.isfinite(middle), p_value, np.nan)
    p_value[0] = np.nan
    note = "root mean square over months of the bias, minus the first run's"
    return {
        "climate_difference": (DIMS, middle * scale, {"units": "%", "long_name": note}),
        "climate_difference_half_width": (
            DIMS,
            half * scale,
            {"units": "%", "long_name": "half-width of its 95 % interval, months as pairs"},
        ),
        "climate_p_value": (DIMS, p_value, {"long_name": "two-sided p-value of no difference"}),
        "climate_significant": (
            DIMS,
            false_discovery(p_value),
            {"long_name": "difference significant at a false discovery rate of 5 %"},
        ),
    }


def comparable(climate: xr.Dataset) -> np.ndarray:
    """Which runs cover the same times as the first, boolean `(climate_run,)`."""
    samples = [str(sample) for sample in climate["climate_sample"].values]
    return np.array([sample == samples[0] for sample in samples])
