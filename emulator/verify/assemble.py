"""From sums to the dataset of scores that is written, merged and reported. Its schema is in docs/verification.md."""

from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import write_netcdf
from emulator.planet.calendar import in_nanoseconds, lead_text
from emulator.store.schema import horizontal_coordinates
from emulator.verify.channels import channel_name, headline_ranks
from emulator.verify.metric import Metric, all_statistics, scores_of, with_interval
from emulator.verify.sample import BASELINES, Binning
from emulator.verify.score import VariableScores
from emulator.verify.significance import differences, interval_ends, references

SCHEMA = "scores-1"
_LEADS = ("lead_time", "spectrum_lead", "map_lead", "audit_lead_time")
_COMPRESS_ABOVE = 10_000  # values
INTERVAL = "block bootstrap; below 11 initial times Student's t"
SHOWN = 4
FAR = 5.0  # standard deviations of the climatology: degrees Celsius taken as kelvins are 13, hPa as Pa 10


def assemble(
    results: list[VariableScores], binning: Binning, names: list[str], regions: list[str], members: list[int]
) -> xr.Dataset:
    """All scores: `names` are the forecasts, followed here by the baselines; `members` their ensemble sizes."""
    forecasts = [*names, *BASELINES]
    coordinates = {
        "forecast": forecasts,
        "source": [*forecasts, "truth"],
        "gap_source": [*forecasts, "truth"],
        "region": list(regions),
        "init_time": binning.alignment.init_time,
        **{
            axis: binning.alignment.lead_time[binning.leads(axis)]
            for axis in ("lead_time", "map_lead", "spectrum_lead")
        },
        "map_channel": [channel_name(r.variable, level) for r in results for level in r.headline],
    }
    data = {
        "gap_count": ("gap_source", sum(r.sums.gaps for r in results)),
        "members": ("forecast", [*members, 1][: len(forecasts)]),
        "climatology_mean": ("channel", np.concatenate([r.mean for r in results])),
        "climatology_std": ("channel", np.concatenate([r.deviation for r in results])),
        "climatology_extreme": ("channel", np.concatenate([r.extreme for r in results])),
    }
    for group in all_statistics():
        if group.ensemble and binning.members == 1:
            continue
        for name in group.names:
            if any(name in r.sums.totals for r in results):
                data[f"sum_{name}"] = (group.dims, _along_channels(results, group, name))
        if f"sum_{group.names[0]}" in data:
            coordinates |= {n: make(binning) for n, make in {**group.front, **group.back}.items()}
            data[group.sampling.count] = _count(results, group.sampling)
    for interval in (metric.interval for metric in with_interval()):
        parts = [r.sums.series[interval.series] for r in results if interval.series in r.sums.series]
        if parts:
            data[interval.series] = (("init_time", *interval.dims), np.concatenate(parts, axis=2))
    data, place = _on_the_grid(data, binning)
    used = {dim for dims, _ in data.values() for dim in np.atleast_1d(dims)}
    coordinates = {n: (n, np.asarray(v)) for n, v in coordinates.items() if n in used and not isinstance(v, int)}
    return derive(xr.Dataset(data, coordinates | place | _channels(results)))


def derive(sums: xr.Dataset) -> xr.Dataset:
    """Every metric whose sums a dataset of scores holds, intervals and significance; the sums stay in it."""
    sums = _without_own_axis(sums)  # a part's, read from its file
    mean = xr.Dataset({"members": sums["members"]})
    if "map_channel" in sums.dims:
        mean = mean.assign(initial_times=_at_channels(sums["count"], sums, "map_channel"))
    for group in all_statistics():
        known = [name for name in group.names if f"sum_{name}" in sums]
        if known:
            count = _at_channels(sums[group.sampling.count], sums, group.channel)
            mean = mean.assign({name: sums[f"sum_{name}"] / count.where(count > 0) for name in known})
    result = _without_own_axis(sums.assign(scores_of(mean)).assign_coords(baseline=references(sums)))
    for metric in with_interval():
        if metric.name in result and metric.interval.series in result:
            result = result.assign(_intervals(result, metric))
    return result


