"""The report: sections of figures and tables from the scores, as one page."""

import html
import json

from emulator.report import budget_panels, climate_panel, curves, ensemble_panels, extremes_panel, maps
from emulator.report.caveats import caveats
from emulator.report.comparison import comparison_table, comparison_verdict
from emulator.report.display import date_and_hour
from emulator.report.headline import budget_table, headline_table, region_table, verdict
from emulator.report.scorecard import comparison, scorecard
from emulator.report.spectra_panel import resolution_table, spectra_panels
from emulator.report.strata import strata_table
from emulator.report.style import Panel, figures
from emulator.report.template import FIGURE, PAGE, SECTION, STYLE, TABLE
from emulator.report.view import View


def render(view: View, title: str, map_lead_days: float, panels: dict[str, Panel], written: str = "") -> str:
    """The page. `panels` are made elsewhere from other files: "long_run", "training". `written` stands in the footer."""
    with figures():
        sections = [
            ("summary", "Summary", _summary(view)),
            ("comparison", "Comparison", _comparison(view)),
            ("error", "Forecast error", _error(view)),
            ("ensemble", "Ensemble", _ensemble(view)),
            ("extremes", "Extremes", [extremes_panel.extremes_panel(view), extremes_panel.rain_panel(view)]),
            ("maps", "Maps", _maps(view, map_lead_days)),
            ("spectra", "Spectra", _spectra(view)),
            ("conservation", "Conservation", _conservation(view)),
            ("long-run", "Long run", [panels.get("long_run"), *_climate(view)]),
            ("training", "Training", [panels.get("training")]),
            ("caveats", "Caveats", [_caveats(view)]),
            ("provenance", "Provenance", [_provenance(view)]),
        ]
    return _lay_out(title, view, sections, written)


def _lay_out(title, view, sections, written) -> str:
    bodies, links, number = [], [], 0
    for anchor, name, parts in sections:
        parts = [part for part in parts if part]
        if not parts:
            continue
        body = []
        for part in parts:
            if isinstance(part, Panel):
                number += 1
                texts = {key: html.escape(getattr(part, key), quote=False) for key in ("title", "caption", "help")}
                body.append(FIGURE.substitute(markup=part.markup, number=number, **texts))
            else:
                body.append(part)
        links.append(f'<li><a href="#{anchor}">{name}</a></li>')
        bodies.append(SECTION.substitute(anchor=anchor, title=name, body="\n".join(body)))
    return PAGE.substitute(
        title=html.escape(title),
        subtitle=html.escape(_subtitle(view)),
        style=STYLE,
        links="".join(links),
        sections="\n".join(bodies),
        footer=html.escape(written),
    )


def _subtitle(view) -> str:
    against = "against the truth at valid time"
    return f"{', '.join(view.forecasts) or 'Persistence'} {against}, {view.scores.sizes['init_time']} initial times"


def _summary(view) -> list:
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(view))
    pairs = facts.replace("<dt>", "<div><dt>").replace("</dd>", "</dd></div>")
    note = (
        "RMSE with its 95 % interval; differences in percent of the baseline's RMSE with the half-width of their 95 % "
        "interval. Blue is significantly better, orange significantly worse, grey undecided (false discovery rate 5 %). "
        "“Useful to” is the day on which the RMSE reaches climatology's; below it the days gained: how much later than "
        f"persistence the forecast has the error that persistence has on day {view.leads[view.judged_lead((1, 3, 5, 10))]:g}."
    )
    if ensembles := ensemble_panels.ensembles(view):
        note += f" RMSE of {', '.join(ensembles)} is that of the ensemble mean."
    return [
        '<div class="verdict">'
        + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in [*comparison_verdict(view), *verdict(view)])
        + "</div>",
        *(
            TABLE.substitute(label=f"Headline scores of {html.escape(name)}", markup=headline_table(view, name))
            for name in view.forecasts or [view.main]
        ),
        f'<p class="note">{html.escape(note)}</p>',
        f'<dl class="facts">{pairs}</dl>',
    ]


