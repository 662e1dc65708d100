"""From sums to the dataset of scores that is written, merged and reported. Its schema is in docs/verification.md."""

import numpy as np
import xarray as xr

from emulator.verify import metrics, significance, spectra
from emulator.verify.channels import channel_name, headline_ranks, short_name
from emulator.verify.sample import BASELINES
from emulator.verify.score import VariableScores
from emulator.verify.statistics import ENSEMBLE_STATISTICS, STATISTICS

DIMS = ("forecast", "channel", "region", "lead_time")
SCHEMA = "scores-1"


def assemble(
    results: list[VariableScores], shared, names: list[str], regions: list[str], members: list[int]
) -> xr.Dataset:
    """All scores: `names` are the forecasts, followed here by the baselines; `members` their ensemble sizes.

    `shared` is the `sample.Setting` that made the results.
    """
    forecasts = [*names, *BASELINES]
    sums = _sums(results)
    sums = sums.assign_coords(
        {
            "forecast": forecasts,
            "region": list(regions),
            "lead_time": shared.alignment.lead_time,
            "init_time": shared.alignment.init_time,
            **_channels(results),
        }
    )
    sums["members"] = ("forecast", [*members, 1][: len(forecasts)])
    return xr.merge([derive(sums), *_extras(results, shared, forecasts)], compat="no_conflicts", join="outer")


def derive(sums: xr.Dataset) -> xr.Dataset:
    """Metrics, intervals and significance from the sums of a dataset of scores; the sums stay in it, to be merged."""
    mean = xr.Dataset(
        {name: sums[f"sum_{name}"] / sums["count"].where(sums["count"] > 0) for name in _statistics(sums)}
    )
    result = xr.merge([sums, metrics.scores(mean, sums["members"])])
    for name in ("rmse", "bias", "mae", "crps", "spread"):
        if name in result:
            result[name].attrs["units"] = "of the channel"
    return result.assign(_intervals(result))


def merge(parts: list[xr.Dataset]) -> xr.Dataset:
    """Scores over the initial times of all parts: sums added, then derived anew. Raises `ValueError` if any is shared.

    Maps, spectra and audits stay those of the first part.
    """
    first, *rest = parts
    total = first
    for part in rest:
        if shared := set(total["init_time"].values.tolist()) & set(part["init_time"].values.tolist()):
            raise ValueError(f"Expected parts without common initial times, got {len(shared)} in two of them")
        total = total.drop_dims("init_time").assign(
            {name: total[name] + part[name] for name in total.data_vars if _is_sum(name)}
            | {"squared_error": xr.concat([total["squared_error"], part["squared_error"]], "init_time")}
        )
    sums = total.sortby("init_time")
    keep = [name for name in sums.data_vars if _is_sum(name) or name in ("squared_error", "members")]
    return sums.drop_vars([n for n in metrics.METRICS if n in sums]).assign(derive(sums[keep]).data_vars)


def _is_sum(name):
    return str(name).startswith("sum_") or name == "count"


def _statistics(sums):
    return [name.removeprefix("sum_") for name in map(str, sums.data_vars) if name.startswith("sum_")]


def _sums(results) -> xr.Dataset:
    ensemble = any(np.any(r.sums.totals["variance"] > 0) for r in results)
    wanted = (*STATISTICS, *(ENSEMBLE_STATISTICS if ensemble else ()))
    data = {}
    for name in wanted:
        data[f"sum_{name}"] = (DIMS, np.concatenate([r.sums.totals[name] for r in results], axis=1))
    data["count"] = (DIMS[1:], np.concatenate([r.sums.count for r in results], axis=0))
    errors = np.concatenate([r.sums.squared_error for r in results], axis=2)
    data["squared_error"] = (("init_time", *DIMS), errors)
    return xr.Dataset(data)


def _channels(results) -> dict:
    pairs = [(r.variable, index) for r in results for index in range(r.variable.truth.level_count)]
    level = [np.nan if v.levels is None else v.levels[i] for v, i in pairs]
    return {
        "channel": [channel_name(v, i) for v, i in pairs],
        "variable": ("channel", [v.name for v, _ in pairs]),
        "short_name": ("channel", [short_name(v.name) for v, _ in pairs]),
        "level": ("channel", level),
        "level_name": ("channel", [v.labels[i] for v, i in pairs]),
        "pressure": ("channel", [v.pressures[i] for v, i in pairs], {"units": "hPa"}),
        "headline_rank": ("channel", [headline_ranks(v).get(i, -1) for v, i in pairs]),
        "channel_units": ("channel", [v.units for v, _ in pairs]),
    }


