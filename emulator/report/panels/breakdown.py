"""Where the error lies: by region, by season and hour, and channel by channel against the baselines."""

import html

import numpy as np
import xarray as xr

from emulator.report.display import coloured_cell, lead_days, number, percent, region_name, unit_cell
from emulator.report.panel import panel
from emulator.report.template import note, table
from emulator.report.view import View
from emulator.verify.align import valid_times

LEADS = (0.5, 1, 2, 3, 5, 7, 10)
FULL_COLOUR = 60.0  # percent
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
    """HTML table of RMSE differences in percent: rows are channels, columns leads; blue is better than the baseline."""
    leads = view.table_leads(LEADS)
    top = "<td></td>".join(f'<th scope="colgroup" colspan="{len(leads)}">against {b}</th>' for b in view.baselines)
    under = "<td></td>".join(
        "".join(f'<th scope="col">{lead_days(view.leads[i])}</th>' for i in leads) for _ in view.baselines
    )
    rows = []
    for channel in map(str, view.scores["channel"].values):
        cells = '<td class="gap"></td>'.join(_cells(view, baseline, channel, leads) for baseline in view.baselines)
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}</tr>')
    return (
        f'<table class="card"><caption>RMSE of {html.escape(view.main)}, difference in %</caption>'
        f"<thead><tr><td></td>{top}</tr><tr><td></td>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(view, baseline, channel, leads):
    difference = view.against("difference", baseline, view.main, channel)
    sure = view.against("significant", baseline, view.main, channel)
    return "".join(coloured_cell(difference[i], bool(sure[i]), FULL_COLOUR) for i in leads)


def region_table(view: View, lead_days: float = 3) -> str:
    """HTML table: RMSE of the main forecast, and its difference to persistence, by region at one lead."""
    lead = view.nearest_lead(lead_days)
    head = "".join(f'<th scope="col">{html.escape(region_name(region))}</th>' for region in view.regions)
    rows = []
    for channel in view.headline:
        cells = []
        for region in view.regions:
            value = view.get("rmse", view.main, channel, region)[lead]
            difference = (
                view.against("difference", "persistence", view.main, channel, region)[lead]
                if view.forecasts
                else np.nan
            )
            beside = f'<span class="interval">{percent(difference)} vs pers.</span>' if np.isfinite(difference) else ""
            cells.append(f'<td class="value">{number(value)}{beside}</td>')
        rows.append(f"<tr>{unit_cell(view.title(channel), view.units(channel))}{''.join(cells)}</tr>")
    return (
        f"<table><caption>RMSE at day {view.leads[lead]:g} by region</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def strata_table(view: View, lead_days: float = 3) -> str | None:
    """HTML table: RMSE of the main forecast by season and by hour of the initial time; None for one of each."""
    lead = view.nearest_lead(lead_days)
    error = view.scores["squared_error"].isel(lead_time=lead).sel(region=view.regions[0])
    init = view.scores["init_time"].values
    groups = _groups(init, view.scores["lead_time"].values[lead])
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
        rows.append(f"<tr>{unit_cell(view.title(channel), view.units(channel))}{''.join(cells)}</tr>")
    return (
        f'<table class="narrow"><caption>RMSE at day {view.leads[lead]:g} by season of the valid time and hour of the '
        "initial time</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _groups(init, lead) -> list[tuple[str, np.ndarray]]:
    valid = xr.DataArray(valid_times(init, np.array([lead]))[:, 0], dims="time").dt.month.values
    hour = xr.DataArray(init, dims="time").dt.hour.values
    seasons = [(name, np.isin(valid, months)) for name, months in SEASONS.items()]
    hours = [(f"from {h:02d} UTC", hour == h) for h in np.unique(hour)]
    seasons, hours = ([(n, i) for n, i in part if i.any()] for part in (seasons, hours))
    return (seasons if len(seasons) > 1 else []) + (hours if len(hours) > 1 else [])
