"""From sums to the dataset of scores that is written, merged and reported. Its schema is in docs/verification.md."""

import numpy as np
import xarray as xr

from emulator.verify import events, metrics, precipitation, spectra
from emulator.verify.channels import channel_name, headline_ranks, short_name
from emulator.verify.ensemble import ENSEMBLE_STATISTICS
from emulator.verify.intervals import intervals, intervals_of_means
from emulator.verify.sample import BASELINES, EACH
from emulator.verify.score import VariableScores
from emulator.verify.statistics import STATISTICS

DIMS = ("forecast", "channel", "region", "lead_time")
MAP_DIMS = ("forecast", "map_channel", "map_lead")
POWER_DIMS = ("source", "channel", "spectrum_lead", "wavenumber")
EVENT_DIMS = ("forecast", "map_channel", "event", "region", "lead_time")
EXTRA_DIMS = {
    **dict.fromkeys(events.EVENT_STATISTICS, EVENT_DIMS),
    **dict.fromkeys(events.RELIABILITY, (*EVENT_DIMS, "probability_bin")),
    **dict.fromkeys(("fss_difference", "fss_power"), (*EVENT_DIMS, "window")),
    "rank": ("forecast", "map_channel", "region", "lead_time", "rank"),
    "seeps": ("forecast", "map_channel", "region", "lead_time"),
}
EACH_DIMS = ("init_time", "forecast", "map_channel", "region", "lead_time")
SCHEMA = "scores-1"


def assemble(
    results: list[VariableScores], shared, names: list[str], regions: list[str], members: list[int]
) -> xr.Dataset:
    """All scores: `names` are the forecasts, followed here by the baselines; `members` their ensemble sizes.

    `shared` is the `sample.Setting` that made the results.
    """
    forecasts = [*names, *BASELINES]
    sums = _sums(results, shared.members > 1)
    sums = sums.assign_coords(
        {
            "forecast": forecasts,
            "region": list(regions),
            "lead_time": shared.alignment.lead_time,
            "init_time": shared.alignment.init_time,
            "gap_source": [*forecasts, "truth"],
            **_channels(results),
        }
    )
    sums["members"] = ("forecast", [*members, 1][: len(forecasts)])
    parts = [
        sums,
        _climate(results),
        _maps(results, shared),
        _extra(results, shared),
        _power(results, shared, forecasts),
    ]
    return derive(xr.merge(parts, compat="no_conflicts", join="outer"))


def derive(sums: xr.Dataset) -> xr.Dataset:
    """Metrics, maps, spectra, intervals and significance from the sums of a dataset of scores; the sums stay in it."""
    mean = xr.Dataset(
        {name: sums[f"sum_{name}"] / sums["count"].where(sums["count"] > 0) for name in _statistics(sums)}
    )
    result = xr.merge([sums, metrics.scores(mean, sums["members"])])
    for name in ("rmse", "rmse_unbiased", "bias", "mae", "crps", "crps_ecdf", "spread", "energy_score"):
        if name in result:
            result[name].attrs["units"] = "of the channel"
    result = result.assign(intervals(result))
    if "sum_error_map" in sums:
        error = sums["sum_error_map"] / sums["map_count"].where(sums["map_count"] > 0)
        result["mean_error_map"] = error.astype(np.float32).assign_attrs(long_name="mean error")
    if "sum_power" in sums:
        result = result.assign(_spectra(sums))
    result = result.assign(intervals_of_means(result))
    return result.assign(_event_scores(sums))


def _spectra(sums) -> dict:
    count = sums["power_count"]
    power = (sums["sum_power"] / count.where(count > 0)).transpose(*POWER_DIMS)
    ratio = spectra.ratio(power.values, power.values[-1:])
    effective = np.apply_along_axis(spectra.effective_wavenumber, -1, ratio)
    return {"power": power, "power_ratio": (POWER_DIMS, ratio), "effective_wavenumber": (POWER_DIMS[:-1], effective)}


