"""What leaves a limited area by its sides, from driving data: the file that `emulator.store.outflow` reads.

Of a budget with the divergence of its transport among the driving data's fields it is that field's mean over the domain. Of
others it is what the driving data's own budget leaves unexplained there, with the sign turned round: the change of the
domain's content less what passes the top and the ground. Driving data of another grid are interpolated to the domain's cells.
"""

from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.whole_file import write_netcdf
from emulator.parallel.tasks import Report
from emulator.planet.calendar import lead_seconds, seconds_between, select_period, valid_times
from emulator.planet.grid import Grid
from emulator.planet.quantities.energy import EnergyForm
from emulator.planet.quantities.registry import Quantity, quantity
from emulator.store import outflow as stored
from emulator.store.analysis import open_analysis
from emulator.store.either import open_either
from emulator.store.schema import entry, grid_of
from emulator.verify import budgets
from emulator.verify.driving import on_domain
from emulator.verify.options import OutflowOptions

USUAL = OutflowOptions()
BLOCK_BYTES = 2**26  # of one field of an analysis that is read and interpolated at once


def write_outflow(
    store: Path,
    domain: Path,
    output: Path,
    options: OutflowOptions = USUAL,
    static: Path | None = None,
    period: tuple = (None, None),
    report: Report = lambda done, total, remark="": None,
) -> None:
    """Writes what leaves a domain by its sides over every step of driving data.

    Args:
      store: the driving data, an analysis or forecasts. domain: an analysis of the limited area, whose cells they are; cloud
        water, snowfall and other fields that not all data have count where it has them. static: analysis with the static
        fields of forecasts that lack them, on their grid.
      period: first and last time of an analysis, both included.
    Raises `ValueError` as `outflow` does.
    """
    driving, own = open_either(store), open_analysis(domain)
    driving = select_period(driving, *period) if "lead_time" not in driving.dims and any(period) else driving
    found = outflow(driving, own, options, None if static is None else open_analysis(static), report, store)
    for axis in {"time", "init_time"} & set(found.dims):
        found[axis].encoding = {"units": "hours since 1900-01-01"}  # which CF wants of a time and its bounds together
    write_netcdf(found, output)


