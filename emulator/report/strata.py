"""Error by season and by hour of the day, from the errors of every initial time."""

import html

import numpy as np
import xarray as xr

from emulator.report.display import number, percent
from emulator.report.view import View

SEASONS = {"December to February": (12, 1, 2), "March to May": (3, 4, 5), "June to August": (6, 7, 8)}
SEASONS |= {"September to November": (9, 10, 11)}


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
        unit = f' <span class="unit">{html.escape(view.units(channel))}</span>' if view.units(channel) else ""
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}{unit}</th>{"".join(cells)}</tr>')
    return (
        f'<table class="narrow"><caption>RMSE at day {view.leads[lead]:g} by season of the valid time and hour of the '
        "initial time</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _groups(init, lead) -> list[tuple[str, np.ndarray]]:
    from emulator.verify.align import valid_times

    valid = xr.DataArray(valid_times(init, np.array([lead]))[:, 0], dims="time").dt.month.values
    hour = xr.DataArray(init, dims="time").dt.hour.values
    seasons = [(name, np.isin(valid, months)) for name, months in SEASONS.items()]
    hours = [(f"from {h:02d} UTC", hour == h) for h in np.unique(hour)]
    seasons, hours = ([(n, i) for n, i in part if i.any()] for part in (seasons, hours))
    return (seasons if len(seasons) > 1 else []) + (hours if len(hours) > 1 else [])
