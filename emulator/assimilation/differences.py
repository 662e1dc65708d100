"""Samples of background errors: differences of forecasts of two lengths for one time.

The method of the National Meteorological Center (Parrish and Derber 1992): forecasts of 48 and 24 hours differ as a
background differs from the truth, in patterns if not in size, which `scale` of the covariance sets.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.assimilation.forecasts import Forecasts
from emulator.data.channels import Channels
from emulator.planet.calendar import within
from emulator.store.schema import missing_times

log = logging.getLogger(__name__)


def stored_states(dataset: xr.Dataset, channels: Channels, times: Sequence) -> Tensor:
    """States of a store, `(time, channel, *space)` float32. Raises `ValueError` for a time or a value that it lacks."""
    expect_times(dataset, times)
    part = dataset.sel(time=list(times))
    packed = channels.pack(
        {name: torch.from_numpy(np.asarray(part[name].values, np.float32)) for name in channels.names}
    )
    if not bool(torch.isfinite(packed).all()):
        raise ValueError(
            f"Expected whole states to assimilate into, the store lacks values between {times[0]} and {times[-1]}"
        )
    return packed


def expect_dates(dataset: xr.Dataset) -> None:
    """Raises `ValueError` for a store of another calendar than observations have."""
    if dataset["time"].dtype.kind != "M":
        raise ValueError("Expected a store of the standard calendar, as observations have it, got another calendar")


def expect_times(dataset: xr.Dataset, times: Sequence, name: object = "the store") -> None:
    """Raises `ValueError`, naming the store, for times that it lacks."""
    known = set(dataset["time"].values[~missing_times(dataset)].tolist())
    if absent := [time for time in times if np.array(time).tolist() not in known]:
        raise ValueError(f"Expected states of times that {name} has, it has none of {absent[0]}")


@torch.no_grad()
def forecast_differences(
    forecasts: Forecasts,
    dataset: xr.Dataset,
    times: Sequence,
    lengths: tuple[int, int],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Differences of forecasts for some times, `(time, channel, *space)` float64.

    Args:
      dataset: with the states that forecasts start from. lengths: in steps, the shorter first.
      report: called with how many of the times are done.
    """
    samples = []
    for number, time in enumerate(times):
        ends = []
        for length in lengths:
            start = forecasts.forcing.later(time, -length)
            state = stored_states(dataset, forecasts.layout.prognostic, [start])
            *_, last = forecasts.steps(state, start, length)
            ends.append(last.state.double().cpu())
        samples.append(ends[1] - ends[0])
        report(number + 1, len(times))
    return torch.cat(samples)


def sample_times(dataset: xr.Dataset, count: int, steps: int, start=None, end=None) -> list:
    """So many times of the store from `start` to `end`, as `within` has it, evenly spread, each with `steps` times before it.

    Raises `ValueError` where there are fewer.
    """
    times = dataset["time"].values
    inside = within(times, start, end)
    inside[:steps] = False
    found = np.flatnonzero(inside & ~missing_times(dataset))
    if len(found) < count:
        raise ValueError(f"Expected {count} times for forecast differences with {steps} steps before, got {len(found)}")
    return [times[k] for k in found[np.linspace(0, len(found) - 1, count).round().astype(int)]]