def _comparison(view) -> list:
    if len(view.forecasts) < 2:
        return []
    note = (
        f"Blue: smaller error than {view.main}; orange: larger. A dot marks differences that are significant at a false "
        "discovery rate of 5 %: pairs by initial time, Student's t with the autoregressive inflation of Geer (2016). Full "
        "colour at 20 %."
    )
    cards = [
        TABLE.substitute(label=f"{other} against {view.main}", markup=comparison(view, other))
        for other in view.forecasts[1:]
    ]
    scores = ["rmse", *(["crps"] if "crps_difference" in view.scores else [])]
    tables = [
        TABLE.substitute(label=f"Headline scores of {other}", markup=comparison_table(view, other, score))
        for other in view.forecasts[1:]
        for score in scores
    ]
    about = (
        f"Differences in percent of the error of {view.main} with the half-width of their 95 % interval. Days gained: how "
        f"much later it has the error that {view.main} has on that day."
    )
    return [f'<p class="note">{html.escape(about)}</p>', *tables, f'<p class="note">{html.escape(note)}</p>', *cards]


def _facts(view) -> list[tuple[str, str]]:
    attributes, scores = view.scores.attrs, view.scores
    inits = [date_and_hour(value) for value in scores["init_time"].values[[0, -1]]]
    return [
        ("Initial times", f"{scores.sizes['init_time']}, {inits[0]} to {inits[1]}"),
        ("Leads", f"{view.leads[0]:g} to {view.leads[-1]:g} days"),
        *([("Members", _members(view))] if ensemble_panels.ensembles(view) else []),
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
    sizes = {name: int(view.scores["members"].sel(forecast=name)) for name in view.forecasts}
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


def _error(view) -> list:
    parts = [curves.error_panel(view), curves.crps_panel(view), curves.correlation_panel(view), curves.bias_panel(view)]
    if len(view.regions) > 1:
        parts.append(TABLE.substitute(label="Error by region", markup=region_table(view)))
    if by_time := strata_table(view):
        parts.append(TABLE.substitute(label="Error by season and hour", markup=by_time))
    if view.forecasts:
        card = TABLE.substitute(label="Scorecard", markup=scorecard(view))
        parts.append(
            "<h3>Scorecard</h3>" + '<p class="note">Blue: smaller error than the baseline; orange: larger. A dot marks '
            "differences that are significant at a false discovery rate of 5 %.</p>" + card
        )
    return parts


def _ensemble(view) -> list:
    if not ensemble_panels.ensembles(view):
        return []
    panels = (ensemble_panels.spread_panel, ensemble_panels.rank_panel, ensemble_panels.reliability_panel)
    return [panel(view) for panel in panels]


def _maps(view, lead_days) -> list:
    return [
        maps.case_panel(view, lead_days),
        maps.mean_error_panel(view, lead_days),
        maps.case_panel(view, lead_days, "best"),
        maps.case_panel(view, lead_days, "worst"),
    ]


def _spectra(view) -> list:
    table = resolution_table(view)
    return [*spectra_panels(view), table and TABLE.substitute(label="Effective resolution", markup=table)]


def _conservation(view) -> list:
    if not budget_panels.has_budgets(view):
        return []
    let_stand = budget_panels.let_stand(view)
    return [
        budget_panels.residual_panel(view),
        TABLE.substitute(label="Budgets", markup=budget_table(view)),
        let_stand and f'<p class="note">{html.escape(let_stand)}</p>',
        budget_panels.drift_panel(view),
        budget_panels.correction_panel(view),
    ]


def _climate(view) -> list:
    if not climate_panel.has_climate(view):
        return []
    table = TABLE.substitute(label="Climate of the long runs", markup=climate_panel.climate_table(view))
    sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in climate_panel.climate_verdict(view))
    between = climate_panel.difference_table(view)
    between = between and TABLE.substitute(label="Climate of the long runs against the first", markup=between)
    return [sentences, between, table, climate_panel.bias_maps(view), climate_panel.climate_lines(view)]


def _caveats(view) -> str:
    return f'<ul class="caveats">{"".join(f"<li>{html.escape(text)}</li>" for text in caveats(view))}</ul>'


def _provenance(view) -> str:
    blocks = [("Configuration of the verification", view.note("config")), ("Stores", view.note("provenance"))]
    if "run" in view.scores.attrs:
        blocks.append(("Versions", view.note("run")))
    return "".join(
        f"<h3>{name}</h3><pre>{html.escape(json.dumps(content, indent=1))}</pre>" for name, content in blocks
    )
