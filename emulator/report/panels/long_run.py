"""One long run: does the emulator stay in a climate of its own, or drift away and blow up?"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from emulator.planet.calendar import lead_seconds
from emulator.planet.vertical import vertical_of
from emulator.report.display import unit_and_factor
from emulator.report.panel import panel
from emulator.report.style import BLUE, DECADES, GREY, WIDTH, Panel, plain_ticks, svg
from emulator.report.view import View
from emulator.store.masks import counted, mask_is_known
from emulator.store.schema import grid_of
from emulator.verify.budgets import Ledger

BLOCK_BYTES = 2**26
GRAVITY = 9.80665  # turns mass into the pressure it exerts, for display
MEANS = 4  # global means shown
WANTED = ("temperature", "surface_pressure", "mean_total_precipitation_rate", "specific_humidity")


@panel("long-run", 10, needs=("long_run",))
def of_view(view: View) -> Panel | None:
    """`long_run_panel` of the view's long run."""
    run = view.long_run
    total, _ = Ledger(run, run).read({"init_time": 0}, "lead_time")
    return long_run_panel(view, run, grid_of(run).area, total.get("dry_air"))


def long_run_panel(view: View, run: xr.Dataset, area: np.ndarray, dry_air: np.ndarray | None) -> Panel | None:
    """Global means and the largest departure against time, for the first initial time of `run`.

    `run`: forecast dataset under in-memory names; `area`: cell areas summing to 1, of the shape of the grid;
    `dry_air`: global mean dry air mass in kg m-2, `(lead,)`, or None. None where it shares no channel with the scores.
    """
    lead = lead_seconds(run["lead_time"].values) / 86400
    channels = _channels(view, run)
    if not channels or len(lead) < 2:
        return None
    figures = {c: _reduce(*_field(view, run, c), area, view, c) for c in channels}
    shown = channels[:MEANS]
    figure = Figure(figsize=(WIDTH, 5.0))
    panels = figure.subplots(2, 3).ravel()
    for axis, channel in zip(panels, shown, strict=False):
        _global_mean(axis, view, channel, lead, figures[channel][0], run)
    largest = np.max([departure for _, departure in figures.values()], axis=0)
    reached = max(float(view.scores["climatology_extreme"].values[view.position(c)]) for c in channels)
    _departure(panels[len(shown)], lead, largest, reached)
    _mass(panels[len(shown) + 1], dry_air, lead)
    for axis in panels[len(shown) + 2 :]:
        axis.set_visible(False)
    end = float(largest[-1])
    return Panel(
        f"A run of {lead[-1]:.0f} days",
        "Global means of the run (blue) and of the reference over its record (grey, where its calendar meets the run). "
        "Last: the largest departure of any cell and field from its mean, in standard deviations, "
        "with the reference's own largest dashed; dry air as pressure.",
        "No forecast can be right after two weeks, but an emulator should keep to a plausible climate. A rising line of "
        "departures far above the dashed one is a model that blows up.",
        svg(
            figure,
            f"Global means and largest departure over {lead[-1]:.0f} days; at the end {end:.3g} deviations.",
            "long",
        ),
    )


def _channels(view, run):
    shared = [c for c in view.headline if view.variable(c) in run.data_vars and mask_is_known(run, view.variable(c))]
    first = {view.variable(c): c for c in reversed(shared)}  # one level of each variable
    return [first[name] for name in (*WANTED, *(v for v in first if v not in WANTED)) if name in first]


def _field(view, run, channel):
    """The first forecast's field on the channel's level, `(lead_time, *space)`, and where it exists; None: everywhere."""
    array, exists = run[view.variable(channel)].isel(init_time=0), counted(run, view.variable(channel))
    if "member" in array.dims:
        array = array.isel(member=0)
    if (axis := vertical_of(array.dims)) is not None:
        value = float(view.scores["level"].values[view.position(channel)])
        place = int(np.abs(array[axis].values - value).argmin())
        array, exists = array.isel({axis: place}), None if exists is None else exists[place]
    return array, exists


def _reduce(array, exists, area, view, channel):
    if exists is not None:
        area = np.where(exists, area, 0.0) / area[exists].sum()
    at = view.position(channel)
    mean, deviation = (float(view.scores[f"climatology_{name}"].values[at]) for name in ("mean", "std"))
    block = max(1, BLOCK_BYTES // (8 * area.size))
    means, departures = [], []
    for start in range(0, array.sizes["lead_time"], block):
        values = np.asarray(array.isel(lead_time=slice(start, start + block)).values, np.float64)
        values = values if exists is None else np.where(exists, values, mean)  # which has no departure, nor any weight
        means.append(np.sum(values * area, axis=tuple(range(1, values.ndim))))
        departures.append(np.abs(values - mean).max(axis=tuple(range(1, values.ndim))) / (deviation or 1.0))
    return np.concatenate(means), np.concatenate(departures)


def _global_mean(axis, view, channel, lead, means, run):
    unit, factor = unit_and_factor(str(view.scores["channel_units"].values[view.position(channel)]))
    record = view.scores["record_mean"].isel(channel=view.position(channel)).values * factor
    time = view.scores["record_time"].values
    start = run["init_time"].values[0]
    if time.dtype != object and start.dtype != object:
        # The record lies before the run: carried on by whole years, the same dates fall together.
        offset = (time - start) / np.timedelta64(1, "D")
        for year in range(-2, 4):
            moved = offset + 365.25 * year
            inside = (moved >= 0) & (moved <= lead[-1])
            order = np.argsort(moved[inside])
            axis.plot(moved[inside][order], record[inside][order], color=GREY, linewidth=0.7)
    axis.plot(lead, means * factor, color=BLUE, linewidth=1.2)
    axis.set(title=f"{view.title(channel)} [{unit}]", xlabel="days", xlim=(0, lead[-1]))


def _departure(axis, lead, largest, reached):
    axis.plot(lead, largest, color=BLUE, linewidth=1.2)
    axis.axhline(reached, color=GREY, linestyle="--", linewidth=1.0)
    axis.set(yscale="log", title="Largest departure [standard deviations]", xlabel="days", xlim=(0, lead[-1]))
    plain_ticks(axis.yaxis, DECADES)


def _mass(axis, dry_air, lead):
    if dry_air is None:
        axis.set_visible(False)
        return
    axis.plot(lead, (dry_air - dry_air[0]) * GRAVITY, color=BLUE)
    axis.axhline(0, color=GREY, linewidth=0.6)
    axis.set(title="Dry air, change of the global mean [Pa]", xlabel="days", xlim=(0, lead[-1]))
