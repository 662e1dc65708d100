"""Climate scores of whole stores: every headline field of long runs against the truth's record, and run against run."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, hour_and_leap_day, lead_seconds, valid_times
from emulator.planet.grid import Grid
from emulator.store.masks import with_land_sea_mask
from emulator.store.schema import constants_of, horizontal_coordinates, levels_of
from emulator.verify.channels import channel_name, headline_ranks, scored, values
from emulator.verify.climate import (
    MONTHS,
    SEASONS,
    TAILS,
    blocking_frequency,
    cells_of,
    climate_of,
    climate_scores,
    geopotential_at,
    month_of,
)
from emulator.verify.headline import of_climate
from emulator.verify.long_climate import Pair, yearly_scores
from emulator.verify.response import responses
from emulator.verify.sea_index import FIELD, box_means, departures
from emulator.verify.significance import false_discovery, mean_interval
from emulator.verify.yearly import Moments, year_start, years_of

BLOCKING_PRESSURE = 5e4  # Pa
DIMS = ("climate_run", "climate_channel")
# of a channel: its variable, level and units as stored, and its rank among the fields of a climate
DESCRIBED = ("climate_variable", "climate_level_name", "climate_channel_units", "climate_rank")
FIELDS = ("climate_channel", *DESCRIBED)
MEASURE = "climate_month_bias_squared"
HYDROSTATIC = ("temperature", "surface_pressure", "geopotential_at_surface")


@dataclasses.dataclass(frozen=True, eq=False)
class Timed:
    """A run, or a reference, and when its fields are.

    Attributes:
      times: of its fields, those of months their middles `(time,)`. positions: of the reference's that are taken,
      among all.
      moments: of the whole years. days: of a run since its start.
    """

    times: np.ndarray
    moments: Moments
    positions: np.ndarray | None = None
    days: np.ndarray | None = None


def long_run_scores(
    truth: xr.Dataset,
    runs: dict[str, xr.Dataset],
    grid: Grid,
    variables: list[str] | None = None,
    references: Mapping[str, xr.Dataset] | None = None,
) -> xr.Dataset:
    """`climate_<score>` over `(climate_run, climate_channel, ...)` of the first initial time of every run; see
    `climate`, of its first member, and `long_climate`, of all members.

    The truth's record is taken at the hours of day that a run has, so that the diurnal cycle is no error.
    `references`: what takes its place for some runs, such as the same model under warmer seas; without `land_sea_mask` it has
    the truth's. Fields that a run lacks are NaN. `DESCRIBED` tells what the fields are. Raises `ValueError` for a run
    without a shared field, or one that is not finite.
    """
    parts = []
    for name, run in runs.items():
        reference = with_land_sea_mask((references or {}).get(name, truth), truth)
        part = _one_run(name, run, reference, grid, variables)
        part["climate_reference"] = ((), name if name in (references or {}) else "truth")
        parts.append(part.expand_dims(climate_run=[name]))
    if not parts:
        return xr.Dataset()
    alone = [part.drop_vars(DESCRIBED) for part in parts]
    result = described(xr.concat(alone, "climate_run", join="outer", data_vars="all"), parts)
    fixed = {"climate_record": ["run", "truth"], "month": np.arange(1, MONTHS + 1), "season": list(SEASONS)}
    result = result.assign_coords(fixed | {"tail": list(TAILS)})
    return result.assign(climate_differences(result)).assign(responses(result, grid))


def _one_run(name: str, run: xr.Dataset, truth: xr.Dataset, grid: Grid, variables) -> xr.Dataset:
    first, run = run.isel(init_time=slice(0, 1)), run.isel(init_time=0)
    valid = valid_times(np.asarray(run["init_time"].values)[None], run["lead_time"].values)[0]
    days = lead_seconds(run["lead_time"].values) / 86400
    hours = np.unique(hour_and_leap_day(valid)[0])
    positions = np.flatnonzero(np.isin(hour_and_leap_day(truth["time"].values)[0], hours))
    if "missing" in truth:
        positions = positions[~truth["missing"].values[positions].astype(bool)]
    # a mean over months belongs to the middle one
    step = TimeStep(months=int(truth.attrs.get("time_step_months", 0)))
    when, moments = (step.middles(t) if step.months else t for t in (valid, truth["time"].values[positions]))
    day = year_start(when, step)
    ours, theirs = Moments.of(when, day), Moments.of(moments, day)
    if FIELD in run:  # an ocean stepped it, and the truth's is not what the run has felt
        left_out = f"the run has a {FIELD} of its own"
    else:
        ours, theirs, left_out = _with_index((valid, ours), (truth, positions, theirs), grid)
    timed = Timed(when, ours, None, days), Timed(moments, theirs, positions)
    chosen, _ = scored(truth, {name: first}, grid, levels_of(truth), variables)
    chosen, scores_of = of_climate(chosen), {}
    for variable in chosen:
        scores_of |= _variable(variable, name, *timed, grid)
    if not scores_of:
        raise ValueError(f"Expected a headline field in the long run {name!r}, got none that the truth has too")
    part = xr.concat(list(scores_of.values()), "climate_channel", join="outer", data_vars="all")
    told = zip(*(_described(chosen)[channel] for channel in scores_of), strict=True)
    part = part.assign_coords({n: ("climate_channel", list(v)) for n, v in zip(DESCRIBED, told, strict=True)})
    part = part.assign_coords(climate_channel=list(scores_of))
    alone = run.isel(member=0) if "member" in run.dims else run
    blocking = [_blocking(alone, truth, grid, None), _blocking(truth, truth, grid, positions)]
    if all(b is not None for b in blocking):
        part["climate_blocking"] = (("climate_record", "longitude"), np.stack(blocking))
    part["climate_days"] = ((), float(days[-1]))
    part["climate_sample"] = ((), _sample(valid, hours))
    part["climate_years"] = ((), _years_told(ours, theirs, run.sizes.get("member", 1)))
    part["climate_sea_index"] = ((), left_out)
    return part


def _with_index(run, reference, grid: Grid) -> tuple[Moments, Moments, str]:
    """Both moments with the departures of the tropical sea where these are to be had, or why they are not."""
    (valid, ours), (truth, positions, theirs) = run, reference
    if not len(ours.years) or not len(theirs.years):
        return ours, theirs, "no whole year"
    means = box_means(truth, grid, positions)
    if means is None:
        return ours, theirs, f"the reference has no {FIELD} in the tropical Pacific"
    at = truth.indexes["time"].get_indexer(valid)
    if (at[ours.year >= 0] < 0).any():
        return ours, theirs, f"the reference has no {FIELD} at the times of the run"
    here = np.full(len(valid), np.nan)
    here[at >= 0] = box_means(truth, grid, at[at >= 0])
    found = [departures(series, moments) for series, moments in ((here, ours), (means, theirs))]
    if any(one is None for one in found):
        return ours, theirs, "the sea of the tropical Pacific has the same annual cycle in every year"
    return *(dataclasses.replace(m, index=one) for m, one in zip((ours, theirs), found, strict=True)), ""


def _years_told(ours: Moments, theirs: Moments, members: int) -> str:
    """`10 years of 5 members from 2002, beside 30 years from 1980`."""
    parts = [f"{len(m.years)} year{'s' * (len(m.years) != 1)}" for m in (ours, theirs)]
    starts = [f" from {m.years[0]}" if len(m.years) else "" for m in (ours, theirs)]
    return f"{parts[0]}{f' of {members} members' if members > 1 else ''}{starts[0]}, beside {parts[1]}{starts[1]}"


def _sample(valid, hours) -> str:
    """What two runs have to share for their climates to be compared."""
    first, last = (str(time)[:10] for time in valid[[0, -1]])
    return f"{len(valid)} times from {first} to {last} at {', '.join(f'{hour:02d}' for hour in hours)} UTC"


def _variable(variable, run, ours_timed: Timed, theirs_timed: Timed, grid) -> dict[str, xr.Dataset]:
    """Scores of the headline levels of a variable, by channel."""
    result = {}
    date, positions = hour_and_leap_day(ours_timed.times)[1], theirs_timed.positions
    for level in sorted(headline_ranks(variable)):
        one = variable.at_levels([level])
        ours, theirs = one.forecasts[run], one.truth
        exists = None if one.exists is None else one.exists[0]
        if exists is not None and not exists.any():
            continue
        area, cells = cells_of(grid.area, exists), slice(None) if exists is None else np.flatnonzero(exists)
        alone = dataclasses.replace(ours, array=ours.array.isel(member=[0])) if "member" in ours.array.dims else ours

        def read_run(part, field=ours, cells=cells):
            leads = field.array["lead_time"].values[part]
            return field.forecast(field.array["init_time"].values[0], leads)[:, :, 0][..., cells]

        def read_truth(part, theirs=theirs, cells=cells):
            return theirs.analysis(positions[part])[:, 0][:, cells]

        limits = _limits(read_truth, len(positions))
        record = climate_of(read_truth, month_of(theirs_timed.times), area, limits)
        climate = climate_of(
            lambda part, read=read_run, alone=alone: read(part, alone)[0], month_of(ours_timed.times), area, limits
        )
        scores = _dataset(climate_scores(climate, record, grid, ours_timed.days, date, exists), grid)
        whole = grid if exists is None else None
        members = years_of(read_run, ours_timed.moments, area, whole, ours.array.sizes.get("member", 1))
        (reference,) = years_of(lambda part, read=read_truth: read(part)[None], theirs_timed.moments, area, whole)
        scores = scores.merge(yearly_scores(Pair(members, reference, grid, area, exists)))
        result[channel_name(variable, level)] = scores
    return result


def described(climate: xr.Dataset, parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Scores of long runs with `DESCRIBED` of every channel, from the first of `parts` that tells it; else "" and NaN."""
    told: dict[str, tuple] = {}
    for part in parts:
        if set(FIELDS) <= set(part.coords):
            columns = ([str(c) for c in part["climate_channel"].values], *(part[name].values for name in DESCRIBED))
            told = {channel: of for channel, *of in zip(*columns, strict=True)} | told
    if not told or "climate_channel" not in climate.dims:
        return climate
    rows = [told.get(str(channel), ("", "", "", np.nan)) for channel in climate["climate_channel"].values]
    columns = zip(DESCRIBED, zip(*rows, strict=True), strict=True)
    return climate.assign_coords({name: ("climate_channel", list(column)) for name, column in columns})