def _event_scores(sums) -> dict:
    """Scores of events, rain and ranks, each at the channels of maps."""
    if "map_channel" not in sums.dims:
        return {}
    count = sums["count"].sel(channel=sums["map_channel"].values).rename(channel="map_channel")
    count = count.drop_vars([c for c in count.coords if c not in count.dims]).where(lambda x: x > 0)
    mean = xr.Dataset({name: sums[f"sum_{name}"] / count for name in EXTRA_DIMS if f"sum_{name}" in sums})
    result = {}
    if "hit" in mean:
        level = sums["event"]
        result |= dict(events.event_scores(mean, xr.where(level >= 0.5, 1 - level, level)).data_vars)
    if "seeps" in mean:
        result["seeps"] = mean["seeps"].assign_attrs(long_name="SEEPS (Rodwell et al. 2010), 0 is perfect")
    if "fss_power" in mean:
        ratio = mean["fss_difference"] / mean["fss_power"].where(mean["fss_power"] > 0)
        result["fss"] = (1 - ratio).assign_attrs(long_name="fraction skill score (Roberts and Lean 2008)")
    if "rank" in mean:
        result["rank_histogram"] = mean["rank"].assign_attrs(
            long_name="share of cells and times at which the truth has each rank among the members, ties shared"
        )
    return result


def _statistics(sums):
    wanted = (*STATISTICS, *ENSEMBLE_STATISTICS)
    return [name for name in wanted if f"sum_{name}" in sums]


def _sums(results, ensemble: bool) -> xr.Dataset:
    wanted = (*STATISTICS, *(ENSEMBLE_STATISTICS if ensemble else ()))
    data = {}
    for name in wanted:
        data[f"sum_{name}"] = (DIMS, np.concatenate([r.sums.totals[name] for r in results], axis=1))
    data["count"] = (DIMS[1:], np.concatenate([r.sums.count for r in results], axis=0))
    errors = np.concatenate([r.sums.squared_error for r in results], axis=2)
    data["squared_error"] = (("init_time", *DIMS), errors)
    data["gap_count"] = ("gap_source", sum(r.sums.gaps for r in results))
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


def _climate(results) -> xr.Dataset:
    data = {
        "climatology_mean": (("channel",), np.concatenate([r.mean for r in results])),
        "climatology_std": (("channel",), np.concatenate([r.deviation for r in results])),
        "climatology_extreme": (("channel",), np.concatenate([r.extreme for r in results])),
    }
    return xr.Dataset(data)


def _power(results, shared, forecasts) -> xr.Dataset:
    if not shared.spectrum_leads:
        return xr.Dataset()
    total = np.concatenate([r.sums.power for r in results], axis=1)
    count = np.concatenate([r.sums.power_count for r in results], axis=0)
    leads = shared.alignment.lead_time[list(shared.spectrum_leads)]
    coordinates = {
        "source": [*forecasts, "truth"],
        "spectrum_lead": leads,
        "wavenumber": np.arange(total.shape[-1]),
    }
    return xr.Dataset({"sum_power": (POWER_DIMS, total), "power_count": (POWER_DIMS[1:3], count)}, coordinates)


def _maps(results, shared) -> xr.Dataset:
    held = [r for r in results if r.map_levels]
    if not held:
        return xr.Dataset()
    grid = shared.grid
    total = np.concatenate([r.sums.error_map for r in held], axis=1)
    count = np.concatenate([r.sums.map_count for r in held], axis=0)
    names = [channel_name(r.variable, level) for r in held for level in r.map_levels]
    coordinates = {"map_channel": names, "map_lead": shared.alignment.lead_time[list(shared.map_leads)]}
    horizontal = {"latitude": grid.latitude, "longitude": grid.longitude}
    if grid.kind == "points":
        horizontal = {name: ("cell", value) for name, value in horizontal.items()}
    return xr.Dataset(
        {
            "sum_error_map": ((*MAP_DIMS, *grid.dims), total.reshape(*total.shape[:-1], *grid.shape)),
            "map_count": ((*MAP_DIMS[1:], *grid.dims), count.reshape(*count.shape[:-1], *grid.shape)),
        },
        coordinates | horizontal,
    )


def _extra(results, shared) -> xr.Dataset:
    held = [r for r in results if r.map_levels]
    data = {}
    for name, dims in EXTRA_DIMS.items():
        known = [r.sums.extra[name] for r in held if name in r.sums.extra]
        if not known:
            continue
        parts = [
            r.sums.extra.get(name, np.full((len(known[0]), len(r.map_levels), *known[0].shape[2:]), np.nan))
            for r in held
        ]
        data[f"sum_{name}"] = (dims, np.concatenate(parts, axis=1))
    for name in EACH if held else ():
        data[f"each_{name}"] = (EACH_DIMS, np.concatenate([r.sums.each[name] for r in held], axis=2))
    coordinates = {
        "event": list(shared.events),
        "probability_bin": np.linspace(0, 1, events.BINS),
        "window": list(precipitation.WINDOWS),
    }
    used = {d for dims, _ in data.values() for d in dims}
    return xr.Dataset(data, {name: values for name, values in coordinates.items() if name in used})
