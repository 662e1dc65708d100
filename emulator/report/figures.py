"""Figures for a notebook: maps of a field, errors against lead, and what each step leaves of the budgets."""

import datetime

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from emulator.planet.calendar import TimeStep, valid_times
from emulator.planet.grid import Grid
from emulator.planet.vertical import vertical_of
from emulator.report.display import channel_title, date_and_hour, lead_label, unit_and_factor
from emulator.report.maps import Frame, colour_bar, colours_of, frame, symmetric
from emulator.report.style import DIVERGING, WIDTH, figures
from emulator.report.view import View
from emulator.store.forecast import in_memory_names
from emulator.store.masks import existing
from emulator.store.schema import ROWS, grid_of, level_label

KINDS = ("map", "curves", "budgets")


def plot(
    dataset: xr.Dataset,
    variable: str | None = None,
    level: float | None = None,
    lead=None,
    init=None,
    member: int | None = None,
    truth: xr.Dataset | None = None,
    kind: str = "map",
) -> Figure:
    """A figure of an analysis, a forecast or scores.

    "map": the field `variable` (by default the first) of an analysis or a forecast, on the level of its axis nearest to
    `level` in the store's own unit, or in hPa where the store has sigma levels (by default the middle one), at the initial
    time, or time, `init` (the first) and the lead nearest to `lead` (the last; a timedelta or text such as "3D"); of an
    ensemble `member` by position, by default the mean. With `truth`, an analysis, the truth at the valid time and the
    difference stand beside it. Where the field does not exist the map is grey.
    Coasts are those of `CARTOPY_DATA_DIR`, where it holds some, or of the dataset's land-sea mask; nothing is fetched from
    the network.

    "curves": the root mean square error of scores against lead, of `variable` where it is given, at `level`. "budgets": what
    each step leaves unexplained, of scores with audited budgets. Raises `ValueError` for what the dataset does not hold.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected a kind of figure among {', '.join(KINDS)}, got {kind!r}")
    with figures():
        return (
            _map(dataset, variable, level, lead, init, member, truth)
            if kind == "map"
            else _scores(dataset, variable, level, kind)
        )


def _scores(scores: xr.Dataset, variable, level, kind) -> Figure:
    from emulator.report.panels.conservation import residual_panel
    from emulator.report.panels.errors import error_panel

    needed = {"curves": "rmse", "budgets": "budget_relative"}[kind]
    if needed not in scores:
        raise ValueError(f"Expected scores with {needed} to draw {kind}, got {_listed(scores)}")
    if kind == "budgets" and "audit_source" not in scores.dims:  # as `emulator.budgets` gives them
        scores = _as_scores(scores)
    view = View(scores)
    if kind == "budgets":
        return residual_panel(view).markup.figure
    if variable is not None:
        channels = np.flatnonzero(scores["variable"].values == variable)
        if not len(channels):
            raise ValueError(
                f"Expected scores of {variable!r}, got those of {', '.join(sorted(set(scores['variable'].values)))}"
            )
        if level is not None:
            of_the_atmosphere = bool(np.isfinite(scores["pressure"].values[channels]).all())
            channels = channels[[_nearest(scores["level"].values[channels], level, of_the_atmosphere)]]
        view.headline = [str(name) for name in scores["channel"].values[channels]]
    return error_panel(view).markup.figure


def _as_scores(budgets: xr.Dataset) -> xr.Dataset:
    """Budgets of one dataset as scores of a forecast of which nothing else is known."""
    names = {name: f"audit_{name}" for name in ("init_time", "lead_time")}
    scores = budgets.rename(names).expand_dims(audit_source=["forecast"])
    scores["headline_rank"] = ("channel", np.zeros(0, int))
    leads = budgets["lead_time"].values
    return scores.assign_coords(forecast=["forecast"], region=["global"], lead_time=leads, channel=np.zeros(0, str))


def _map(dataset, variable, level, lead, init, member, truth) -> Figure:
    dataset, grid = in_memory_names(dataset), None
    name = variable or next((str(n) for n, a in dataset.data_vars.items() if a.ndim > 2), None)
    if name is None or name not in dataset or not ROWS & set(dataset[name].dims):
        raise ValueError(f"Expected a field on a grid, got {name!r} among {_listed(dataset)}")
    grid = grid_of(dataset)
    field, when, valid = _moment(dataset[name], lead, init, member)
    field, label = _at_level(dataset, field, level)
    field = existing(field, dataset, None if truth is None else in_memory_names(truth))
    unit, factor = unit_and_factor(str(dataset[name].attrs.get("units", "")))
    fields, titles = [field.values * factor], [when]
    if truth is not None:
        truth = in_memory_names(truth)
        if not grid.same_as(grid_of(truth)):
            raise ValueError(f"Expected a truth on the grid {grid.describe()}, got {grid_of(truth).describe()}")
        if name not in truth or valid not in truth["time"].values:
            raise ValueError(f"Expected {name} at {date_and_hour(valid)} in the truth, got none there")
        observed = truth[name].sel(time=valid)
        observed = observed.mean("member") if "member" in observed.dims else observed
        if (axis := vertical_of(observed.dims)) is not None:
            observed = observed.sel({axis: field[axis]}, method="nearest")
        observed = existing(observed, truth)
        fields.append(observed.transpose(*field.dims).values * factor)
        fields.append(fields[0] - fields[1])
        titles = [when, f"truth, {date_and_hour(valid)}", "difference"]
    return _draw(dataset, grid, (name, label, unit), fields, titles)


def _moment(field: xr.DataArray, lead, init, member) -> tuple[xr.DataArray, str, np.datetime64]:
    """The field at one time and of one member, that moment in words, and its valid time."""
    if "member" in field.dims:
        field = field.mean("member", keep_attrs=True) if member is None else field.isel(member=member)
    axis = "init_time" if "init_time" in field.dims else "time"
    if axis not in field.dims:
        return field, "", np.datetime64("NaT")
    field = field.isel({axis: 0 if init is None else _place(field[axis].values, init)})
    start = field[axis].values[()]
    if "lead_time" not in field.dims:
        return field, date_and_hour(start), start
    leads = field["lead_time"].values
    if leads.dtype.kind in "iu" and lead is not None:
        wanted = TimeStep.parse(lead).months if isinstance(lead, str) else int(lead)
        place = int(np.abs(leads - wanted).argmin())
    else:
        place = -1 if lead is None else int(np.abs(leads - _timedelta(lead)).argmin())
    words = f"{date_and_hour(start)} + {lead_label(leads[place])}"
    return field.isel(lead_time=place), words, valid_times(np.array([start]), leads[[place]])[0, 0]


def _place(times: np.ndarray, wanted) -> int:
    """Position of a time, given as one or as text, in any calendar. Raises `ValueError` naming the first and the last."""
    try:
        moment = np.datetime64(wanted) if isinstance(wanted, str | datetime.datetime) else wanted
    except ValueError:  # a day of another calendar, or none
        moment = wanted
    found = np.flatnonzero([date_and_hour(time) == date_and_hour(moment) for time in times])
    if not len(found):
        first, last = (date_and_hour(time) for time in times[[0, -1]])
        raise ValueError(f"Expected a time from {first} to {last} that the dataset has, got {wanted}")
    return int(found[0])


def _timedelta(lead) -> np.timedelta64:
    import pandas

    try:
        return pandas.Timedelta(lead).to_timedelta64()
    except ValueError:
        raise ValueError(f"Expected a lead such as '3D' or '6h', got {lead!r}") from None


def _at_level(dataset: xr.Dataset, field: xr.DataArray, level) -> tuple[xr.DataArray, str]:
    if (axis := vertical_of(field.dims)) is None:
        return field, ""
    values = field[axis].values
    place = len(values) // 2 if level is None else _nearest(values, level, axis == "level")
    return field.isel({axis: place}), level_label(dataset, axis, place)


def _nearest(levels: np.ndarray, level: float, of_the_atmosphere: bool) -> int:
    """Position of the level nearest to one in the same unit; sigma levels are those of a surface at 1000 hPa."""
    sigma = of_the_atmosphere and levels.max() <= 1 < level
    return int(np.abs((1000 * levels if sigma else levels) - level).argmin())


def _draw(dataset, grid: Grid, what: tuple[str, str, str], fields: list[np.ndarray], titles: list[str]) -> Figure:
    (name, label, unit), columns = what, len(fields)
    points = grid.is_points
    shared = None if points else frame(dataset)
    figure = Figure(figsize=(WIDTH if columns > 1 else 0.6 * WIDTH, 2.3 if columns > 1 else 3.4))
    axes = figure.subplots(1, columns, squeeze=False, subplot_kw={} if points else {"projection": shared.projection})[0]
    common = colours_of(name, np.concatenate([field.ravel() for field in fields[:2]]))
    for axis, field, title, place in zip(axes, fields, titles, range(columns), strict=True):
        style = common if place < 2 else symmetric(field, DIVERGING)
        image = _field(axis, dataset, shared, field, style)
        axis.set_title(title)
        if place == min(1, columns - 1):
            colour_bar(figure, image, axes[:2], unit)
        elif place == 2:
            colour_bar(figure, image, axis, unit)
    figure.suptitle(channel_title(name, label), x=0.01, ha="left", fontweight="bold")
    return figure


def _field(axis, dataset, shared: Frame | None, field, style):
    if shared is not None:
        return shared.draw(axis, field, style)
    return axis.scatter(dataset["longitude"].values, dataset["latitude"].values, c=field, s=4, **style)


def _listed(dataset: xr.Dataset) -> str:
    return ", ".join(map(str, dataset.data_vars)) or "no variables"