def _intervals(data: xr.Dataset) -> dict:
    """Bootstrap interval of the RMSE; difference to each baseline in percent of its RMSE with interval and p-value.

    From the mean difference D of squared errors: RMSE - RMSE_0 = D / (RMSE + RMSE_0), whose denominator is held fixed in
    the interval.
    """
    error = data["squared_error"].transpose("init_time", *DIMS).values
    low, high = _complete(error, significance.bootstrap_rmse)
    rmse = data["rmse"].transpose(*DIMS).values
    baselines = [name for name in BASELINES if name in data["forecast"].values]
    shape = (len(baselines), *rmse.shape)
    difference, half, p_value = (np.full(shape, np.nan) for _ in range(3))
    for row, name in enumerate(baselines):
        at = int(np.flatnonzero(data["forecast"].values == name)[0])
        middle, width, p = _complete(error - error[:, at : at + 1], significance.mean_interval)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = 100 / np.where(rmse[at] > 0, (rmse + rmse[at]) * rmse[at], np.nan)
            difference[row], half[row], p_value[row] = middle * scale, width * scale, p
        p_value[row, at] = np.nan
    dims = ("baseline", *DIMS)
    note = {"units": "%", "long_name": "RMSE minus the baseline's, relative to the baseline's"}
    return {
        "rmse_low": (DIMS, low, {"long_name": "lower end of the 95 % interval of the RMSE, block bootstrap"}),
        "rmse_high": (DIMS, high, {"long_name": "upper end of the 95 % interval of the RMSE, block bootstrap"}),
        "difference": (dims, difference, note),
        "difference_half_width": (
            dims,
            half,
            {"units": "%", "long_name": "half-width of the 95 % interval, Geer (2016)"},
        ),
        "p_value": (dims, p_value, {"long_name": "two-sided p-value of no difference"}),
        "significant": (
            dims,
            significance.false_discovery(p_value),
            {"long_name": "difference significant at a false discovery rate of 5 % (Benjamini-Hochberg)"},
        ),
        "baseline": ("baseline", baselines),
    }


def _complete(series, function):
    """`function` over initial times, cell by cell where some cells lack some initial times."""
    missing = np.isnan(series)
    if not missing.any() or np.all(missing.all(axis=0) | ~missing.any(axis=0)):
        return function(series)
    count = missing.sum(axis=0)
    results = None
    for gaps in np.unique(count):
        # Cells with the same number of initial times are worked out together: gaps are squeezed out in order of time.
        cells = np.flatnonzero(count.ravel() == gaps)
        columns = series.reshape(len(series), -1)[:, cells]
        order = np.argsort(np.isnan(columns), axis=0, kind="stable")
        part = (
            function(np.take_along_axis(columns, order, axis=0)[: len(series) - gaps]) if gaps < len(series) else None
        )
        if results is None:
            results = [np.full(count.size, np.nan) for _ in range(3)]
        for index in range(0 if part is None else len(part)):
            results[index][cells] = part[index]
    used = 2 if function is significance.bootstrap_rmse else 3
    return tuple(values.reshape(count.shape) for values in results[:used])


def _extras(results, shared, forecasts) -> list[xr.Dataset]:
    extras = [_climate(results), _maps(results, shared, forecasts)]
    if shared.spectrum_leads:
        leads = shared.alignment.lead_time[list(shared.spectrum_leads)]
        total = np.concatenate([r.sums.power for r in results], axis=1)
        count = np.concatenate([r.sums.power_count for r in results], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            power = total / np.where(count > 0, count, np.nan)[None, ..., None]
        dims = ("source", "channel", "spectrum_lead", "wavenumber")
        ratio = spectra.ratio(power, power[-1:])
        effective = np.apply_along_axis(spectra.effective_wavenumber, -1, ratio)
        extras.append(
            xr.Dataset(
                {"power": (dims, power), "power_ratio": (dims, ratio), "effective_wavenumber": (dims[:-1], effective)},
                {"source": [*forecasts, "truth"], "spectrum_lead": leads, "wavenumber": np.arange(power.shape[-1])},
            )
        )
    return extras


def _climate(results) -> xr.Dataset:
    data = {
        "climatology_mean": (("channel",), np.concatenate([r.mean for r in results])),
        "climatology_std": (("channel",), np.concatenate([r.deviation for r in results])),
        "climatology_extreme": (("channel",), np.concatenate([r.extreme for r in results])),
    }
    return xr.Dataset(data)


def _maps(results, shared, forecasts) -> xr.Dataset:
    held = [r for r in results if r.map_levels]
    if not held:
        return xr.Dataset()
    count = np.concatenate([r.sums.map_count for r in held], axis=0)
    total = np.concatenate([r.sums.error_map for r in held], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = total / np.where(count > 0, count, np.nan)
    grid = shared.grid
    shape = (*error.shape[:-1], *grid.shape)
    names = [channel_name(r.variable, level) for r in held for level in r.map_levels]
    coordinates = {"map_channel": names, "map_lead": shared.alignment.lead_time[list(shared.map_leads)]}
    horizontal = {"latitude": grid.latitude, "longitude": grid.longitude}
    if grid.kind == "points":
        horizontal = {name: ("cell", value) for name, value in horizontal.items()}
    dims = ("forecast", "map_channel", "map_lead", *grid.dims)
    return xr.Dataset(
        {"mean_error_map": (dims, error.reshape(shape).astype(np.float32), {"long_name": "mean error"})},
        coordinates | horizontal,
    )
