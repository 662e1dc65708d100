"""Several forecasts against the first: a sentence for each, and the numbers behind it."""

import html
from collections import Counter

import numpy as np

from emulator.report.display import percent, relative, signed_days
from emulator.report.view import NO_TRUTH, NOT_FINITE, View

SCORES = {"rmse": ("RMSE", ""), "crps": ("CRPS", "crps_")}  # name on the page, prefix of its differences


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


def comparison_table(view: View, other: str, score: str = "rmse") -> str:
    """HTML table: headline scores of `other` in percent of the first forecast's with intervals, and the days gained."""
    name, prefix = SCORES[score]
    leads, gained = view.table_leads(), view.judged_lead()
    head = "".join(f'<th scope="col">Day {view.leads[i]:g}</th>' for i in leads)
    rows = []
    for channel in view.headline:
        difference, half, sure = (
            view.against(prefix + what, view.main, other, channel)
            for what in ("difference", "difference_half_width", "significant")
        )
        cells = "".join(difference_cell(difference[i], half[i], bool(sure[i])) for i in leads)
        days = signed_days(*view.days_gained(other, view.main, channel, gained, score))
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}</th>{cells}<td>{days}</td></tr>')
    return (
        f'<table class="narrow"><caption>{name} of {html.escape(other)} against {html.escape(view.main)}</caption>'
        f'<thead><tr><td></td>{head}<th scope="col">Days gained at day {view.leads[gained]:g}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def difference_cell(difference: float, half: float, sure: bool) -> str:
    """A cell with a difference in percent and the half-width of its interval, coloured where it is significant."""
    if not np.isfinite(difference):
        return "<td>–</td>"
    kind = ("better" if difference < 0 else "worse") if sure else "unsure"
    width = f'<span class="interval">± {half:.0f}</span>' if np.isfinite(half) else ""
    return f'<td class="{kind}">{percent(difference)}{width}</td>'
