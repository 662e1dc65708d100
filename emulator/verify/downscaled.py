"""Downscaled fields: whether means of coarse cells are kept, and whether quantiles and the diurnal cycle are the truth's.

Unlike metrics these are of all times together.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator

import numpy as np
import xarray as xr

from emulator.planet.calendar import hour_and_leap_day, in_nanoseconds, valid_times
from emulator.planet.grid import Grid
from emulator.planet.vertical import vertical_of
from emulator.sources.foreign import open_any_forecast
from emulator.sphere.cell_means import CellMeans
from emulator.store.analysis import ANALYSIS, open_analysis
from emulator.store.interval_forecasts import DOWNSCALING
from emulator.store.schema import entry, grid_of, open_zarr
from emulator.verify.channels import ScoredVariable, channel_name, headline_ranks
from emulator.verify.distributions import Days, Histogram, root_mean_square

log = logging.getLogger(__name__)
QUANTILES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
SHOWN = 3  # channels of which a case is kept to look at
RAIN = "mean_total_precipitation_rate"


def open_coarse(source) -> xr.Dataset:
    """The store, by path or as a dataset, that was downscaled: an analysis or forecasts. Raises `ValueError`."""
    if isinstance(source, xr.Dataset):
        return in_nanoseconds(source)
    is_analysis = open_zarr(source).attrs.get("emulator_schema") == ANALYSIS
    return in_nanoseconds(open_analysis(source)) if is_analysis else open_any_forecast(source)


def check_coarse(source, grid: Grid) -> None:
    """Raises `ValueError` for a store whose grid is not one of cells that are as large as a fine grid's or larger."""
    CellMeans.of(grid, grid_of(open_coarse(source)))


def with_coarse(inputs, source):
    """`Inputs` with the store, as `open_coarse` takes it, that the downscaled stores among their forecasts were made of.

    Raises `ValueError` for a store that they cannot have been made of: without one of their fields, with none of their
    times, or on a grid that is not coarser. Warns where it lacks some of the times.
    """
    found = dataclasses.replace(inputs, coarse=open_coarse(source))
    names, coarse = _downscaled(inputs), found.coarse
    if not names:
        return found
    if missing := [variable.name for variable in inputs.variables if variable.name not in coarse]:
        raise ValueError(
            f"Expected the coarse store that {', '.join(names)} was made of, with {', '.join(missing)}, got one with only "
            f"{', '.join(sorted(map(str, coarse.data_vars)))}"
        )
    beside, inits = _Coarse.of(found), inputs.alignment.init_time
    for name in names:
        ends = _intervals(inputs.forecasts[name])[1]
        absent = [init for init in inits if not beside.holds(init, ends)]
        if len(absent) == len(inits):
            axis = "init_time" if "init_time" in coarse.dims else "time"
            raise ValueError(
                f"Expected the coarse store that {name} was made of, with the times of its intervals from {inits[0]} on, got "
                f"one from {coarse[axis].values[0]} to {coarse[axis].values[-1]}"
            )
        if absent:
            log.warning(
                "The coarse store lacks times of %d of the %d initial times of %s: means are compared at the others",
                len(absent),
                len(inits),
                name,
            )
    return found


def _downscaled(inputs) -> list[str]:
    return [name for name, dataset in inputs.forecasts.items() if DOWNSCALING in dataset.attrs]


def _intervals(dataset: xr.Dataset) -> tuple[int, np.ndarray]:
    """Fine steps of an interval, and the leads of downscaled forecasts at which one ends."""
    leads, hours = dataset["lead_time"].values, json.loads(dataset.attrs[DOWNSCALING])["coarse_step_hours"]
    apart = leads / np.timedelta64(1, "h") / hours
    whole = np.abs(apart - np.round(apart)) < 1e-6
    steps = int(np.flatnonzero(whole)[0]) + 1 if whole.any() and not np.isclose(apart[0], 0) else 1
    return steps, leads[steps - 1 :: steps]