def _without_own_axis(dataset: xr.Dataset) -> xr.Dataset:
    """Without fields that have the name of one of their axes, as the mean ranks have: xarray hands them on as coordinates."""
    return dataset.drop_vars(
        [name for name, field in dataset.variables.items() if name in field.dims and field.ndim > 1]
    )


def _intervals(scores: xr.Dataset, metric: Metric) -> dict:
    """Both ends of a metric's interval, and its differences to the references where it is judged by them.

    A single forecast's CRPS is its mean absolute error, so that an ensemble is compared with single forecasts too.
    """
    interval = metric.interval
    series = scores[interval.series].transpose("init_time", *interval.dims).values
    score = scores[metric.name]
    if not interval.everywhere:
        score = score.sel(channel=scores["map_channel"].values).rename(channel="map_channel")
    score = score.transpose(*interval.dims).values
    ends = interval_ends(series, interval.root)
    result = {
        f"{metric.name}_{end}": (
            interval.dims,
            np.where(np.isfinite(score), values, np.nan),
            {"long_name": f"{which} end of the 95 % interval of the {metric.title}, {INTERVAL}"},
        )
        for end, which, values in zip(("low", "high"), ("lower", "upper"), ends, strict=True)
    }
    if not interval.differences:
        return result
    places = [list(scores["forecast"].values).index(name) for name in references(scores)]
    values = differences(series, score, places, interval.root)
    labels = {
        "difference": {"units": "%", "long_name": f"{metric.title} minus the baseline's, relative to it"},
        "difference_half_width": {"units": "%", "long_name": "half-width of the 95 % interval, Geer (2016)"},
        "p_value": {"long_name": "two-sided p-value of no difference"},
        "significant": {
            "long_name": "difference significant at a false discovery rate of 5 % (Benjamini-Hochberg)",
        },
    }
    dims = ("baseline", *interval.dims)
    return result | {
        f"{metric.prefix}{name}": (dims, array, labels[name]) for name, array in zip(labels, values, strict=True)
    }


def _at_channels(count: xr.DataArray, sums: xr.Dataset, channel: str) -> xr.DataArray:
    """A count over all channels at those of maps, where that is what is asked for."""
    if channel in count.dims:
        return count
    count = count.sel(channel=sums["map_channel"].values).rename(channel="map_channel")
    return count.drop_vars([name for name in count.coords if name not in count.dims])


def _along_channels(results, group, name) -> np.ndarray:
    """A statistic of all variables; NaN at the channels of those that do not have it."""
    known = next(r.sums.totals[name] for r in results if name in r.sums.totals)
    parts = []
    for result in results:
        levels = len(result.headline) if group.headline else result.variable.truth.level_count
        missing = (known.shape[0], levels, *known.shape[2:])
        parts.append(result.sums.totals[name] if name in result.sums.totals else np.full(missing, np.nan))
    return np.concatenate(parts, axis=1)


def _count(results, sampling) -> tuple:
    parts = [r.sums.counts[sampling.count] for r in results if sampling.count in r.sums.counts]
    return sampling.count_dims, np.concatenate(parts, axis=0)


def _on_the_grid(data: dict, binning: Binning) -> tuple[dict, dict]:
    """What is kept by cell as fields, and the coordinates of the cells where there are any."""
    grid, place = binning.grid, {}
    for name, (dims, values) in data.items():
        if "cell" in dims:
            axis = dims.index("cell")
            shape = (*values.shape[:axis], *grid.shape, *values.shape[axis + 1 :])
            data[name] = ((*dims[:axis], *grid.dims, *dims[axis + 1 :]), values.reshape(shape))
            place = horizontal_coordinates(grid)
    return data, place


def _channels(results) -> dict:
    pairs = [(r.variable, index) for r in results for index in range(r.variable.truth.level_count)]
    level = [np.nan if v.levels is None else v.levels[i] for v, i in pairs]
    return {
        "channel": [channel_name(v, i) for v, i in pairs],
        "variable": ("channel", [v.name for v, _ in pairs]),
        "short_name": ("channel", [v.short for v, _ in pairs]),
        "level": ("channel", level),
        "level_name": ("channel", [v.labels[i] for v, i in pairs]),
        "pressure": ("channel", [v.pressures[i] for v, i in pairs], {"units": "hPa"}),
        "headline_rank": ("channel", [headline_ranks(v).get(i, -1) for v, i in pairs]),
        "channel_units": ("channel", [v.units for v, _ in pairs]),
    }


