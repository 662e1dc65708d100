"""The first screen: a verdict in one sentence, and the table behind it."""

import html

import numpy as np

from emulator.planet.quantities import quantity
from emulator.report import budget_panels
from emulator.report.comparison import difference_cell
from emulator.report.display import number, percent, region_name, scientific, signed_days
from emulator.report.view import NOT_FINITE, View


def verdict(view: View) -> list[str]:
    """A few sentences, plain text: against persistence and climatology, then the budgets."""
    if not view.forecasts:
        return [
            "There was no forecast to judge: these are the errors of persistence, the bar that a forecast has to clear."
        ]
    told = (_against_persistence(view), _against_climatology(view), _never_better(view))
    skill = " ".join(sentence for sentence in told if sentence)
    budgets = _budgets(view) if budget_panels.has_budgets(view) else ""
    return [skill, budgets] if budgets else [skill]


def _against_persistence(view) -> str:
    at = view.judged_lead()
    wanted = view.table_leads((3, 1, 5, 10))[0]
    late = f"The truth does not reach {_ahead(view, wanted)} of any initial time. " if wanted != at else ""
    cuts, better, worse, failed = [], 0, 0, 0
    for channel in view.headline:
        failed += view.missing(view.main, channel)[at] == NOT_FINITE
        difference = view.against("difference", "persistence", view.main, channel)[at]
        if np.isfinite(difference):
            sure = bool(view.against("significant", "persistence", view.main, channel)[at])
            cuts.append(difference)
            better, worse = better + (sure and difference < 0), worse + (sure and difference > 0)
    when = _ahead(view, at)
    if not cuts:
        return f"{late}{view.main} has no finite scores {when}: the forecast has failed."
    middle = float(np.median(cuts))
    change = f"{abs(middle):.0f} % {'smaller' if middle < 0 else 'larger'} than persistence's"
    tally = [f"significantly better in {better} of {len(cuts) + failed} headline fields"]
    tally += [f"worse in {worse}"] if worse else []
    unsure = len(cuts) - better - worse
    tally += [f"undecided in {unsure}"] if unsure else []
    tally += [f"not finite in {failed}"] if failed else []
    count, judged = view.scores.sizes["init_time"], max(int(view.truth_count(c)[at]) for c in view.headline)
    over = f"{judged} of {count}" if judged < count else f"{count}"
    return f"{late}Over {over} forecasts, errors of {view.main} {when} are {change} (median; {', '.join(tally)})."


def _never_better(view) -> str:
    """Fields that are worse than persistence at every lead."""
    late = view.leads > 0
    worse = []
    for channel in view.headline:
        difference = view.against("difference", "persistence", view.main, channel)[late]
        difference = difference[np.isfinite(difference)]
        if len(difference) and (difference > 0).all():
            worse.append(view.title(channel))
    return f"Worse than persistence at every lead: {', '.join(worse)}." if worse else ""


def _ahead(view, lead: int) -> str:
    return f"{view.leads[lead]:g} day{'s' if view.leads[lead] != 1 else ''} ahead"


def _against_climatology(view) -> str:
    held = [
        pair for pair in (view.useful_until(view.main, channel) for channel in view.headline) if np.isfinite(pair[0])
    ]
    if not held:
        return ""
    if not any(crosses for _, crosses in held):
        return f"It beats climatology in every headline field to the last lead{_with_truth(view)}, day {_last(view):g}."
    first, last = min(day for day, _ in held), max(day for day, _ in held)
    if all(day == 0 for day, _ in held):
        return "It does not beat climatology at any lead."
    beyond = any(not crosses for _, crosses in held)
    end = f"the last lead{_with_truth(view)}, day {last:g}" if beyond else f"{last:.1f}"
    return f"It beats climatology until day {first:.1f} to {end}, depending on the field."


def _last(view) -> float:
    return float(view.leads[np.flatnonzero(view.has_truth())[-1]])


def _with_truth(view) -> str:
    return "" if view.has_truth()[-1] else " that has a truth"


