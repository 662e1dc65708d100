"""What a forecast is given beyond what its network was trained with: series such as carbon dioxide, said in advance."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.data.forcing import Forcing
from emulator.store.schema import ROWS

log = logging.getLogger(__name__)
TOLERANCE = 1e-6  # of the training's range


def outside_training(saved: Mapping | None, forcing: Forcing, times: Sequence, steps: int) -> dict[str, dict]:
    """Forcing without space that leaves the range of the training in forecasts of `steps` steps from `times`.

    By name `given` and `trained`, least and largest value each; empty for checkpoints that do not tell their range. Each is
    said in the log.
    """
    ranges, dataset, found = (saved or {}).get("forcing_range", {}), forcing.dataset, {}
    ends = [forcing.later(time, steps) for time in times]
    for name in forcing.channels.names:
        if name not in ranges or ROWS & set(dataset[name].dims):
            continue
        given = _within(dataset[name], min(times), max(ends))
        trained = [float(bound) for bound in ranges[name]]
        slack = TOLERANCE * max(trained[1] - trained[0], abs(trained[1]))
        if given[0] < trained[0] - slack or given[1] > trained[1] + slack:
            found[name] = {"given": given, "trained": trained, "units": str(dataset[name].attrs.get("units", ""))}
            text = "%s is %g to %g %s in these forecasts, the network was trained with %g to %g: it extrapolates"
            log.warning(text, name, *given, found[name]["units"], *trained)
    return found


def _within(series: xr.DataArray, first, last) -> list[float]:
    """Least and largest value of a series in a period; beyond its ends it keeps its last and its first value."""
    times, values = series["time"].values, np.asarray(series.values, np.float64)
    start = max(int(np.searchsorted(times, first, side="right")) - 1, 0)
    stop = max(int(np.searchsorted(times, last, side="right")), start + 1)
    part = values[start:stop]
    part = part[np.isfinite(part)]
    return [float(part.min()), float(part.max())] if part.size else [np.nan, np.nan]
