"""Where the error lies: by region, by season and hour, and channel by channel against the baselines."""

import html
from collections.abc import Callable

import numpy as np
import xarray as xr

from emulator.planet.calendar import TimeStep, valid_times
from emulator.report.display import (
    coloured_cell,
    head_cells,
    html_table,
    lead_days,
    note,
    number,
    percent,
    region_name,
    table,
    unit_cell,
)
from emulator.report.panel import panel
from emulator.report.view import View

LEADS = (0.5, 1, 2, 3, 5, 7, 10)
FULL_COLOUR = 60.0  # percent
WIDE = 14  # columns beyond which a comparison is set smaller, to fit the page
SEASONS = {"December to February": (12, 1, 2), "March to May": (3, 4, 5), "June to August": (6, 7, 8)}
SEASONS |= {"September to November": (9, 10, 11)}


@panel("error", 50)
def breakdown(view: View) -> list[str]:
    """The tables of this file."""
    parts = [table("Error by region", region_table(view))] if len(view.regions) > 1 else []
    if by_time := strata_table(view):
        parts.append(table("Error by season and hour", by_time))
    if view.forecasts:
        about = (
            "Blue: smaller error than the baseline; orange: larger. A dot marks differences that are significant at a false "
            "discovery rate of 5 %."
        )
        parts.append("<h3>Scorecard</h3>" + note(about) + table("Scorecard", scorecard(view)))
    return parts


def scorecard(view: View) -> str:
    """HTML table of RMSE differences in percent to the baselines: blue is better than the baseline."""

    def against(what, baseline, channel):
        return view.against(what, baseline, view.main, channel)

    groups = {f"against {baseline}": baseline for baseline in view.baselines}
    return card(view, groups, against, view.table_leads(LEADS), f"RMSE of {view.main}", FULL_COLOUR)


def card(view: View, groups: dict, against: Callable, leads: list[int], what: str, full_colour: float) -> str:
    """HTML table of coloured differences in percent: rows are channels, columns leads, side by side for each group.

    `groups`: head -> group; `against("difference" or "significant", group, channel)` -> `(lead,)`.
    """
    top = "<td></td>".join(f'<th scope="colgroup" colspan="{len(leads)}">{html.escape(head)}</th>' for head in groups)
    under = "<td></td>".join(head_cells(lead_days(view.leads[i], view.unit) for i in leads) for _ in groups)
    rows = []
    for channel in map(str, view.scores["channel"].values):
        parts = []
        for group in groups.values():
            difference, sure = (against(name, group, channel) for name in ("difference", "significant"))
            parts.append("".join(coloured_cell(difference[i], bool(sure[i]), full_colour) for i in leads))
        cells = '<td class="gap"></td>'.join(parts)
        rows.append(f'<th scope="row">{html.escape(view.title(channel))}</th>{cells}')
    kind = "card wide" if full_colour < FULL_COLOUR and len(groups) * len(leads) > WIDE else "card"
    caption = f"{html.escape(what)}, difference in %"
    return html_table(f"{top}</tr><tr><td></td>{under}", rows, caption, kind)


def region_table(view: View, lead_days: float = 3) -> str:
    """HTML table: RMSE of the main forecast, and its difference to persistence, by region at one lead."""
    lead = view.nearest_lead(lead_days)
    rows = []
    for channel in view.headline:
        cells = []
        for region in view.regions:
            value = view.get("rmse", view.main, channel, region)[lead]
            change = view.against("difference", "persistence", view.main, channel, region)[lead]
            difference = change if view.forecasts else np.nan
            beside = f'<span class="interval">{percent(difference)} vs pers.</span>' if np.isfinite(difference) else ""
            cells.append(f'<td class="value">{number(value)}{beside}</td>')
        rows.append(unit_cell(view.title(channel), view.units(channel)) + "".join(cells))
    return html_table(
        head_cells(map(region_name, view.regions)), rows, f"RMSE at {view.unit} {view.leads[lead]:g} by region"
    )


def strata_table(view: View, lead_days: float = 3) -> str | None:
    """HTML table: RMSE of the main forecast by season and by hour of the initial time; None for one of each."""
    lead = view.nearest_lead(lead_days)
    error = view.scores["squared_error"].isel(lead_time=lead).sel(region=view.regions[0])
    init = view.scores["init_time"].values
    step = TimeStep(months=int(view.scores.attrs.get("time_step_months", 0)))
    groups = _groups(init, view.scores["lead_time"].values[lead], step)
    if len(groups) < 2:
        return None
    head = "".join(
        f'<th scope="col">{html.escape(name)}<span class="interval">{index.sum()} times</span></th>'
        for name, index in groups
    )
    rows = []
    for channel in view.headline:
        at = error.isel(channel=view.position(channel))
        ours, theirs = (at.sel(forecast=name).transpose("init_time").values for name in (view.main, "persistence"))
        cells = []
        for _, index in groups:
            judged = index & np.isfinite(theirs)  # where there is a truth: a forecast that is missing there has failed
            value, bar = (np.sqrt(np.mean(x[judged])) if judged.any() else np.nan for x in (ours, theirs))
            beside = f'<span class="interval">{percent(100 * (value / bar - 1))} vs pers.</span>' if bar > 0 else ""
            cells.append(f'<td class="value">{number(value * view.factor(channel))}{beside}</td>')
        rows.append(unit_cell(view.title(channel), view.units(channel)) + "".join(cells))
    caption = f"RMSE at {view.unit} {view.leads[lead]:g} by season of the valid time and hour of the initial time"
    return html_table(head, rows, caption, "narrow")


def _groups(init, lead, step: TimeStep) -> list[tuple[str, np.ndarray]]:
    """Names of seasons and hours with the initial times that belong to each; means over months by their middles."""
    valid = valid_times(init, np.array([lead]))[:, 0]
    valid = xr.DataArray(step.middles(valid) if step.months else valid, dims="time").dt.month.values
    hour = xr.DataArray(init, dims="time").dt.hour.values
    seasons = [(name, np.isin(valid, months)) for name, months in SEASONS.items()]
    hours = [(f"from {h:02d} UTC", hour == h) for h in np.unique(hour)]
    seasons, hours = ([(n, i) for n, i in part if i.any()] for part in (seasons, hours))
    return (seasons if len(seasons) > 1 else []) + (hours if len(hours) > 1 else [])
