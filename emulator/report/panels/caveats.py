"""What a reader must know before believing the numbers, written by the program from what it did."""

import html
import json

import numpy as np

from emulator.planet.quantities.registry import quantity
from emulator.report import budgets
from emulator.report.display import date_and_hour, number, variable_name
from emulator.report.given_forcing import forcing_caveats
from emulator.report.panel import panel
from emulator.report.view import NOT_FINITE, View
from emulator.store.forecast import boundary_told
from emulator.verify.assemble import far_off
from emulator.verify.climatology import SHORTEST_DAYS

FEW_INITS = 20
LEAST_BELOW_ZERO = 1e-3  # share of the area at some lead, from which it is told
SHOWN = 3  # fields in a sentence
KNOWN_AHEAD = ("mean_top_downward_short_wave_radiation_flux",)


@panel("caveats", 10)
def caveat_list(view: View) -> str:
    return f'<ul class="caveats">{"".join(f"<li>{html.escape(text)}</li>" for text in caveats(view))}</ul>'


@panel("provenance", 10)
def provenance(view: View) -> str:
    """Configuration, stores and versions, as they were recorded."""
    blocks = [("Configuration of the verification", view.note("config")), ("Stores", view.note("provenance"))]
    if "run" in view.scores.attrs:
        blocks.append(("Versions", view.note("run")))
    return "".join(
        f"<h3>{name}</h3><pre>{html.escape(json.dumps(content, indent=1))}</pre>" for name, content in blocks
    )


def caveats(view: View) -> list[str]:
    """Sentences, plain text, the most serious first."""
    scores, attributes = view.scores, view.scores.attrs
    count = scores.sizes["init_time"]
    sentences = []
    for name in view.forecasts:
        if broken := [c for c in view.headline if NOT_FINITE in view.missing(name, c)]:
            where = ", ".join(map(view.title, broken))
            sentences.append(f"{name} is not finite at some leads in {where}; those scores are missing.")
    sentences += far_off(scores)
    sentences += [sentence for name in view.forecasts if name != view.main for sentence in below_zero(view, name)]
    if count < 4:
        sentences.append(f"Only {count} initial times: no intervals or significance can be given.")
    elif count < FEW_INITS:
        sentences.append(f"Only {count} initial times: the intervals are themselves uncertain.")
    sentences.append(f"Verified on one period, {_period(attributes)}: other seasons may score differently.")
    sentences += _prescribed(view)
    sentences += forcing_caveats(view)
    if attributes.get("climatology_kind") == "mean":
        sentences.append(
            f"Climatology is the {attributes['climatology']}; it has no annual cycle, so beating it is easier, and "
            "anomalies hold part of the season."
        )
    else:
        sentences.append(f"Climatology: {attributes.get('climatology', 'unknown')}.")
    if attributes.get("climatology_overlap"):
        sentences.append(
            "The climatology was made from a period that holds verified times, which favours it: where no period is given, "
            f"and the truth has less than {SHORTEST_DAYS} days before the first initial time, it is made from all of it."
        )
        if view.ensembles():
            sentences.append(
                "Coverage of whole fields (TARP) is left out: its references would be verified themselves."
            )
    for kind, what in (("dropped_inits", "initial times"), ("dropped_leads", "leads")):
        for name, lost in view.note(kind).items():
            if lost:
                sentences.append(f"{lost} {what} of {name} were left out: not in every forecast, or without truth.")
    for name, empty in view.note("empty_inits").items():
        sentences.append(f"{empty} initial times of {name} hold no value at all: taken as not there, and left out.")
    if missing := int(attributes.get("missing_truth", 0)):
        sentences.append(f"The truth lacks {missing} valid times; leads then average over fewer forecasts.")
    if not (judged := view.has_truth()).all():
        without = ", ".join(f"{day:g}" for day in view.leads[~judged])
        sentences.append(
            f"No initial time has a truth at {view.unit} {without} of the forecast: nothing can be said of those leads."
        )
    if view.regions[0] in ("domain", "interior"):
        sentences.append(
            "The grid is a region: means are over its cells"
            + (", and there are no spectra." if view.scores.attrs.get("spectrum_kind") == "none" else ".")
        )
    sentences += _boundaries(view)
    sentences += _domains(view)
    sentences += _gaps(view)
    sentences += _budget_caveats(view)
    if skipped := view.note("not_scored"):
        absent = sorted(name for name, reason in skipped.items() if "different" not in str(reason))
        sentences += [f"Not scored, because not in every store: {', '.join(absent)}."] if absent else []
        sentences += [f"{name} was not scored: {skipped[name]}." for name in sorted({*skipped} - {*absent})]
    if left_out := view.note("not_compared"):
        sentences.append(f"Not compared, because not scored for every model: {', '.join(sorted(left_out))}.")
    sentences.append(
        f"Grid {attributes.get('grid', 'unknown')}: scores on another grid are not comparable with these. RMSE takes the "
        "root after the mean over initial times; anomaly correlation is WeatherBench 2's form."
    )
    return sentences


