"""What a verification works on: stores opened and checked against each other, aligned in time, with a climatology."""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, in_nanoseconds, interval_starts
from emulator.planet.grid import Grid
from emulator.planet.regions import region_weights, regions_of
from emulator.sources.foreign import open_any_forecast, open_truth
from emulator.store.analysis import check_times, open_analysis
from emulator.store.forecast import boundary_told, check_forecast, from_disk_names
from emulator.store.interval_forecasts import INTERVALS, interval_forecasts, is_downscaled_analysis
from emulator.store.schema import grid_of, levels_of
from emulator.verify import climatology
from emulator.verify.align import Alignment, align, check_calendars, check_grids
from emulator.verify.budgets import EnergyForm
from emulator.verify.channels import ScoredVariable, channel_name, empty_inits, scored
from emulator.verify.driving import Driving, on_domain
from emulator.verify.held import Held, held
from emulator.verify.options import ScenarioOptions, VerifyOptions
from emulator.verify.scenarios import Scenarios
from emulator.verify.stations import Observations, at_stations, station_weights

PERSISTENCE_DAYS, PERSISTENCE_MONTHS = 10, 12
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Stores under in-memory names, and what they share.

    Attributes:
      options: what was asked for; truth_name: path of the truth or of the observations.
      truth: analysis; forecasts: name -> forecast to score; audited: those and more whose budgets are audited.
      long_runs: name -> long run whose climate is scored.
      references: name -> the analysis that a long run is compared with, where that is not the truth.
      mask: land-sea mask `grid.shape` or None; regions: names; weights: `(region, *grid.shape)`.
      variables: what is scored; skipped: variable -> why it is not.
      alignment: all initial times and leads; recipe: the climatology's; overlap: whether its record holds verified times.
      scenarios: emulators of scenarios, scored by years; None without.
      oceans: forecast -> that of the ocean's network that it was coupled with.
      held: which of the forecasts are analyses that are held, baselines on the page.
      feedback: folder of a cycle's feedback, whose statistics are among the scores; None without.
      coarse: the store that downscaled ones were made of, analyses or forecasts; None without.
      empty: forecast -> how many initial times it has without any value, which are left out for all.
    """

    options: VerifyOptions
    truth_name: str
    truth: xr.Dataset
    forecasts: dict[str, xr.Dataset]
    audited: dict[str, xr.Dataset]
    long_runs: dict[str, xr.Dataset]
    references: dict[str, xr.Dataset]
    grid: Grid
    mask: np.ndarray | None
    regions: tuple[str, ...]
    weights: np.ndarray
    variables: list[ScoredVariable]
    skipped: dict[str, str]
    alignment: Alignment
    empty: dict[str, int]
    recipe: climatology.Recipe
    overlap: bool
    scenarios: Scenarios | None = None
    oceans: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    feedback: Path | None = None
    coarse: xr.Dataset | None = None
    held: tuple[str, ...] = ()

    @property
    def members(self) -> list[int]:
        """Ensemble sizes of the forecasts and of persistence."""
        return [dataset.sizes.get("member", 1) for dataset in (*self.forecasts.values(), self.truth)]

    @property
    def energy(self) -> EnergyForm:
        """Form of energy in the audit."""
        return EnergyForm(self.options.energy, self.options.heat_capacity, self.options.kinetic)

    @property
    def climatology_period(self) -> str:
        first, last = (self.truth["time"].values[self.recipe.positions[i]] for i in (0, -1))
        return f"{first} to {last}"

    @functools.cached_property
    def domains(self) -> dict[str, dict]:
        """Channel -> name of its domain, its share of the grid's area, and a digest of where it is; of all not everywhere."""
        area, known = self.grid.area.ravel(), {}
        for variable in (v for v in self.variables if v.exists is not None):
            for level, exists in enumerate(variable.exists):
                share = round(float(area[exists].sum() / area.sum()), 6)
                where = hashlib.sha256(np.packbits(exists).tobytes()).hexdigest()[:8]
                known[channel_name(variable, level)] = {"domain": variable.domain, "share": share, "where": where}
        return known

    @property
    def sample(self) -> str:
        """JSON of what has to be equal for scores to be added up."""
        form = self.energy
        content = {
            "grid": self.grid.describe(),
            "truth": str(self.truth.attrs.get("fingerprint") or self.truth_name),
            "climatology": f"{self.recipe.describe()} from {self.climatology_period}",
            "energy": [form.form, form.heat_capacity, form.kinetic],
            "models": {name: str(d.attrs.get("checkpoint", "")) for name, d in self.forecasts.items()},
            "members": {name: d.sizes.get("member", 1) for name, d in self.forecasts.items()},
        }
        if self.domains:
            content["domains"] = {channel: domain["where"] for channel, domain in self.domains.items()}
        return json.dumps(content)