def _described(variables) -> dict[str, tuple]:
    """Channel -> what it is, as `DESCRIBED` has it, of the headline levels of some variables."""
    return {
        channel_name(v, level): (v.name, v.labels[level], v.units, rank)
        for v in variables
        for level, rank in headline_ranks(v).items()
    }


def _limits(read, count) -> tuple[float, float]:
    """Range of the histogram: that of some of the truth's fields, widened by half."""
    some = [read(slice(i, i + 1)) for i in np.unique(np.linspace(0, count - 1, min(count, 12)).astype(int))]
    low, high = min(float(np.nanmin(s)) for s in some), max(float(np.nanmax(s)) for s in some)
    widen = (high - low) / 2 or 1.0
    return low - widen, high + widen


def _dataset(scores: dict, grid: Grid) -> xr.Dataset:
    names = {"record": "climate_record", "probability": "tail"}
    data = {f"climate_{n}": (tuple(names.get(d, d) for d in dims), v) for n, (dims, v) in scores.items()}
    return xr.Dataset(data, horizontal_coordinates(grid))


def _blocking(dataset: xr.Dataset, truth: xr.Dataset, grid: Grid, positions) -> np.ndarray | None:
    """Blocking frequency, from 500 hPa geopotential or else by the hydrostatic equation; None without either."""
    if not grid.has_rows or not grid.is_global() or "level" not in dataset.dims:
        return None
    axis = "time" if positions is not None else "lead_time"
    count = dataset.sizes[axis] if positions is None else len(positions)
    levels, constants = levels_of(dataset), constants_of(truth)

    def picked(name, part):
        index = positions[part] if positions is not None else part
        array = dataset[name].isel({axis: index})
        array = array.isel(member=0) if "member" in array.dims else array
        order = [axis, *(["level"] if "level" in array.dims else []), *grid.dims]
        block = values(array.transpose(*order)).astype(np.float64)
        return block.reshape(*block.shape[: len(order) - 2], -1)

    def direct(part, at):
        return picked("geopotential", part)[:, at]

    def hydrostatic(part):
        fields = {n: picked(n, part) for n in ("temperature", "surface_pressure")}
        if "specific_humidity" in dataset:
            fields["specific_humidity"] = picked("specific_humidity", part)
        ground = (dataset if "geopotential_at_surface" in dataset else truth)["geopotential_at_surface"]
        fields["geopotential_at_surface"] = ground.values.astype(np.float64).ravel()
        gases = constants.gas_constant_dry_air, constants.gas_constant_water_vapour
        return geopotential_at(fields, levels, BLOCKING_PRESSURE, *gases)

    if dataset.attrs.get("vertical_coordinate", "pressure") == "pressure":
        near = np.flatnonzero(np.isclose(dataset["level"].values, BLOCKING_PRESSURE / 100))
        if not len(near) or "geopotential" not in dataset:
            return None
        return blocking_frequency(
            lambda part: direct(part, int(near[0])), count, grid, constants.gravity, len(dataset["level"])
        )
    known = [n for n in HYDROSTATIC if n in dataset or (n == "geopotential_at_surface" and n in truth)]
    if levels is None or len(known) < len(HYDROSTATIC):
        return None
    return blocking_frequency(hydrostatic, count, grid, constants.gravity, len(levels))


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
    known = np.isfinite(squared).any(axis=(1, 2))
    squared = squared[known]
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