def downscaling_scores(inputs, scores: xr.Dataset) -> xr.Dataset:
    """Scores of the downscaled stores among the forecasts of `Inputs`; empty without them or their coarse store.

    `coarse_departure` `(downscaled, coarse_variable)`: the largest departure of a mean of a coarse cell, for means over the
    interval, from the coarse store's value, in units of the largest value of its level; NaN where values are missing that
    the coarse store has. `downscaled_quantile` `(downscaled, downscaled_channel, downscaled_quantile_level)`, the truth
    among `downscaled`, over cells by area, times and members, where all of them have values. `diurnal_strength`,
    `diurnal_error` `(downscaled, downscaled_channel)`: root mean square of the diurnal cycle, and of its departure from the
    truth's, relative to the truth's. `downscaled_case` and `downscaled_case_coarse`: the last step of one interval.
    """
    names = _downscaled(inputs)
    if inputs.coarse is None or not names:
        return xr.Dataset()
    coarse = _Coarse.of(inputs)
    kept = inputs.variables
    departures = [[coarse.departure(variable, name, inputs) for variable in kept] for name in names]
    ends = {"downscaled": [*names, "truth"], "coarse_variable": [variable.name for variable in kept]}
    missing = [[np.nan] * len(kept)]
    data = {"coarse_departure": (("downscaled", "coarse_variable"), np.array(departures + missing))}
    found = xr.Dataset(data, ends)
    return found.merge(_distributions(inputs, scores, names)).merge(_case(inputs, coarse, names))


