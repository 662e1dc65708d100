"""Several forecasts against the first: a sentence for each, and the numbers behind it."""

import html
from collections import Counter

import numpy as np

from emulator.report.display import coloured_cell, difference_cell, lead_days, region_name, relative, signed_days
from emulator.report.panel import panel
from emulator.report.template import note, table
from emulator.report.view import NO_TRUTH, NOT_FINITE, View
from emulator.verify.metric import Metric, with_interval

LEADS = (1, 2, 3, 5, 7, 10)  # of the cards
WIDE = 14  # columns beyond which a card is set smaller, to fit the page
FULL_COLOUR = 20.0  # percent


@panel("comparison", 10)
def comparison(view: View) -> list[str]:
    """Tables and cards of every further forecast against the first; nothing for a single one."""
    if len(view.forecasts) < 2:
        return []
    tables = [
        table(f"Headline scores of {other}", comparison_table(view, other, metric))
        for other in view.forecasts[1:]
        for metric in with_interval()
        if f"{metric.prefix}difference" in view.scores
    ]
    cards = [table(f"{other} against {view.main}", comparison_card(view, other)) for other in view.forecasts[1:]]
    about = (
        f"Differences in percent of the error of {view.main} with the half-width of their 95 % interval. Days gained: how "
        f"much later it has the error that {view.main} has on that day."
    )
    colours = (
        f"Blue: smaller error than {view.main}; orange: larger. A dot marks differences that are significant at a false "
        "discovery rate of 5 %: pairs by initial time, Student's t with the autoregressive inflation of Geer (2016). Full "
        "colour at 20 %."
    )
    return [note(about), *tables, note(colours), *cards]


def comparison_verdict(view: View) -> list[str]:
    """One sentence for every forecast but the first: where it is better and worse than the first."""
    at = view.table_leads()
    sentences = []
    for other in view.forecasts[1:]:
        better = worse = total = 0
        cuts, left_out = [], Counter()
        for channel in view.headline:
            difference = view.against("difference", view.main, other, channel)
            sure = view.against("significant", view.main, other, channel)
            for lead in at:
                if np.isfinite(difference[lead]):
                    total += 1
                    cuts.append(difference[lead])
                    better += bool(sure[lead]) and difference[lead] < 0
                    worse += bool(sure[lead]) and difference[lead] > 0
                elif why := _left_out(view, other, channel, lead):
                    left_out[why] += 1
        reasons = ", ".join(f"{count} ({why})" for why, count in left_out.items())
        if not total:
            because = f": {reasons}" if reasons else ""
            sentences.append(f"{other} has no finite scores to compare with {view.main}{because}.")
            continue
        middle = float(np.median(cuts))
        size = f"{relative(middle, 1)} those of {view.main} (median)"
        rest = total - better - worse
        sentences.append(
            f"Errors of {other} are {size}: significantly smaller in {better} of {total} headline scores, larger in {worse}, "
            f"undecided in {rest}." + (f" Not compared: {reasons}." if reasons else "")
        )
    return sentences


def _left_out(view, other: str, channel: str, lead: int) -> str:
    """Why a score of a pair is missing."""
    reasons = {name: view.missing(name, channel)[lead] for name in (other, view.main)}
    broken = " and ".join(name for name, why in reasons.items() if why == NOT_FINITE)
    return f"not finite in {broken}" if broken else NO_TRUTH if any(reasons.values()) else ""


def comparison_table(view: View, other: str, metric: Metric) -> str:
    """HTML table: headline scores of `other` in percent of the first forecast's with intervals, and the days gained."""
    leads, gained = view.table_leads(), view.judged_lead()
    head = "".join(f'<th scope="col">Day {view.leads[i]:g}</th>' for i in leads)
    rows = []
    for channel in view.headline:
        difference, half, sure = (
            view.against(metric.prefix + what, view.main, other, channel)
            for what in ("difference", "difference_half_width", "significant")
        )
        cells = "".join(difference_cell(difference[i], half[i], bool(sure[i])) for i in leads)
        days = signed_days(*view.days_gained(other, view.main, channel, gained, metric.name))
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}<td>{days}</td></tr>')
    return (
        f'<table class="narrow"><caption>{metric.title} of {html.escape(other)} against {html.escape(view.main)}</caption>'
        f'<thead><tr><td></td>{head}<th scope="col">Days gained at day {view.leads[gained]:g}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def comparison_card(view: View, other: str) -> str:
    """HTML table of the RMSE of `other` against the first forecast, in percent: regions side by side, leads as columns."""
    leads = view.table_leads(LEADS)
    top = "<td></td>".join(
        f'<th scope="colgroup" colspan="{len(leads)}">{html.escape(region_name(region))}</th>'
        for region in view.regions
    )
    under = "<td></td>".join(
        "".join(f'<th scope="col">{lead_days(view.leads[i])}</th>' for i in leads) for _ in view.regions
    )
    rows = []
    for channel in map(str, view.scores["channel"].values):
        groups = []
        for region in view.regions:
            difference = view.against("difference", view.main, other, channel, region)
            sure = view.against("significant", view.main, other, channel, region)
            groups.append("".join(coloured_cell(difference[i], bool(sure[i]), FULL_COLOUR) for i in leads))
        cells = '<td class="gap"></td>'.join(groups)
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}</tr>')
    kind = "card wide" if len(view.regions) * len(leads) > WIDE else "card"
    return (
        f'<table class="{kind}"><caption>RMSE of {html.escape(other)} against {html.escape(view.main)}, '
        "difference in %</caption>"
        f"<thead><tr><td></td>{top}</tr><tr><td></td>{under}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