def _budgets(view) -> str:
    texts = []
    for budget in map(str, view.scores["budget"].values):
        ours = budget_panels.overall(view, view.main, budget) if view.main in budget_panels.sources(view) else np.nan
        theirs = budget_panels.overall(view, "truth", budget)
        if np.isfinite(ours):
            beside = f" (reference {scientific(theirs)})" if np.isfinite(theirs) else ""
            texts.append(f"{scientific(ours)} of the {quantity(budget).total}{beside}")
    return f"One step leaves unexplained {_join(texts)}." if texts else ""


def _join(texts):
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def headline_table(view: View, forecast: str | None = None) -> str:
    """HTML table: RMSE with interval, and differences to the baselines, of the headline channels at a few leads.

    Of the main forecast where none is named.
    """
    name = forecast or view.main
    leads = view.table_leads()
    head = "".join(
        f'<th scope="colgroup" colspan="{1 + len(view.baselines)}">Day {view.leads[i]:g}</th>' for i in leads
    )
    short = {"persistence": "pers.", "climatology": "clim."}
    under = "".join(
        "<th scope='col'>RMSE</th>"
        + "".join(f"<th scope='col'>vs {short[baseline]}</th>" for baseline in view.baselines)
        for _ in leads
    )
    rows = []
    for channel in view.headline:
        cells = "".join(_cells(view, name, channel, lead) for lead in leads)
        unit = f' <span class="unit">{html.escape(view.units(channel))}</span>' if view.units(channel) else ""
        rows.append(
            f'<tr><th scope="row">{html.escape(view.title(channel))}{unit}</th><td>{_useful(view, name, channel)}'
            f'<span class="interval">{_gained(view, name, channel)}</span></td>{cells}</tr>'
        )
    return (
        f'<table class="headline"><caption>RMSE of {html.escape(name)}</caption>'
        f'<thead><tr><td></td><th scope="col">Useful</th>{head}</tr>'
        f'<tr><td></td><th scope="col">to day</th>{under}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _gained(view, name, channel) -> str:
    """How much later the forecast has the error that persistence has on the first day of the table."""
    if not view.forecasts or "persistence" not in view.baselines:
        return "–"
    return f"{signed_days(*view.days_gained(name, 'persistence', channel, view.judged_lead((1, 3, 5, 10))))} d"


def _cells(view, name, channel, lead) -> str:
    value = view.get("rmse", name, channel)[lead]
    low, high = view.get("rmse_low", name, channel)[lead], view.get("rmse_high", name, channel)[lead]
    interval = f'<span class="interval">{number(low)}–{number(high)}</span>' if np.isfinite(low) else ""
    why = view.missing(name, channel)[lead]
    shown = f'<span class="interval">{why}</span>' if why else f"{number(value)}{interval}"
    cells = [f'<td class="value">{shown}</td>']
    for baseline in view.baselines:
        names = ("difference", "difference_half_width", "significant")
        difference, half, sure = (view.against(kind, baseline, name, channel)[lead] for kind in names)
        cells.append(difference_cell(np.nan if baseline == name else difference, half, bool(sure)))
    return "".join(cells)


def _useful(view, name, channel) -> str:
    if not view.forecasts:
        return "–"
    day, crosses = view.useful_until(name, channel)
    if not np.isfinite(day):
        return "–"
    return f"{day:.1f}" if crosses else f"≥ {day:g}"


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
            head = f'<th scope="rowgroup">{quantity(budget).label}</th>' if not index else "<td></td>"
            drift = budget_panels.drift_per_day(view, source, budget)
            rows.append(
                f'<tr>{head}<th scope="row">{html.escape(budget_panels.label(view, source))}</th>'
                f"<td>{scientific(relative)}</td>"
                f"<td>{number(budget_panels.mean_residual(view, source, budget))} {per}</td>"
                f"<td>{number(budget_panels.overall(view, source, budget, 'budget_residual'))} {per}</td>"
                f"<td>{number(drift)} {budget_panels.drift_unit(budget)}</td></tr>"
            )
    return (
        '<table class="budget"><thead><tr><th scope="col" class="text">Budget</th><th scope="col" class="text">Source</th>'
        '<th scope="col">Residual per step, relative (rms)</th><th scope="col">Mean residual</th>'
        '<th scope="col">Residual (rms)</th><th scope="col">Drift of the total per day</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
