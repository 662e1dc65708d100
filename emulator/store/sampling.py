"""Which of a store's values are those of another's times: snapshots, means, and where both are there."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from emulator.planet.calendar import in_seconds
from emulator.store.schema import time_cell, time_step_seconds

TOLERANCE = 1e-3  # seconds


class Clock:
    """Seconds since the first of some times, datetime64 or cftime."""

    def __init__(self, times: np.ndarray):
        self.origin = times[0]

    @property
    def after_midnight(self) -> float:
        """Seconds from midnight to the first of the times."""
        if hasattr(self.origin, "calendar"):
            return self.origin.hour * 3600 + self.origin.minute * 60 + self.origin.second
        return float((self.origin - self.origin.astype("datetime64[D]")) / np.timedelta64(1, "s"))

    def seconds(self, times: np.ndarray, path) -> np.ndarray:
        """`(time,)` float64. Raises `ValueError` for another calendar."""
        one, other = (getattr(time, "calendar", "standard") for time in (self.origin, times[0]))
        if one != other or (times.dtype == object) != hasattr(self.origin, "calendar"):
            raise ValueError(f"Expected stores of one calendar, got {one} and {other} in {path}")
        return in_seconds(times - self.origin)


def span(dataset: xr.Dataset, place: np.ndarray, names: Sequence[str], step: float | None) -> tuple[float, float]:
    """First and last second at which a store has values: a snapshot until the next one is due, a mean where it is whole."""
    own = time_step_seconds(dataset)
    means = [name for name in names if "time" in dataset[name].dims and is_mean(dataset[name])]
    first, last = place[0], place[-1] + own - 2 * TOLERANCE
    return (first + max(0.0, (step or own) - own), place[-1]) if means else (first, last)


def shared_times(clock: Clock, own: np.ndarray, spans, own_step: float, step: float | None) -> np.ndarray:
    """Positions in the first store of the joined one's times: within all stores, at multiples of the step if there is one."""
    first, last = max(span[0] for span in spans), min(span[1] for span in spans)
    kept = (own >= first - TOLERANCE) & (own <= last + TOLERANCE)
    if step is None:
        return np.flatnonzero(kept)
    ratio = step / own_step if own_step else 0.0
    if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
        raise ValueError(f"Expected step_hours as a multiple of {own_step / 3600:g}, got {step / 3600:g}")
    phase = (own + clock.after_midnight) % step
    return np.flatnonzero(kept & (np.minimum(phase, step - phase) < TOLERANCE))


def positions(place: np.ndarray, own_step: float, times: np.ndarray, step: float, mean: bool) -> np.ndarray:
    """Where a store's values for some times lie: `(time,)`, or `(time, n)` of which the mean over the step is taken.

    `place`, `times`: seconds, of the store and of the joined one. Positions outside the store are cut to its ends.
    """
    if not mean:
        at = np.searchsorted(place, times + TOLERANCE, side="right") - 1
        return np.clip(at, 0, len(place) - 1)
    at = np.clip(np.searchsorted(place, times - TOLERANCE), 0, len(place) - 1)
    ratio = step / own_step if own_step else 1.0
    if ratio < 1 + 1e-6:
        return at
    if abs(ratio - round(ratio)) > 1e-6:
        raise ValueError(f"Expected a step that is a multiple of {own_step / 3600:g} h, got {step / 3600:g} h")
    return np.clip(at[:, None] - np.arange(round(ratio))[::-1], 0, len(place) - 1)


def is_mean(array: xr.DataArray) -> bool:
    """Whether a field holds means over its steps."""
    return time_cell(array.attrs) == "mean"


def as_mean(array: xr.DataArray, own_step: float, step: float) -> bool:
    """Whether the interval is taken in which a step ends. Of a state it would hold what the step is to predict: there means
    over more than the step are taken when they are complete, like snapshots."""
    return is_mean(array) and not (array.attrs.get("role") == "prognostic" and own_step > step * (1 + 1e-6))
