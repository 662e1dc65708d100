"""Long runs by years, beside the reference's own spread from year to year: a table, and lines and maps of single ideas."""

import html
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import head_cells, html_table, note, number, table
from emulator.report.maps import colour_bar, frame, symmetric
from emulator.report.panel import panel
from emulator.report.panels.climate import channels_of
from emulator.report.style import DIVERGING, FORECAST_COLOURS, INK, PALE, WIDTH, Panel, legend, multiples, png, svg
from emulator.report.view import View

SHOWN, MAPS = 3, 3
STILL = 0.5  # of the spread: a smaller bias of the global mean is no other climate


@panel("long-run", 30, needs=("climate_year_bias_rmse",))
def by_years(view: View) -> list:
    """Table of all runs and fields, and what was left out."""
    scores = view.scores
    told = [f"{run}: {years}" for run, years in _texts(view, "climate_years") if years]
    left_out = {why for _, why in _texts(view, "climate_sea_index") if why and why != "no whole year"}
    sentences = ["Whole years alone. " + "; ".join(told) + "."] if told else []
    sentences += [f"No regression on the tropical sea: {why}." for why in sorted(left_out)]
    if not np.isfinite(scores["climate_year_bias_rmse"]).any():
        return []
    if not np.isfinite(scores["climate_global_spread"]).any():
        drift = scores.get("climate_drift")
        if drift is None or not np.isfinite(drift).any():  # a year beside a year: the table of climates has told it
            return []
        sentences.append("A reference of one year has no spread: which biases are chance cannot be told.")
    return [table("Climate of the long runs by years", climate_by_years(view)), *map(note, sentences)]


def climate_by_years(view: View) -> str:
    """HTML table: bias, drift, variability, cycle, extremes and trend, each with what the reference's own years give."""
    rows = []
    for run in runs_of(view):
        for channel in channels_of(view):
            at = view.scores.sel(climate_run=run, climate_channel=channel)
            if not np.isfinite(at["climate_year_bias_rmse"]):
                continue
            value = _reader(at, view.factor(channel))
            bias, own = value("global_bias"), value("global_spread")
            kind = "unsure" if not np.isfinite(own) or abs(bias) <= STILL * own else "worse"
            share = float(at["climate_bias_beyond_chance"])
            cells = (
                f'<td class="{kind}">{number(bias)}{_own(own)}</td>'
                f'<td class="value">{number(value("year_bias_rmse"))}{_own(value("year_spread_rmse"))}</td>'
                f"<td>{f'{100 * share:.0f} %' if np.isfinite(share) else '–'}</td>"
                f"<td>{_drift(value)}</td>"
                f"<td>{_ratio(at)}</td>"
                f"<td>{number(value('cycle_error'))}{_own(value('cycle_spread'))}</td>"
                f"<td>{number(value('maximum_bias_rmse'))}{_own(value('maximum_spread_rmse'))}</td>"
            )
            unit = f' <span class="unit">{html.escape(view.units(channel))}</span>'
            rows.append(
                f'<th scope="row">{html.escape(view.title(channel))}{unit}</th><td>{html.escape(run)}</td>{cells}'
            )
    names = ("Run", "Global mean, bias", "Bias, root mean square", "Bias beyond chance, area", "Drift over the run")
    names = (*names, "Variability of years, ratio", "Annual cycle, error", "Annual maximum, error")
    caption = (
        "Long runs by years; small: the reference's own spread from year to year (of the ratio and the drift two "
        "standard errors). Coloured: a bias of the global mean of more than half of that spread"
    )
    return html_table(head_cells(names), rows, caption)


def _reader(at, factor: float):
    return lambda name: float(at[f"climate_{name}"]) * factor if f"climate_{name}" in at else float("nan")


def _own(value: float) -> str:
    return f'<span class="interval">{number(value)}</span>' if np.isfinite(value) else ""


def _drift(value) -> str:
    half = 2 * value("drift_error")
    return number(value("drift")) + (f'<span class="interval">± {number(half)}</span>' if np.isfinite(half) else "")


def _ratio(at) -> str:
    if "climate_year_deviation_ratio" not in at or not np.isfinite(at["climate_year_deviation_ratio"]):
        return "–"
    ratio, error = (float(at[f"climate_year_deviation_ratio{end}"]) for end in ("", "_error"))
    return f'{ratio:.2f}<span class="interval">± {2 * error:.2f}</span>'


