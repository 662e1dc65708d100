"""The first screen: a verdict in one sentence, and the table behind it."""

import html

import numpy as np

from emulator.planet.quantities.registry import quantity
from emulator.report import budgets
from emulator.report.display import (
    date_and_hour,
    difference_cell,
    note,
    number,
    scientific,
    signed_days,
    table,
    unit_cell,
)
from emulator.report.panel import panel
from emulator.report.panels.caveats import below_zero
from emulator.report.panels.climate_change import response_sentences
from emulator.report.panels.comparison import comparison_verdict
from emulator.report.view import NOT_FINITE, View


@panel("summary", 10)
def summary(view: View) -> list[str]:
    """The verdict, the headline scores of every forecast and what they were made from."""
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(view))
    pairs = facts.replace("<dt>", "<div><dt>").replace("</dd>", "</dd></div>")
    about = (
        "RMSE with its 95 % interval; differences in percent of the baseline's RMSE with the half-width of their 95 % "
        "interval. Blue is significantly better, orange significantly worse, grey undecided (false discovery rate 5 %). "
        f"“Useful to” is the {view.unit} on which the RMSE reaches climatology's; below it the {view.unit}s gained: how much "
        "later than persistence the forecast has the error that persistence has on "
        f"{view.unit} {view.leads[view.judged_lead((1, 3, 5, 10))]:g}."
    )
    if ensembles := view.ensembles():
        about += f" RMSE of {', '.join(ensembles)} is that of the ensemble mean."
    return [
        '<div class="verdict">'
        + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in [*comparison_verdict(view), *verdict(view)])
        + "</div>",
        *(table(f"Headline scores of {name}", headline_table(view, name)) for name in view.forecasts or [view.main]),
        note(about),
        f'<dl class="facts">{pairs}</dl>',
    ]


def _facts(view) -> list[tuple[str, str]]:
    attributes, scores = view.scores.attrs, view.scores
    inits = [date_and_hour(value) for value in scores["init_time"].values[[0, -1]]]
    return [
        ("Initial times", f"{scores.sizes['init_time']}, {inits[0]} to {inits[1]}"),
        ("Leads", f"{view.leads[0]:g} to {view.leads[-1]:g} {view.unit}s"),
        *([("Members", _members(view))] if view.ensembles() else []),
        ("Truth", _truth(view)),
        ("Grid", attributes.get("grid", "unknown")),
        ("Fields scored", f"{scores.sizes['channel']}"),
        ("Climatology", attributes.get("climatology", "unknown")),
        (
            "Climatology from",
            " to ".join(date_and_hour(value) for value in attributes.get("climatology_period", "").split(" to ")),
        ),
        ("Verified by", _software(view)),
    ]


def _members(view) -> str:
    sizes = {name: view.members(name) for name in view.forecasts}
    return f"{sizes[view.main]}" if len(sizes) == 1 else ", ".join(f"{name} {size}" for name, size in sizes.items())


def _truth(view) -> str:
    """What the truth says of itself, else where it lies; of models that were verified apart, the first's."""
    said = view.note("provenance").get("truth", {}).get("source")
    config = view.note("config")
    if "truth" not in config:
        config = next((inner for inner in config.values() if isinstance(inner, dict)), {})
    return str(said or config.get("truth") or (config.get("observations") or {}).get("path", "unknown"))


def _software(view) -> str:
    run = view.note("run")
    if "versions" not in run:
        run = next((inner for inner in run.values() if isinstance(inner, dict)), {})
    version, commit = run.get("versions", {}).get("emulator", ""), run.get("commit")
    return f"emulator {version}" + (f", commit {commit}" if commit else "")


def verdict(view: View) -> list[str]:
    """A few sentences, plain text: against persistence and climatology, the budgets, and values that cannot be."""
    if not view.forecasts:
        bar = "errors of persistence, the bar that a forecast has to clear."
        if responses := response_sentences(view):
            return [*responses, f"There was no forecast to judge: the headline scores below are {bar}"]
        return [f"There was no forecast to judge: these are the {bar}"]
    sentences = (_against_persistence(view), _against_climatology(view), _never_better(view))
    skill = " ".join(sentence for sentence in sentences if sentence)
    closed = _budgets(view) if budgets.has_budgets(view) else ""
    return [skill, *([closed] if closed else []), *below_zero(view, view.main)]


def _against_persistence(view) -> str:
    at = view.judged_lead()
    wanted = view.judged_lead(with_truth=False)
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
    return f"{view.leads[lead]:g} {view.unit}{'s' if view.leads[lead] != 1 else ''} ahead"


def _against_climatology(view) -> str:
    crossings = [
        pair for pair in (view.useful_until(view.main, channel) for channel in view.headline) if np.isfinite(pair[0])
    ]
    if not crossings:
        return ""
    if not any(crosses for _, crosses in crossings):
        last = f"the last lead{_with_truth(view)}, {view.unit} {_last(view):g}"
        return f"It beats climatology in every headline field to {last}."
    first, last = min(day for day, _ in crossings), max(day for day, _ in crossings)
    if all(day == 0 for day, _ in crossings):
        return "It does not beat climatology at any lead."
    beyond = any(not crosses for _, crosses in crossings)
    end = f"the last lead{_with_truth(view)}, {view.unit} {last:g}" if beyond else f"{last:.1f}"
    return f"It beats climatology until {view.unit} {first:.1f} to {end}, depending on the field."


def _last(view) -> float:
    return float(view.leads[np.flatnonzero(view.has_truth())[-1]])


def _with_truth(view) -> str:
    return "" if view.has_truth()[-1] else " that has a truth"


def _budgets(view) -> str:
    texts = []
    for budget in map(str, view.scores["budget"].values):
        ours = budgets.overall(view, view.main, budget) if view.main in budgets.sources(view) else np.nan
        theirs = budgets.overall(view, "truth", budget)
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
        f'<th scope="colgroup" colspan="{1 + len(view.baselines)}">{view.unit.capitalize()} {view.leads[i]:g}</th>'
        for i in leads
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
        rows.append(
            f"<tr>{unit_cell(view.title(channel), view.units(channel))}<td>{_useful(view, name, channel)}"
            f'<span class="interval">{_gained(view, name, channel)}</span></td>{cells}</tr>'
        )
    return (
        f'<table class="headline"><caption>RMSE of {html.escape(name)}</caption>'
        f'<thead><tr><td></td><th scope="col">Useful</th>{head}</tr>'
        f'<tr><td></td><th scope="col">to {view.unit}</th>{under}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _gained(view, name, channel) -> str:
    """How much later the forecast has the error that persistence has on the first day of the table."""
    if not view.forecasts or "persistence" not in view.baselines:
        return "–"
    gained = signed_days(*view.days_gained(name, "persistence", channel, view.judged_lead((1, 3, 5, 10))))
    return f"{gained} {'mo' if view.unit == 'month' else 'd'}"


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