def below_zero(view: View, name: str) -> list[str]:
    """A sentence on the fields that cannot be negative and are, in more of the area than the analysis: those most of all."""
    if "below_zero_share" not in view.scores:
        return []
    found = []
    for channel in map(str, view.scores["channel"].values):
        share = np.nan_to_num(view.get("below_zero_share", name, channel, scaled=False))
        analysed = view.get("below_zero_share", "persistence", channel, scaled=False)  # its packing rounds
        if share.max() < LEAST_BELOW_ZERO or share.max() <= 1.1 * np.nan_to_num(analysed).max():
            continue
        lowered = number(-np.nan_to_num(view.get("below_zero_mean", name, channel)).min())
        when = f"{view.unit} {view.leads[int(np.argmax(share))]:g}"
        text = f"{view.title(channel)} in up to {100 * share.max():.2g} % of the area ({when})"
        found.append((-share.max(), f"{text}, which takes up to {lowered} {view.units(channel)} from its mean"))
    if not found:
        return []
    texts = [text for _, text in sorted(found, key=lambda pair: pair[0])]
    more = [f"{len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return [
        f"{name} is below zero where nothing can be: {'; '.join(texts[:SHOWN] + more)}. Conservation schemes keep rain and "
        "humidity at zero or more."
    ]


def _prescribed(view):
    """Fields that a forecast was given at its valid times, as a real one could not be; the sun's place is known ahead."""
    sentences = []
    for name in view.forecasts:
        given = view.note("provenance").get(name, {}).get("prescribed", "")
        fields = [variable_name(f).lower() for f in given.split(", ") if f and f not in KNOWN_AHEAD]
        if fields:
            sentences.append(
                f"{name} was given {', '.join(fields)} at its valid times from the analysis, which a forecast of the future "
                "does not know."
            )
    return sentences


def _boundaries(view):
    """From where forecasts of a limited area were given the state outside, and what that favours."""
    sentences = []
    for name in view.forecasts:
        record = boundary_told(view.note("provenance").get(name, {}))
        if not record:
            continue
        where = f"{record['width']} cells {record['place']} the domain"
        if record["place"] == "inside":
            where += ", which are set to it and not scored in the interior"
        texts = {
            "analysis": f"{name} has perfect boundaries: the analysis at its valid times ({where}), which a forecast of the "
            "future does not know; its errors are those of a real forecast without the driving model's.",
            "forecast": f"The boundary of {name} comes from stored forecasts ({where}), started "
            + (f"{record['delay_hours']:g} h before it." if record["delay_hours"] else "at the same initial times."),
            "emulator": f"The boundary of {name} comes from a global emulator that ran beside it ({where}).",
        }
        sentences.append(texts[record["kind"]])
        if nudged := record.get("nudging"):
            how = (
                f"so that a departure falls to 1/e in {nudged['hours']:g} h"
                if nudged["hours"]
                else "whole at every step"
            )
            names = ", ".join(variable_name(name).lower() for name in nudged["variables"])
            known = ""
            if record["kind"] == "analysis":
                known = " They are then those of an analysis at its valid times, which a real forecast does not know."
            sentences.append(
                f"{name} is nudged: its waves of {nudged['length_km']:g} km and more in {names} are drawn to the driving "
                f"data's inside the domain too, {how}.{known}"
            )
        if record.get("outflow_of") == "analysis" and record["kind"] != "analysis":
            sentences.append(
                f"What leaves the domain of {name} by its sides is that of an analysis at its valid times, which a real "
                "forecast does not know."
            )
    if view.scores.attrs.get("open_domain") and budgets.has_budgets(view):
        how = "no correction closes them"
        if budgets.has_outflow(view):
            how = "corrections, where there are any, close them with a given flux, and are as good as that is"
        sentences.append(
            "The domain is open: what its budgets leave unexplained is the flux through its sides, estimated as that "
            f"residual; {how}."
        )
    return sentences


def _domains(view):
    """Which fields are not everywhere, level by level, and what that means for their scores and spectra."""
    known: dict[tuple[str, str], list[float]] = {}
    for channel, domain in view.note("domains").items():
        if channel in view.scores["channel"].values:
            known.setdefault((view.variable(channel), domain["domain"]), []).append(100 * domain["share"])
    sentences = []
    for (variable, domain), shares in known.items():
        low, high = (f"{share:.0f}" for share in (min(shares), max(shares)))
        share = f"{high} %" if low == high else f"{low} to {high} %, by level,"
        sentences.append(
            f"{variable_name(variable)} exists on {share} of the area (domain {domain}); its scores are of that part of each "
            "region alone."
        )
    if known and "power_ratio" in view.scores:
        filled = view.scores.attrs.get("spectrum_of_masked", "unknown")
        sentences.append(f"Spectra of such fields are of {filled}, forecast and truth alike.")
    return sentences


def _gaps(view):
    """What was missing cell by cell, and what became of it."""
    if "gap_count" not in view.scores:
        return []
    gaps = view.scores["gap_count"]
    sentences, truth = [], int(gaps.sel(gap_source="truth"))
    if truth:
        sentences.append(f"{truth} values of the truth are missing; those cells have no weight.")
    for name in view.forecasts:
        count = int(gaps.sel(gap_source=name))
        if count:
            sentences.append(f"{count} values of {name} are not finite where there is truth: those scores are missing.")
    return sentences


def _period(attributes):
    return " to ".join(date_and_hour(text) for text in attributes.get("valid_period", "unknown").split(" to "))


def _budget_caveats(view):
    sentences = []
    for source, reasons in view.note("budgets_skipped").items():
        name = source if source != "truth" else "the truth"
        sentences += [
            f"{quantity(budget).label} budget of {name} not audited: {reason}." for budget, reason in reasons.items()
        ]
    if budgets.has_budgets(view):
        inits = {source: _audited(view, source) for source in budgets.sources(view)}
        if len(set(inits.values())) > 1:
            sentences.append("Budgets were audited on different numbers of initial times: " + _counts(inits) + ".")
    return sentences


def _audited(view, source):
    total = view.scores["budget_total"].sel(audit_source=source)
    return int(total.notnull().any(["budget", "audit_lead_time"]).sum())


def _counts(inits):
    return ", ".join(f"{number} of {name}" for name, number in inits.items())