@panel("long-run", 32, needs=("climate_year_series",))
def annual_means(view: View) -> Panel | None:
    """Global means of all years: members as lines, the reference with the band of its spread."""
    scores, runs = view.scores, runs_of(view)
    channels = known_to(view, "climate_year_series_reference")[:SHOWN]
    if not channels or (scores["climate_year_series"].notnull().sum("climate_year") < 2).all():
        return None
    figure, axes = multiples(len(channels))
    years, named = scores["climate_year"].values, {}
    for axis, channel in zip(axes, channels, strict=True):
        factor = view.factor(channel)
        at = scores.sel(climate_channel=channel)
        for place, name in enumerate(dict.fromkeys(_references(view).values())):
            run = next(r for r, reference in _references(view).items() if reference == name)
            series = at["climate_year_series_reference"].sel(climate_run=run).values * factor
            spread = float(at["climate_global_spread"].sel(climate_run=run)) * factor
            here = np.isfinite(series)
            if np.isfinite(spread):
                mean = np.poly1d(np.polyfit(years[here], series[here], 1 if here.sum() > 4 else 0))(years[here])
                axis.fill_between(years[here], mean - 2 * spread, mean + 2 * spread, color=PALE, linewidth=0, alpha=0.6)
            style = {"color": INK, "linestyle": (0, (1, 1.4)), "linewidth": 1.6}
            named["reference, ± 2 spreads"] = axis.plot(years[here], series[here], zorder=3 + place, **style)[0]
        for place, run in enumerate(runs):
            for member in at["climate_year_series"].sel(climate_run=run).values * factor:
                here = np.isfinite(member)
                style = {
                    "color": FORECAST_COLOURS[place % 6],
                    "linewidth": 1.0,
                    "marker": "." if here.sum() < 3 else None,
                }
                named[run] = axis.plot(years[here], member[here], **style)[0]
        axis.set(title=f"{view.title(channel)} [{view.units(channel)}]", xlabel="year")
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend(figure, named)
    return Panel(
        "Global means of the years",
        "Every member a line; the reference dotted, with a band of twice its own spread about its mean or its line.",
        "A run without drift stays within the band. One that leaves it has found a climate of its own; years of the "
        "run beyond the reference's are beside nothing.",
        svg(figure, f"Annual global means of {', '.join(runs)} and the reference.", "years"),
    )


@panel("long-run", 34, needs=("climate_year_spread_map",))
def biases_in_spreads(view: View) -> Panel | None:
    """Maps of the bias in units of the reference's spread."""
    scores = view.scores
    bias, spread = scores["climate_year_bias_map"], scores["climate_year_spread_map"]
    maps = bias / spread.where(spread > 0)
    return _maps(
        view,
        maps,
        "Mean bias, in spreads of the reference's years",
        "Time mean of all members minus the reference's, over the standard deviation of its annual means in the "
        "same cell.",
        "Colours near white: a bias that a single year of the reference has by chance. Where the reference hardly "
        "varies a small bias is many spreads.",
    )


@panel("long-run", 36, needs=("climate_year_deviation_ratio_map",))
def variability(view: View) -> Panel | None:
    """Maps of the ratio of year-to-year deviations, as powers of two."""
    ratio = view.scores["climate_year_deviation_ratio_map"]
    maps = np.log2(ratio.where(ratio > 0))
    return _maps(
        view,
        maps,
        "Variability from year to year",
        "Standard deviation of annual means, run over reference, as a power of two: 1 is twice as variable, −1 half.",
        "Blue: the run's years are too much alike, as of a model that has settled. With few years a ratio of single "
        "cells is mostly chance; the table has it for the whole area.",
    )


@panel("long-run", 38, needs=("climate_trend_map",))
def trends(view: View) -> list:
    """Maps of the trends of run and reference, and a sentence on their patterns."""
    scores, channels = view.scores, known_to(view, "climate_trend_rmse")
    if not channels or scores["climate_trend_map"].dims[-1] == "cell":
        return []
    run, channel = first_with(view, "climate_trend_rmse", channels[0]), channels[0]
    at = scores.sel(climate_run=run, climate_channel=channel)
    figure = paired_maps(
        view, at["climate_trend_map"].values[None], channel, [(run, "reference")], f"{view.units(channel)} a decade"
    )
    factor = view.factor(channel)
    size, error = float(at["climate_trend_rmse"]) * factor, float(at["climate_trend_error_rmse"]) * factor
    text = (
        f"{view.title(channel)}: the trends of {run} and of the reference correlate with "
        f"{at['climate_trend_correlation']:.2f} over "
        f"the area; their difference is {number(size)} {view.units(channel)} a decade (root mean square), where "
        f"the reference's "
        f"own trend is sure to {number(error)} (a standard error)."
    )
    figure = Panel(
        "Trends",
        "Least-squares line of the annual means, members' mean and reference. " + text,
        "A difference of up to two standard errors of the reference's own trend says nothing against the run. A run "
        "under a fixed annual cycle of the sea should have none.",
        png(figure, text),
    )
    return [figure]


