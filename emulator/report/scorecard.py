"""Every channel against a baseline at a glance: colour is the difference, a dot marks what is significant."""

import html

import numpy as np

from emulator.report.display import region_name, signed
from emulator.report.view import View

LEADS = (0.5, 1, 2, 3, 5, 7, 10)
WIDE = 14  # columns beyond which a card is set smaller, to fit the page
FULL_COLOUR, COMPARED_COLOUR = 60.0, 20.0  # percent; models differ by less than a model and its baselines


def scorecard(view: View) -> str:
    """HTML table of RMSE differences in percent: rows are channels, columns leads; blue is better than the baseline."""
    leads = view.table_leads(LEADS)
    top = "<td></td>".join(f'<th scope="colgroup" colspan="{len(leads)}">against {b}</th>' for b in view.baselines)
    under = "<td></td>".join(
        "".join(f'<th scope="col">{_day(view.leads[i])}</th>' for i in leads) for _ in view.baselines
    )
    rows = []
    for channel in map(str, view.scores["channel"].values):
        cells = '<td class="gap"></td>'.join(_cells(view, baseline, channel, leads) for baseline in view.baselines)
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}</tr>')
    return (
        f'<table class="card"><caption>RMSE of {html.escape(view.main)}, difference in %</caption>'
        f"<thead><tr><td></td>{top}</tr><tr><td></td>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def comparison(view: View, other: str) -> str:
    """HTML table of the RMSE of `other` against the first forecast, in percent: regions side by side, leads as columns."""
    leads = view.table_leads(LEADS[1:])
    top = "<td></td>".join(
        f'<th scope="colgroup" colspan="{len(leads)}">{html.escape(region_name(region))}</th>'
        for region in view.regions
    )
    under = "<td></td>".join(
        "".join(f'<th scope="col">{_day(view.leads[i])}</th>' for i in leads) for _ in view.regions
    )
    rows = []
    for channel in map(str, view.scores["channel"].values):
        groups = []
        for region in view.regions:
            difference = view.against("difference", view.main, other, channel, region)
            sure = view.against("significant", view.main, other, channel, region)
            groups.append("".join(_cell(difference[i], bool(sure[i]), COMPARED_COLOUR) for i in leads))
        cells = '<td class="gap"></td>'.join(groups)
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}</tr>')
    kind = "card wide" if len(view.regions) * len(leads) > WIDE else "card"
    return (
        f'<table class="{kind}"><caption>RMSE of {html.escape(other)} against {html.escape(view.main)}, '
        "difference in %</caption>"
        f"<thead><tr><td></td>{top}</tr><tr><td></td>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(view, baseline, channel, leads):
    difference = view.against("difference", baseline, view.main, channel)
    sure = view.against("significant", baseline, view.main, channel)
    return "".join(_cell(difference[i], bool(sure[i])) for i in leads)


def _cell(value, sure, full=FULL_COLOUR):
    if not np.isfinite(value):
        return "<td>–</td>"
    share = min(abs(value) / full, 1.0)
    colour = "0,114,178" if value < 0 else "213,94,0"
    ink = ' class="inverse"' if share > 0.75 else ""
    mark = '<span class="mark" title="significant">•</span>' if sure else ""
    return f'<td{ink} style="background:rgba({colour},{0.9 * share:.2f})">{signed(value)}{mark}</td>'


def _day(days):
    return f"{days * 24:g} h" if days < 1 else f"{days:g} d"
