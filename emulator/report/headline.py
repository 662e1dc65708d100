"""The first screen: a verdict in one sentence, and the table behind it."""

import html

import numpy as np

from emulator.report import budget_panels
from emulator.report.display import BUDGET_NAMES, number, percent, scientific
from emulator.report.view import View

MARGIN = 0.0


def verdict(view: View) -> str:
    """One or two sentences, plain text: against persistence, against climatology, and the budgets."""
    if not view.forecasts:
        return "Persistence against the truth: there was no forecast to judge, so this page is the bar that one has to clear."
    sentences = [_against_persistence(view), _against_climatology(view)]
    if budget_panels.has_budgets(view):
        sentences.append(_budgets(view))
    return " ".join(sentence for sentence in sentences if sentence)


def _against_persistence(view) -> str:
    at = view.table_leads((3, 1, 5, 10))[0]
    better, unsure, total, cuts = 0, 0, 0, []
    for channel in view.headline:
        difference = view.against("difference", "persistence", view.main, channel)[at]
        if not np.isfinite(difference):
            continue
        total += 1
        cuts.append(difference)
        p_value = view.against("p_value", "persistence", view.main, channel)[at]
        sure = (
            bool(view.against("significant", "persistence", view.main, channel)[at]) if np.isfinite(p_value) else False
        )
        better += difference < 0 and sure
        unsure += not sure
    when = f"at day {view.leads[at]:g}"
    if not total:
        return f"{view.main} has no finite scores {when}: the forecast has failed."
    change = f"{abs(np.median(cuts)):.0f} % {'below' if np.median(cuts) < 0 else 'above'} persistence in the median"
    sure = f"significantly better in {better} of {total} headline fields"
    return f"{view.main} {when} has errors {change}, {sure}" + (f" ({unsure} undecided)." if unsure else ".")


def _against_climatology(view) -> str:
    crossings = [view.useful_until(view.main, channel) for channel in view.headline]
    held = [(day, crosses) for day, crosses in crossings if np.isfinite(day)]
    if not held:
        return ""
    days = [day for day, _ in held]
    if not any(crosses for _, crosses in held):
        return f"It beats climatology in every headline field to the last lead, day {view.leads[-1]:g}."
    first, last = min(days), max(days)
    always = (
        f"beyond day {last:.1f}" if any(day == last and not crosses for day, crosses in held) else f"day {last:.1f}"
    )
    return f"It stays better than climatology until day {first:.1f} to {always}, depending on the field."


def _budgets(view) -> str:
    texts = []
    for budget in map(str, view.scores["budget"].values):
        ours = budget_panels.overall(view, view.main, budget) if view.main in budget_panels.sources(view) else np.nan
        theirs = budget_panels.overall(view, "truth", budget)
        if np.isfinite(ours):
            beside = f" (truth {scientific(theirs)})" if np.isfinite(theirs) else ""
            texts.append(f"{BUDGET_NAMES[budget].lower()} {scientific(ours)}{beside}")
    return f"Each step leaves of the budgets, relative to the totals: {', '.join(texts)}." if texts else ""


def headline_table(view: View) -> str:
    """HTML table: RMSE with interval, and differences to the baselines, of the headline channels at a few leads."""
    leads = view.table_leads()
    head = "".join(
        f'<th scope="colgroup" colspan="{1 + len(view.baselines)}">Day {view.leads[i]:g}</th>' for i in leads
    )
    short = {"persistence": "pers.", "climatology": "clim."}
    under = "".join(
        "<th scope='col'>RMSE</th>" + "".join(f"<th scope='col'>vs {short[name]}</th>" for name in view.baselines)
        for _ in leads
    )
    rows = []
    for channel in view.headline:
        cells = "".join(_cells(view, channel, lead) for lead in leads)
        unit = f' <span class="unit">{html.escape(view.units(channel))}</span>' if view.units(channel) else ""
        rows.append(
            f'<tr><th scope="row">{html.escape(view.title(channel))}{unit}</th>{cells}<td>{_useful(view, channel)}</td></tr>'
        )
    return (
        f'<table class="headline"><thead><tr><td></td>{head}<th scope="col">Useful to</th></tr>'
        f'<tr><td></td>{under}<th scope="col">day</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _cells(view, channel, lead) -> str:
    value = view.get("rmse", view.main, channel)[lead]
    low, high = view.get("rmse_low", view.main, channel)[lead], view.get("rmse_high", view.main, channel)[lead]
    interval = f'<span class="interval">{number(low)}–{number(high)}</span>' if np.isfinite(low) else ""
    cells = [f'<td class="value">{number(value)}{interval}</td>']
    for baseline in view.baselines:
        difference = view.against("difference", baseline, view.main, channel)[lead]
        half = view.against("difference_half_width", baseline, view.main, channel)[lead]
        if baseline == view.main or not np.isfinite(difference):
            cells.append("<td>–</td>")
            continue
        sure = bool(view.against("significant", baseline, view.main, channel)[lead])
        kind = ("better" if difference < 0 else "worse") if sure else "unsure"
        width = f'<span class="interval">± {half:.0f}</span>' if np.isfinite(half) else ""
        cells.append(f'<td class="{kind}">{percent(difference)}{width}</td>')
    return "".join(cells)


def _useful(view, channel) -> str:
    if not view.forecasts:
        return "–"
    day, crosses = view.useful_until(view.main, channel)
    if not np.isfinite(day):
        return "–"
    return f"{day:.1f}" if crosses else f"≥ {day:g}"


def region_table(view: View, lead_days: float = 3) -> str:
    """HTML table: RMSE of the main forecast, and its difference to persistence, by region at one lead."""
    lead = int(np.abs(view.leads - lead_days).argmin())
    head = "".join(f'<th scope="col">{html.escape(region)}</th>' for region in view.regions)
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
        unit = f' <span class="unit">{html.escape(view.units(channel))}</span>' if view.units(channel) else ""
        rows.append(f'<tr><th scope="row">{html.escape(view.title(channel))}{unit}</th>{"".join(cells)}</tr>')
    return (
        f"<table><caption>RMSE at day {view.leads[lead]:g} by region</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def budget_table(view: View) -> str:
    """HTML table: residual per step and drift per day of every source and budget."""
    rows = []
    for budget in map(str, view.scores["budget"].values):
        unit = str(view.scores["budget_units"].sel(budget=budget).values)
        per = {"W m-2": "W/m²", "kg m-2": "kg/m² per step"}[unit]
        for index, source in enumerate(budget_panels.sources(view)):
            relative = budget_panels.overall(view, source, budget)
            if not np.isfinite(relative):
                continue
            head = f'<th scope="rowgroup">{BUDGET_NAMES[budget]}</th>' if not index else "<td></td>"
            drift = budget_panels.drift_per_day(view, source, budget)
            rows.append(
                f'<tr>{head}<th scope="row">{html.escape(budget_panels.label(view, source))}</th>'
                f"<td>{scientific(relative)}</td>"
                f"<td>{number(budget_panels.mean_residual(view, source, budget))}</td>"
                f"<td>{number(budget_panels.overall(view, source, budget, 'budget_residual'))} {per}</td>"
                f"<td>{number(drift)} {budget_panels.drift_unit(budget)}</td></tr>"
            )
    return (
        '<table class="budget"><thead><tr><th scope="col">Budget</th><th scope="col">Source</th>'
        '<th scope="col">Residual per step, relative (rms)</th><th scope="col">Mean residual</th>'
        '<th scope="col">Residual (rms)</th><th scope="col">Drift of the total per day</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