def lacking(scores: xr.Dataset) -> list[str]:
    """A sentence for every forecast with scores that are missing although there is a truth, and one for leads without any."""
    sentences = []
    judged = scores["count"] > 0  # (channel, region, lead_time)
    for name in (str(n) for n in scores["forecast"].values if n not in BASELINES):
        failed = (scores["rmse"].sel(forecast=name).isnull() & judged).any(["region", "lead_time"])
        channels = [str(c) for c in scores["channel"].values[failed.transpose("channel").values]]
        if not channels:
            continue
        values = int(scores["gap_count"].sel(gap_source=name)) if "gap_count" in scores else 0
        sentences.append(
            f"{name} is not finite at {values} places where there is a truth: scores of {listed(channels)} are missing"
        )
    sentences += far_off(scores)
    beyond = scores["lead_time"].values[~judged.any(["channel", "region"]).values]
    if len(beyond):
        hours = [lead_text(lead) for lead in beyond]
        sentences.append(f"no initial time has a truth at the leads {listed(hours)}: they are not scored")
    return sentences


def far_off(scores: xr.Dataset) -> list[str]:
    """A sentence for every forecast that at its first lead is as far from the truth as only wrong units can be."""
    sentences = []
    if "climatology_std" not in scores:
        return sentences
    std = scores["climatology_std"].transpose("channel").values
    for name in (str(n) for n in scores["forecast"].values if n not in BASELINES):
        bias = scores["bias"].sel(forecast=name).isel(region=0, lead_time=0).transpose("channel").values
        with np.errstate(invalid="ignore", divide="ignore"):
            far = np.flatnonzero((std > 0) & (np.abs(bias) > FAR * std))
        if len(far):
            first, channels = far[0], [str(c) for c in scores["channel"].values[far]]
            sentences.append(
                f"{name} is far from the truth in {listed(channels)} (the mean error of the first is "
                f"{bias[first]:.3g} at the first lead, {abs(bias[first]) / std[first]:.0f} times its variability): are the "
                "units right?"
            )
    return sentences


def listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def write_scores(scores: xr.Dataset, path: Path) -> None:
    """Writes the scores under a temporary name beside `path`, then renames."""
    scores = scores.assign_attrs(scores_schema=SCHEMA, Conventions="CF-1.11")
    leads = [name for name in _LEADS if name in scores.coords]
    encoding = {name: {"units": "hours", "dtype": "float64"} for name in leads if scores[name].dtype.kind == "m"}
    months = {name: scores[name].assign_attrs(units="months") for name in leads if name not in encoding}
    scores = scores.assign_coords(months)
    for name, array in scores.data_vars.items():
        if array.dtype == bool:
            scores[name] = array.astype(np.int8)
        if array.dtype.kind == "f" and array.size > _COMPRESS_ABOVE:
            encoding[str(name)] = {"zlib": True, "complevel": 2, "shuffle": True}
    write_netcdf(scores, path, encoding)


def part_path(path: Path, number: int, count: int) -> Path:
    """Where part `number` of `count` of the scores at `path` lies until all are there."""
    path = Path(path)
    return path.with_name(f"{path.stem}.part-{number}-of-{count}{path.suffix}")


def open_scores(path: Path) -> xr.Dataset:
    """The scores in memory. Raises `ValueError`, in one sentence, when there are none or they break the schema."""
    if not Path(path).exists():
        raise ValueError(f"Expected scores at {path}, got nothing there")
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as dataset:
            scores = in_nanoseconds(dataset.load().drop_encoding())  # units of time that fit other initial times
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected scores in NetCDF at {path}, got: {' '.join(str(error).split())}") from error
    if scores.attrs.get("scores_schema") != SCHEMA:
        raise ValueError(f"Expected scores_schema {SCHEMA!r} in {path}, got {scores.attrs.get('scores_schema')!r}")
    return scores
