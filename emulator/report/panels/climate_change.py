"""Long runs under other climates: how they respond, which year they resemble, and how they follow the tropical sea."""

import html
from functools import partial

import numpy as np

from emulator.report.display import head_cells, html_table, note, number, table, unit_cell
from emulator.report.panel import panel
from emulator.report.panels.climate import channels_of
from emulator.report.panels.long_climate import SHOWN, first_with, known_to, paired_maps, runs_of
from emulator.report.style import FORECAST_COLOURS, GREY, Panel, legend, multiples, png, svg
from emulator.report.view import View
from emulator.verify.headline import CLIMATE

UNKNOWN = "–"


@panel("long-run", 5, needs=("climate_response",))
def responses(view: View) -> list:
    """Table of the responses of all runs with a reference of their own, and maps of what is asked of a climate."""
    scores, first, rows = view.scores, runs_of(view)[0], []
    for channel in channels_of(view):
        for run in runs_of(view)[1:]:
            at = scores.sel(climate_run=run, climate_channel=channel)
            ours, theirs = at["climate_response"].values * view.factor(channel)
            if not np.isfinite(ours):
                continue
            share = f"{ours / theirs:.2f}" if theirs else "–"
            rows.append(
                f"{unit_cell(view.title(channel), view.units(channel))}<td>{html.escape(run)}</td>"
                f'<td>{number(ours)}</td><td>{number(theirs)}</td><td class="value">{share}</td>'
                f"<td>{number(float(at['climate_response_rmse']) * view.factor(channel))}</td>"
                f"<td>{_correlation(at)}</td><td>{_correlation(at, '_ceiling')}</td>"
            )
    if not rows:
        return []
    head = head_cells(
        (
            "Run",
            "Change of the global mean",
            "Of the reference",
            "Ratio",
            "Error of the map",
            "Correlation",
            "Its ceiling",
        )
    )
    caption = f"Change of the time mean from {html.escape(first)}, and from the truth to the run's own reference"
    about = (
        "The ceiling is the correlation that a perfect emulator would reach on average: the maps hold weather, of the run "
        "and of the reference, as much as their years differ among each other. Longer runs and more members raise it; of "
        "one year it is not known."
    )
    parts = [table("Response of the long runs", html_table(head, rows, caption)), note(about)]
    return [*parts, *filter(None, map(partial(_response_maps, view), _asked_for(view)))]


def _asked_for(view: View) -> list[str]:
    """Fields of `CLIMATE` of which some run has a response; where there is none of them, the first few of the table."""
    known = known_to(view, "climate_response_rmse")
    rank = dict(zip(view.scores["climate_channel"].values, view.scores.get("climate_rank", ()), strict=False))
    return [c for c in known if rank.get(c, np.nan) < len(CLIMATE)] or known[: len(CLIMATE)]


def _response_maps(view: View, channel: str) -> Panel | None:
    """Maps of the response of every run that has one, and of its reference; None on points."""
    maps, first = view.scores["climate_response_map"].sel(climate_channel=channel), runs_of(view)[0]
    if maps.dims[-1] == "cell":
        return None
    known = np.isfinite(view.scores["climate_response_rmse"].sel(climate_channel=channel).values)
    runs = [run for run, has in zip(runs_of(view), known, strict=True) if has]
    text = f"{view.title(channel)}: change from {first} to {', '.join(runs)}, and of their references."
    rows = [(run, f"reference of {run}") for run in runs]
    figure = paired_maps(view, maps.sel(climate_run=runs).values, channel, rows, view.units(channel))
    about = (
        "Maps of a row should have the same pattern: where the run's lacks a change it has not learnt what makes it."
    )
    return Panel("Response", text, about, png(figure, text))


def response_sentences(view: View) -> list[str]:
    """How each long run under another climate responds beside its reference, in the fields that are asked for first."""
    if "climate_response" not in view.scores:
        return []
    first, sentences = runs_of(view)[0], []
    for run in runs_of(view)[1:]:
        for channel in _asked_for(view):
            at = view.scores.sel(climate_run=run, climate_channel=channel)
            ours, theirs = at["climate_response"].values * view.factor(channel)
            if not np.isfinite(ours):
                continue
            correlation, ceiling = _correlation(at), _correlation(at, "_ceiling")
            alike = "" if correlation == UNKNOWN else f"; the maps of change correlate with {correlation}"
            alike += f", where a perfect emulator would reach {ceiling}" if alike and ceiling != UNKNOWN else ""
            sentences.append(
                f"{view.title(channel)} of {run}: {number(ours)} {view.units(channel)} from {first} on, {number(theirs)} of "
                f"the reference{alike}."
            )
    return sentences