def open_inputs(
    truth,
    forecasts: Mapping,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 (frozen)
    audit: Mapping | None = None,
    long_runs: Mapping | None = None,
    references: Mapping | None = None,
    scenarios: Mapping | None = None,
    oceans: Mapping | None = None,
) -> Inputs:
    """Opens and checks everything. `truth`, and the forecasts by their names, are paths, URLs, patterns or datasets.

    `truth` may be `Observations`, and a forecast a `Driving`, which is put on the truth's grid, or `Held`: analyses that
    stay as they are, which come last and are not audited. `audit`: more forecasts whose budgets are audited; `long_runs`:
    forecasts whose climate is scored; `references`: analyses in the place of the truth for some of these, by their names;
    `scenarios`: what `scenarios.Scenarios` holds and its options, with paths in place of datasets; `oceans`: of forecasts
    that were coupled with a network, by their names, what that forecast. Raises `ValueError` in one sentence that names what
    differs.
    """
    at_points = isinstance(truth, Observations)
    kept = {} if at_points else {name: source for name, source in forecasts.items() if isinstance(source, Held)}
    if at_points:
        name, (observed, judged) = str(truth.path), at_stations(truth, forecasts, _forecast)
        audited, runs, beside = {}, {}, {}
    else:
        name, observed = _name(truth), _truth(truth)
        stepped = {name: source for name, source in forecasts.items() if name not in kept}
        judged, more, runs = (
            {name: _judged(path, observed) for name, path in (paths or {}).items()}
            for paths in (stepped, audit, long_runs)
        )
        audited = {name: dataset for name, dataset in judged.items() if INTERVALS not in dataset.attrs} | more
        judged = judged | {name: held(_analyses(each.source), name, judged) for name, each in kept.items()}
        beside = {name: _truth(path) for name, path in (references or {}).items()}
        if unknown := [name for name in beside if name not in runs]:
            raise ValueError(
                f"Expected references of long runs ({', '.join(runs) or 'none'}), got one of {unknown[0]!r}"
            )
    named = judged | audited | runs | {f"the reference of {name}": dataset for name, dataset in beside.items()}
    given = None if scenarios is None else _scenarios(scenarios)
    seas = {name: _forecast(path) for name, path in (oceans or {}).items()}
    if unknown := [name for name in seas if name not in audited]:
        raise ValueError(f"Expected oceans of forecasts ({', '.join(audited) or 'none'}), got one of {unknown[0]!r}")
    named |= {f"the ocean of {name}": dataset for name, dataset in seas.items()}
    named |= {} if given is None else {f"the store of {store}": dataset for store, dataset in given.stores().items()}
    grid = check_grids({"the truth": grid_of(observed)} | {n: grid_of(d) for n, d in named.items()})
    check_calendars({"the truth": observed["time"].values} | {n: d["init_time"].values for n, d in judged.items()})
    variables, skipped = scored(observed, judged, grid, levels_of(observed), options.variables, options.levels)
    alignment, empty = _without_empty(_alignment(observed, judged, options, name), variables, judged)
    recipe, overlap = _climatology(observed, alignment, options)
    mask = observed["land_sea_mask"].values if "land_sea_mask" in observed else None
    if at_points:
        regions, weights = station_weights(observed["station"].values)
    else:
        prescribed = prescribed_width(judged)
        regions, outside = regions_of(grid, options.regions or default_regions(grid, prescribed))
        if outside:
            log.warning("Left out the regions %s, which have no cell on %s", ", ".join(outside), grid.describe())
        weights = region_weights(grid, regions, mask, prescribed or 0)
    stores, bins = (observed, judged, audited, runs, beside), (grid, mask, tuple(regions), weights)
    found = variables, skipped, alignment, empty, recipe, overlap, given, seas
    return Inputs(options, name, *stores, *bins, *found, held=tuple(kept))


def _scenarios(given: Mapping) -> Scenarios:
    """Stores of scenarios, opened. Raises `ValueError` naming the path of one that does not open."""
    opened = {
        kind: {scenario: [_truth(path) for path in paths] for scenario, paths in given[kind].items()}
        for kind in ("train", "held_out")
    }
    forecasts = given.get("forecasts") or {}
    opened["forecasts"] = {n: {s: _forecast(path) for s, path in own.items()} for n, own in forecasts.items()}
    opened["control"] = [_truth(path) for path in given.get("control") or ()]
    options = ScenarioOptions.of({name: value for name, value in given.items() if name not in opened})
    return Scenarios(**opened, options=options)


def _name(source) -> str:
    if not isinstance(source, xr.Dataset):
        return str(source)
    return str(source.encoding.get("source") or source.attrs.get("source") or "a dataset in memory")


def prescribed_width(forecasts: Mapping[str, xr.Dataset]) -> int | None:
    """Cells of the frame that driving data prescribe in forecasts of a limited area, the most of them.

    0 for driving data outside the domain, None where no forecast has any at its boundary.
    """
    records = [told for d in forecasts.values() if (told := boundary_told(d.attrs))]
    widths = [int(record["width"]) if record["place"] == "inside" else 0 for record in records]
    return max(widths, default=None)