def outflow(
    driving: xr.Dataset,
    domain: xr.Dataset,
    options: OutflowOptions = USUAL,
    static: xr.Dataset | None = None,
    report: Report = lambda done, total, remark="": None,
    name: object = "the driving data",
) -> xr.Dataset:
    """Means over steps of what leaves a domain by its sides, per unit of its area, outward positive.

    Raises `ValueError` for driving data that do not cover the domain, lack what a budget needs, or whose fluxes are no means
    over their steps, and for static fields on another grid.
    """
    grid, series = grid_of(domain), {}
    form = EnergyForm(options.energy, options.heat_capacity, options.kinetic)
    chosen = {each: quantity(each) for each in options.budgets}
    wanted = {n for q in chosen.values() for n in (*q.optional, *q.optional_fluxes)} & set(domain.data_vars)
    wanted |= {n for q in chosen.values() for n in q.needed}
    wanted |= {n for each in options.divergence for n in quantity(each).divergence}
    if static is not None and not grid_of(static).same_as(grid_of(driving)):
        raise ValueError(
            f"Expected static fields on the grid of {name}, {grid_of(driving).describe()}, got {grid_of(static).describe()}"
        )
    beside = {} if static is None else {n: static[n] for n in static.data_vars if n not in driving}
    used = [n for n in driving.data_vars if n in wanted or not set(grid_of(driving).dims) & set(driving[n].dims)]
    _check_means(driving, [n for q in chosen.values() for n in (*q.fluxes, *q.optional_fluxes) if n in used], name)
    driving = driving[used].assign({n: field for n, field in beside.items() if n in wanted})
    forecasts = "lead_time" in driving.dims
    levels = driving.sizes.get("level", 1)
    many = max(1, BLOCK_BYTES // (4 * levels * int(np.prod(grid_of(driving).shape))))
    axis, size = ("init_time", 1) if forecasts else ("time", many)
    parts, total = [], driving.sizes[axis]
    for first in range(0, total, size):
        piece = on_domain(driving.isel({axis: slice(first, first + size)}), grid, static=True)
        ledger = budgets.Ledger(piece, piece, form)
        lacking = {n: ledger.skipped[n] for n in chosen if n not in options.divergence and n in ledger.skipped}
        if lacking:
            reasons = "; ".join(f"{n}: {why}" for n, why in lacking.items())
            raise ValueError(f"Expected the fields of budgets in {name}, got too few ({reasons})")
        held, gained = ledger.read({"init_time": 0} if forecasts else {}, "lead_time" if forecasts else "time")
        rates = {n: _divergence(piece, n, quantity(n), grid, name) for n in options.divergence}
        parts.append((held, gained, rates))
        report(min(first + size, total), total)
    joined = np.stack if forecasts else np.concatenate
    held, gained, rates = ({n: joined([part[k][n] for part in parts]) for n in parts[0][k]} for k in range(3))
    seconds, axes = _seconds(driving)
    for each in chosen:
        series[each] = rates[each][..., 1:] if each in rates else _unexplained(each, held, gained, seconds)
    return _dataset(series, axes, options, form, domain, driving.attrs.get("fingerprint") or str(name))


def _unexplained(name: str, held: dict, gained: dict, seconds: np.ndarray) -> np.ndarray:
    """What a budget loses beside its fluxes, per second."""
    change = np.diff(held[name]) / seconds
    return (gained[name][..., 1:] if name in gained else 0.0) - change


def _divergence(piece: xr.Dataset, name: str, known: Quantity, grid: Grid, driving: object) -> np.ndarray:
    """Mean over the domain of the divergence of a quantity's transport at all times, `(time or lead,)`."""
    if not known.divergence or (absent := [n for n in known.divergence if n not in piece]):
        what = ", ".join(absent) if known.divergence else "a field, which its declaration does not name"
        raise ValueError(f"Expected the divergence of the transport of {name} in {driving}, it lacks {what}")
    _check_means(piece, known.divergence, driving)
    for field in known.divergence:
        if (units := entry(piece, field).units) != known.rate_units:
            raise ValueError(f"Expected {field} in {known.rate_units}, got {units} in {driving}")
    along = "lead_time" if "lead_time" in piece.dims else "time"
    fields = {n: piece[n].isel({"init_time": 0, "member": 0}, missing_dims="ignore") for n in known.divergence}
    means = {n: grid.mean(field.transpose(along, *grid.dims).values.astype(np.float64)) for n, field in fields.items()}
    return sum(sign * means[n] for n, sign in known.divergence.items())


def _check_means(dataset: xr.Dataset, names, driving: object) -> None:
    for name in names:
        if name in dataset and (cell := entry(dataset, name).cell) != "mean":
            raise ValueError(f"Expected {name} as a mean over the step in {driving}, got its time cell {cell!r}")


def _seconds(driving: xr.Dataset) -> tuple[np.ndarray, dict]:
    """Lengths of steps, and what the axes of a file of theirs are: the ends, and both ends."""
    axis = "lead_time" if "lead_time" in driving.dims else "time"
    points, step = driving[axis].values, float(driving.attrs.get("time_step_seconds", 0))
    if len(points) < 2:
        raise ValueError(f"Expected driving data with steps, got one {axis}")
    if axis == "lead_time" and step and not np.allclose(lead_seconds(points[1:]) - lead_seconds(points[:-1]), step):
        raise ValueError(
            f"Expected driving forecasts with all leads, a step of {step / 3600:g} h apart, got some left out"
        )
    axes = {axis: points[1:], f"{axis}_bounds": np.stack([points[:-1], points[1:]], 1)}
    if axis == "time":
        return seconds_between(points), axes
    inits = driving["init_time"].values
    seconds = np.stack([seconds_between(row) for row in valid_times(inits, points)])
    return seconds, {"init_time": inits, **axes}


def _dataset(series: dict, axes: dict, options: OutflowOptions, form: EnergyForm, domain: xr.Dataset, driving: str):
    dims = tuple(name for name in axes if not name.endswith("_bounds"))
    data = {}
    for name, values in series.items():
        attributes = stored.attributes_of(name)
        given = name in options.divergence
        attributes["comment"] = (
            "mean of the driving data's divergence of vertically integrated transport"
            if given
            else "what the driving data's own budget leaves unexplained, with its imbalance"
        )
        if name == "energy" and not given:
            attributes["form"] = stored.told_form(vars(form))
        data[stored.PREFIX + name] = (dims, values, attributes)
    last = dims[-1]
    data[f"{last}_bounds"] = ((last, "bounds"), axes[f"{last}_bounds"])
    # of leads without CF's attribute: xarray would leave out the bounds' units, which it then does not find again
    coordinates = {name: (name, axes[name], {"bounds": "time_bounds"} if name == "time" else {}) for name in dims}
    grid = grid_of(domain)
    attributes = {
        "title": "what leaves a domain by its sides",
        "Conventions": "CF-1.11",
        "emulator_schema": stored.SCHEMA,
        "domain": grid.describe(),
        stored.CELLS: stored.cells_of(grid),
        "driving": driving,
    }
    return xr.Dataset(data, coordinates, attributes)
