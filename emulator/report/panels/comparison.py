"""Several forecasts against the first: a sentence for each, and the numbers behind it."""

import html
from collections import Counter

import numpy as np

from emulator.report.display import (
    difference_cell,
    head_cells,
    html_table,
    note,
    region_name,
    relative,
    signed_days,
    table,
)
from emulator.report.panel import panel
from emulator.report.panels.breakdown import card
from emulator.report.view import NO_TRUTH, NOT_FINITE, View
from emulator.verify.metric import Metric, with_interval

LEADS = (1, 2, 3, 5, 7, 10)  # of the cards
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
    about = f"Differences in percent of the error of {view.main} with the half-width of their 95 % interval."
    if len(view.leads) > 1:
        unit = view.unit
        about += f" {unit.capitalize()}s gained: how much later it has the error that {view.main} has on that {unit}."
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
    rows, several = [], len(view.leads) > 1  # of one lead none is gained
    for channel in view.headline:
        difference, half, sure = (
            view.against(metric.prefix + what, view.main, other, channel)
            for what in ("difference", "difference_half_width", "significant")
        )
        cells = "".join(difference_cell(difference[i], half[i], bool(sure[i])) for i in leads)
        if several:
            days = signed_days(*view.days_gained(other, view.main, channel, gained, metric.name))
            cells += f"<td>{days}</td>"
        rows.append(f'<th scope="row">{html.escape(view.title(channel))}</th>{cells}')
    titles = [f"{view.unit.capitalize()} {view.leads[i]:g}" for i in leads]
    last = [f"{view.unit.capitalize()}s gained at {view.unit} {view.leads[gained]:g}"] if several else []
    head = head_cells(titles + last)
    return html_table(head, rows, html.escape(f"{metric.title} of {other} against {view.main}"), "narrow")


def comparison_card(view: View, other: str) -> str:
    """HTML table of the RMSE of `other` against the first forecast, in percent, regions side by side."""

    def against(what, region, channel):
        return view.against(what, view.main, other, channel, region)

    groups = {region_name(region): region for region in view.regions}
    return card(view, groups, against, view.table_leads(LEADS), f"RMSE of {other} against {view.main}", FULL_COLOUR)