def default_regions(grid: Grid, prescribed: int | None) -> tuple[str, ...] | None:
    """Of forecasts with driving data at the boundary the interior, and its cells near the boundary and in the centre."""
    if grid.is_global() or grid.is_points or prescribed is None:
        return None
    return ("interior" if prescribed else "domain", "near-boundary", "centre")


def _truth(source) -> xr.Dataset:
    if not isinstance(source, xr.Dataset):
        return open_truth(source)
    return in_nanoseconds(check_times(source, _name(source)))


def _analyses(source) -> xr.Dataset:
    """The analyses of a path or dataset as Dask arrays, of which no more is read than is asked for."""
    return (
        source.chunk(time=1) if isinstance(source, xr.Dataset) else in_nanoseconds(open_analysis(source, {"time": 1}))
    )


def _judged(source, truth: xr.Dataset) -> xr.Dataset:
    return on_domain(_forecast(source.source), grid_of(truth)) if isinstance(source, Driving) else _forecast(source)


def _forecast(source) -> xr.Dataset:
    if not isinstance(source, xr.Dataset):
        return open_any_forecast(source)
    if is_downscaled_analysis(source):
        return interval_forecasts(in_nanoseconds(source))
    return in_nanoseconds(check_forecast(from_disk_names(source, _name(source)), _name(source)))


def _alignment(truth: xr.Dataset, forecasts: dict, options: VerifyOptions, name: str) -> Alignment:
    times = {name: (dataset["init_time"].values, dataset["lead_time"].values) for name, dataset in forecasts.items()}
    if not times:
        times = {"persistence": (truth["time"].values, _persistence_leads(truth, options, name))}
    return align(_present(truth), times, *options.period)


def _without_empty(alignment: Alignment, variables, forecasts: dict) -> tuple[Alignment, dict[str, int]]:
    """The alignment without the initial times at which a forecast holds nothing, and how many of those each has.

    Stores of ours are finished: every initial time of theirs is written. Raises `ValueError` when none is left.
    """
    marks = {
        name: empty_inits(variables, name, alignment.init_time)
        for name, dataset in forecasts.items()
        if "emulator_schema" not in dataset.attrs
    }
    left = np.flatnonzero(~np.any([np.zeros(len(alignment.init_time), bool), *marks.values()], axis=0))
    if not len(left):
        raise ValueError(f"Expected values in the forecasts, got none at any initial time of {', '.join(marks)}")
    return alignment.at(left), {name: int(empty.sum()) for name, empty in marks.items() if empty.any()}


def _present(truth: xr.Dataset) -> dict:
    """Time -> position, of the times that the truth has."""
    missing = truth["missing"].values if "missing" in truth else np.zeros(truth.sizes["time"], bool)
    return {time: index for index, time in enumerate(truth["time"].values) if not missing[index]}


def _persistence_leads(truth: xr.Dataset, options: VerifyOptions, name: str) -> np.ndarray:
    hours = options.persistence_lead_hours
    step = TimeStep(months=int(truth.attrs.get("time_step_months", 0)))
    if step.months and truth.sizes["time"] > 1:
        if odd := [months for months in options.persistence_lead_months if months % step.months]:
            raise ValueError(f"Expected persistence_lead_months as multiples of {step.months}, got {odd[0]}")
        most = min(truth.sizes["time"] - 1, max(1, PERSISTENCE_MONTHS // step.months))
        return np.array(options.persistence_lead_months or step.leads(np.arange(1, most + 1)), np.int64)
    if not hours:
        step = float(truth.attrs.get("time_step_seconds", 0)) / 3600
        if truth.sizes["time"] < 2 or not step:
            raise ValueError(f"Expected at least 2 times in {name} to score persistence, got {truth.sizes['time']}")
        count = min(truth.sizes["time"] - 1, int(PERSISTENCE_DAYS * 24 / step))
        hours = step * np.arange(1, count + 1)
    return np.round(np.asarray(hours, np.float64) * 3.6e12).astype("timedelta64[ns]")


def _climatology(truth: xr.Dataset, alignment: Alignment, options: VerifyOptions) -> tuple[climatology.Recipe, bool]:
    """The climatology's recipe, and whether its record holds times that are verified."""
    present = np.array(sorted(_present(truth).values()))
    starts = interval_starts(truth)
    asked = *options.climatology, None if starts is None else starts[present]
    chosen = climatology.record(truth["time"].values[present], alignment.init_time[0], *asked)
    recipe = climatology.recipe(truth["time"], present[chosen], int(truth.attrs.get("time_step_months", 0)))
    verified = np.unique(alignment.truth_valid[alignment.truth_valid >= 0])
    overlap = bool(len(np.intersect1d(recipe.positions, verified)))
    if overlap and options.climatology == (None, None):
        log.warning(
            "the truth has less than %d days before the first initial time %s: the climatology is made from all of it, "
            "verified times included, which favours it; give a period under climatology",
            climatology.SHORTEST_DAYS,
            alignment.init_time[0],
        )
    elif overlap:
        log.warning("the climatology's period holds verified times, which favours it")
    return recipe, overlap