@dataclasses.dataclass(frozen=True, eq=False)
class _Coarse:
    """The coarse store beside the fine grid."""

    dataset: xr.Dataset
    means: CellMeans

    @classmethod
    def of(cls, inputs) -> "_Coarse":
        return cls(inputs.coarse, CellMeans.of(inputs.grid, grid_of(inputs.coarse)))

    def _places(self, init, ends: np.ndarray) -> tuple[dict[str, int], str, np.ndarray]:
        """Of the ends of intervals: where the initial time is, the axis, and positions on it; -1 of what is absent."""
        if "lead_time" in self.dataset.dims:
            where = int(self.dataset.indexes["init_time"].get_indexer([init])[0])
            return {"init_time": where}, "lead_time", self.dataset.indexes["lead_time"].get_indexer(ends)
        valid = valid_times(np.array([init]), ends)[0]
        return {}, "time", self.dataset.indexes["time"].get_indexer(valid)

    def holds(self, init, ends: np.ndarray) -> bool:
        """Whether the store has all ends of the intervals of an initial time."""
        where, _, places = self._places(init, ends)
        return min(*where.values(), *places, 0) >= 0

    def at(self, variable: ScoredVariable, init, ends: np.ndarray) -> np.ndarray | None:
        """Fields at the ends of intervals, `(interval, member, level, *coarse)`; None where the store has not all of them."""
        if not self.holds(init, ends):
            return None
        where, axis, places = self._places(init, ends)
        field = self.dataset[variable.name].isel(where).isel({axis: places})
        vertical = vertical_of(field.dims)
        if vertical is not None:
            field = field.isel({vertical: [int(np.abs(field[vertical].values - v).argmin()) for v in variable.levels]})
        front = [d for d in (axis, "member", vertical) if d in field.dims]
        space = grid_of(self.dataset).dims
        values = field.load().transpose(*front, *space).values.astype(np.float64)
        return values.reshape(len(ends), field.sizes.get("member", 1), -1, *values.shape[-2:])

    def departure(self, variable: ScoredVariable, name: str, inputs) -> float:
        """The largest departure of the means of coarse cells from a field, relative to the largest value of the level.

        NaN where values are missing at a time at which the coarse store has the whole field, or it is zero.
        """
        dataset, field = inputs.forecasts[name], variable.forecasts[name]
        leads, (steps, ends) = dataset["lead_time"].values, _intervals(dataset)
        instant, worst, largest = entry(self.dataset, variable.name).cell == "point", np.zeros(1), np.zeros(1)
        for init in inputs.alignment.init_time:
            asked = self.at(variable, init, ends)
            if asked is None:
                continue
            fine = field.forecast(init, leads)  # (member, lead, level, cell)
            fine = fine.reshape(len(fine), -1, steps, *fine.shape[2:-1], *inputs.grid.shape)
            own = self.means(fine[:, :, -1] if instant else fine.mean(2)).swapaxes(0, 1)
            asked = np.repeat(asked, own.shape[1] // asked.shape[1], axis=1)
            whole = np.isfinite(asked).all((-2, -1), keepdims=True)  # nothing is made of a field with missing values
            asked = self.means.part(asked)
            worst, largest = (
                np.maximum(known, np.where(whole, np.abs(values), 0).max((0, 1, -2, -1)))  # by level, NaN stays
                for known, values in ((worst, own - asked), (largest, asked))
            )
        if np.isnan(worst).any():
            log.warning("%s lacks values of %s at times at which its coarse store has them", name, variable.name)
        told = (largest > 0) | (worst != 0)
        with np.errstate(divide="ignore"):
            return float((worst[told] / largest[told]).max()) if told.any() else np.nan


def _sources(inputs, variable: ScoredVariable, level: int, names) -> Iterator[tuple[int, np.ndarray, dict]]:
    """Of every initial time with a truth: number, hours of the day `(lead,)`, and fields `(member, lead, cell)` by name."""
    alignment, one = inputs.alignment, variable.at_levels([level])
    for number, init in enumerate(alignment.init_time):
        at = np.flatnonzero(alignment.truth_valid[number] >= 0)
        if len(at):
            leads = alignment.lead_time[at]
            fields = {name: one.forecasts[name].forecast(init, leads)[:, :, 0] for name in names}
            fields["truth"] = one.truth.analysis(alignment.truth_valid[number, at])[None, :, 0]
            yield number, hour_and_leap_day(valid_times(np.array([init]), leads)[0])[0], fields


def _distributions(inputs, scores: xr.Dataset, names: list[str]) -> xr.Dataset:
    """Quantiles and cycles of the day at the channels of maps."""
    area, whole = inputs.grid.area.ravel(), [*names, "truth"]
    quantiles, strengths, errors, channels = [], [], [], []
    for variable in inputs.variables:
        for level in sorted(headline_ranks(variable)):
            channels.append(channel_name(variable, level))
            at = list(scores["channel"].values).index(channels[-1])
            mean, std = (float(scores[f"climatology_{kind}"].values[at]) for kind in ("mean", "std"))
            histograms = {name: Histogram(mean, std or 1.0) for name in whole}
            days = {name: Days() for name in whole}
            for _, hours, fields in _sources(inputs, variable, level, names):
                known = np.all([np.isfinite(field).all(0) for field in fields.values()], axis=0)  # (lead, cell)
                for name, field in fields.items():
                    histograms[name].add(field, area * known)
                    days[name].add(hours, field.mean(0), known)
            quantiles.append([histograms[name].quantiles(QUANTILES) for name in whole])
            cycles = {name: known.cycle() for name, known in days.items()}
            own = root_mean_square(cycles["truth"], area)
            strengths.append([root_mean_square(cycles[name], area) / own if own else np.nan for name in whole])
            errors.append(
                [root_mean_square(cycles[name] - cycles["truth"], area) / own if own else np.nan for name in whole]
            )
    dims = ("downscaled", "downscaled_channel")
    data = {
        "downscaled_quantile": ((*dims[::-1], "downscaled_quantile_level"), np.array(quantiles)),
        "diurnal_strength": (dims[::-1], np.array(strengths)),
        "diurnal_error": (dims[::-1], np.array(errors)),
    }
    ends = {"downscaled": whole, "downscaled_channel": channels, "downscaled_quantile_level": list(QUANTILES)}
    return xr.Dataset(data, ends) if channels else xr.Dataset()


def _case(inputs, coarse: _Coarse, names: list[str]) -> xr.Dataset:
    """Coarse fields, those made of them (the first member) and the truth, at the end of the middle interval."""
    alignment, shown = inputs.alignment, []
    ranked = [(v, level) for v in inputs.variables for level in sorted(headline_ranks(v)) if v.name in coarse.dataset]
    for variable, level in sorted(ranked, key=lambda pair: (pair[0].name != RAIN, headline_ranks(pair[0])[pair[1]])):
        if variable.name not in [pair[0].name for pair in shown] and len(shown) < SHOWN:
            shown.append((variable, level))
    known = np.flatnonzero(alignment.truth_valid[:, -1] >= 0)
    if not shown or not len(known):
        return xr.Dataset()
    number, lead = int(known[len(known) // 2]), alignment.lead_time[-1:]
    init, given, made = alignment.init_time[number], [], []
    for variable, level in shown:
        field = coarse.at(variable.at_levels([level]), init, lead)
        if field is None:
            return xr.Dataset()
        given.append(field[0, 0, 0])
        one = variable.at_levels([level])
        own = [one.forecasts[name].forecast(init, lead)[0, 0, 0] for name in names]
        made.append([*own, one.truth.analysis(alignment.truth_valid[number, -1:])[0, 0]])
    channels = [channel_name(variable, level) for variable, level in shown]
    grid = grid_of(coarse.dataset)
    shape = (len(shown), len(names) + 1, *inputs.grid.shape)
    data = {
        "downscaled_case": (
            ("case_channel", "downscaled", *inputs.grid.dims),
            np.array(made, np.float32).reshape(shape),
        ),
        "downscaled_case_coarse": (("case_channel", "coarse_row", "coarse_column"), np.array(given, np.float32)),
        "downscaled_case_time": ((), valid_times(np.array([init]), lead)[0, 0]),
    }
    places = {"coarse_row": grid.latitude, "coarse_column": grid.longitude, "case_channel": channels}
    return xr.Dataset(data, {"downscaled": [*names, "truth"], **places})
