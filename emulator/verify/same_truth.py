"""Whether two datasets of scores were made from one truth, also where its store has grown in between."""

import numpy as np
import xarray as xr

NEAR = 1e-9  # relative to the field's spread: sums in another order, not other data


def same_truth(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether the truth's global means over the climatology's record, and persistence's errors, are the same in both.

    A store to which later times were appended has another fingerprint and the same past. `record_mean` is compared at every
    time of the record, and `squared_error` of persistence at the initial times that both hold; channels that only one has
    do not count. False where there is nothing to compare.
    """
    shared = np.intersect1d(one["channel"].values, other["channel"].values)
    if "record_mean" not in one or "record_mean" not in other or not len(shared):
        return False
    first, second = one.sel(channel=shared), other.sel(channel=shared)
    if not np.array_equal(first["record_time"].values, second["record_time"].values):
        return False
    spread = np.maximum(first["climatology_std"].values, 1e-300)
    means = [part["record_mean"].transpose("record_time", "channel").values / spread for part in (first, second)]
    inits = np.intersect1d(first["init_time"].values, second["init_time"].values)
    errors = [
        part["squared_error"].sel(forecast="persistence", init_time=inits).transpose("init_time", "channel", ...).values
        for part in (first, second)
    ]
    return _near(*means) and (errors[0].shape == errors[1].shape and _near(*errors))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=NEAR, atol=NEAR, equal_nan=True))