@panel("long-run", 40, needs=("climate_power",))
def spectra(view: View) -> Panel | None:
    """Ratio of the spectra to the reference's mean, with the range of its own years."""
    scores, runs, channels = view.scores, runs_of(view), known_to(view, "climate_global_bias")[:SHOWN]
    channels = [c for c in channels if scores["climate_power"].sel(climate_channel=c).notnull().any()]
    if not channels:
        return None
    figure, axes = multiples(len(channels))
    named = {}
    for axis, channel in zip(axes, channels, strict=True):
        at = scores.sel(climate_channel=channel)
        mean = at["climate_power"].isel(climate_run=0, climate_record=1).values
        shown = np.flatnonzero(mean > 1e-12 * mean[1:].max())
        shown = shown[shown > 0]
        low, high = (at[f"climate_power_{end}"].isel(climate_run=0).values[shown] for end in ("lowest", "highest"))
        axis.fill_between(shown, low / mean[shown], high / mean[shown], color=PALE, linewidth=0)
        for place, run in enumerate(runs):
            power = at["climate_power"].sel(climate_run=run).values
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = power[0, shown] / power[1, shown]
            named[run] = axis.plot(shown, ratio, color=FORECAST_COLOURS[place % 6])[0]
        axis.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (1, 1.4)))
        axis.set(title=view.title(channel), xlabel="wavenumber", xscale="log", ylim=(0, None))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
    legend(figure, named)
    return Panel(
        "Spectra of the long runs",
        "Mean power by wavenumber over the reference's; band: the least and the most of the reference's own years.",
        "A line that falls to the right is a field that grows smooth; one that rises there is noise that builds up. "
        "Within the band it is as a year of the reference.",
        svg(figure, f"Power of {', '.join(runs)} over the reference's, by wavenumber.", "climatepower"),
    )


def _maps(view: View, maps, title: str, caption: str, about: str) -> Panel | None:
    """Maps of what has no unit: three fields of every run."""
    if maps.dims[-1] == "cell":
        return None
    channels = [c for c in channels_of(view) if np.isfinite(maps.sel(climate_channel=c)).any()][:MAPS]
    runs = [run for run in runs_of(view) if np.isfinite(maps.sel(climate_run=run)).any()][:MAPS]
    if not channels or not runs:
        return None
    figure = Figure(figsize=(WIDTH, 1.85 * len(runs)))
    shared = frame(view.scores)
    axes = figure.subplots(
        len(runs), max(len(channels), 2), squeeze=False, subplot_kw={"projection": shared.projection}
    )
    for axis in axes[:, len(channels) :].ravel():
        axis.set_visible(False)
    style = symmetric(maps.sel(climate_channel=channels, climate_run=runs).values, DIVERGING)
    style |= {"vmin": -min(style["vmax"], 4.0), "vmax": min(style["vmax"], 4.0)}
    for row, run in zip(axes, runs, strict=True):
        for axis, channel in zip(row, channels, strict=False):
            image = shared.draw(axis, maps.sel(climate_run=run, climate_channel=channel).values, style)
            axis.set_title("\n".join([view.title(channel), *([run] if len(runs) > 1 else [])]))
    colour_bar(figure, image, axes, "")
    return Panel(title, caption, about, png(figure, f"{title}: maps of {', '.join(map(view.title, channels))}."))


def paired_maps(view: View, values: np.ndarray, channel: str, rows: Sequence[tuple[str, str]], unit: str) -> Figure:
    """Maps `(row, 2, *space)` of one field, of runs and references whose names `rows` has, all in the same colours."""
    figure, shared = Figure(figsize=(WIDTH * 2 / 3, 2.0 * len(rows))), frame(view.scores)
    axes = figure.subplots(len(rows), 2, squeeze=False, subplot_kw={"projection": shared.projection})
    style = symmetric(values * view.factor(channel), DIVERGING)
    for of_row, fields, names in zip(axes, values, rows, strict=True):
        for axis, field, name in zip(of_row, fields, names, strict=True):
            image = shared.draw(axis, field * view.factor(channel), style)
            axis.set_title(f"{view.title(channel)}\n{name}")
    colour_bar(figure, image, list(axes.ravel()), unit)
    return figure


def runs_of(view: View) -> list[str]:
    return [str(run) for run in view.scores["climate_run"].values]


def _references(view: View) -> dict[str, str]:
    """Run -> what it is compared with; older scores have the truth alone."""
    return dict(_texts(view, "climate_reference", "truth"))


def _texts(view: View, name: str, absent: str = "") -> list[tuple[str, str]]:
    texts = view.scores[name].values if name in view.scores else [absent] * len(runs_of(view))
    return [(run, str(text)) for run, text in zip(runs_of(view), texts, strict=True)]


def known_to(view: View, name: str) -> list[str]:
    """Fields, those of the first page first, of which some run has a score."""
    if name not in view.scores:
        return []
    return [c for c in channels_of(view) if np.isfinite(view.scores[name].sel(climate_channel=c)).any()]


def first_with(view: View, name: str, channel: str) -> str:
    known = np.isfinite(view.scores[name].sel(climate_channel=channel).values)
    return runs_of(view)[int(np.argmax(known))]