def _correlation(at, kind: str = "") -> str:
    found = float(at.get(f"climate_response_correlation{kind}", np.nan))
    return f"{found:.2f}" if np.isfinite(found) else UNKNOWN


@panel("long-run", 44, needs=("climate_distance_to_year",))
def resemblance(view: View) -> Panel | None:
    """Distance of the runs' means to every year of their reference, and the year that each resembles."""
    scores, channels = view.scores, known_to(view, "climate_resembled_year")[:SHOWN]
    if not channels:
        return None
    figure, axes = multiples(len(channels))
    years, named, sentences = scores["climate_year"].values, {}, []
    for axis, channel in zip(axes, channels, strict=True):
        factor = view.factor(channel)
        for place, run in enumerate(runs_of(view)):
            at = scores.sel(climate_channel=channel, climate_run=run)
            if not np.isfinite(at["climate_resembled_year"]):
                continue
            colour = FORECAST_COLOURS[place % 6]
            named[run] = axis.plot(years, at["climate_distance_to_year"].values * factor, color=colour)[0]
            own = float(at["climate_own_year"])
            if np.isfinite(years[0]) and years[0] <= own <= years[-1]:
                named["own years"] = axis.axvline(own, color=GREY, linewidth=0.9, linestyle=(0, (1, 1.6)))
            chance = float(at["climate_distance_by_chance"]) * factor
            named["by chance"] = axis.axhline(chance, color=GREY, linewidth=0.9, linestyle="--")
            if channel == channels[0]:
                sentences.append(_resembled(view, at, run, channel, years))
        axis.set(title=f"{view.title(channel)} [{view.units(channel)}]", xlabel="year of the reference", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend(figure, named)
    return Panel(
        "Which year the mean resembles",
        "Root mean square distance of the run's mean map to that of every year of the reference; dashed: that of "
        "a single year by "
        "chance. " + " ".join(sentences),
        "After Landsberg and Barnes (2025): a run that was trained on a warming past may have the climate of years "
        "before its own. The year is the one on the reference's line that is nearest to the run's mean, with two "
        "standard errors from the reference's own years.",
        svg(figure, "Distance of the runs' means to the years of the reference.", "resemblance"),
    )


def _resembled(view: View, at, run: str, channel: str, years) -> str:
    found, own, half = (float(at[f"climate_{n}"]) for n in ("resembled_year", "own_year", "resembled_year_error"))
    if 2 * half > np.ptp(years):
        return f"{view.title(channel)}: the reference has no trend by which the years of {run} could be told."
    when = f"{found:.1f} ± {2 * half:.1f}"
    return f"{view.title(channel)}: {run} resembles {when}, the middle of its own years is {own:.1f}."


@panel("long-run", 46, needs=("climate_sea_regression_map",))
def tropical_sea(view: View) -> list:
    """Maps of the regression on the sea of the tropical Pacific, of run and reference."""
    channels = known_to(view, "climate_sea_regression_rmse")
    if not channels or view.scores["climate_sea_regression_map"].dims[-1] == "cell":
        return []
    channel = channels[0]
    run = first_with(view, "climate_sea_regression_rmse", channel)
    at, factor = view.scores.sel(climate_run=run, climate_channel=channel), view.factor(channel)
    error, own = (float(at[f"climate_sea_regression_{name}"]) * factor for name in ("rmse", "error"))
    text = (
        f"{view.title(channel)} per kelvin of the sea temperature of the tropical Pacific (Nino 3.4): {run} and "
        f"the reference "
        f"correlate with {at['climate_sea_regression_correlation']:.2f} over the area and differ by {number(error)} "
        f"{view.units(channel)}/K (root mean square), where the reference's own is sure to {number(own)} (a "
        f"standard error)."
    )
    figure = paired_maps(
        view, at["climate_sea_regression_map"].values[None], channel, [(run, "reference")], f"{view.units(channel)}/K"
    )
    about = "The run was given the sea; what the air makes of it far away is its own."
    return [Panel("Regression on the tropical sea", text, about, png(figure, text))]
