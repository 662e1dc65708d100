"""Extremes and rain: are they forecast at all, and in the right place?"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from emulator.report.maps import FROM_ZERO
from emulator.report.panel import panel
from emulator.report.style import GREY, PALE, WIDTH, Panel, legend, line_style, span, svg
from emulator.report.view import View

SHOWN = 6
DOUBLE = "Rain that falls one cell beside the truth is counted twice as wrong by the usual error."


@panel("extremes", 10, needs=("sedi", "frequency_bias"))
def extremes_panel(view: View) -> Panel:
    """Frequency bias and SEDI of events against lead."""
    channels = view.mapped(SHOWN)
    levels = [float(q) for q in view.scores["event"].values]
    figure = Figure(figsize=(WIDTH, 4.0))
    axes = figure.subplots(2, len(channels), squeeze=False, sharex=True, sharey="row")
    named = {}
    for column, channel in enumerate(channels):
        for row, score in enumerate(("sedi", "frequency_bias")):
            axis = axes[row, column]
            axis.axhline(row, color=PALE, linewidth=1.2)
            for position, name in enumerate([*view.forecasts, "persistence"]):
                for level in levels if view.variable(channel) not in FROM_ZERO else levels[-1:]:
                    at = view.scores[score].sel(forecast=name, map_channel=channel, event=level, region=view.regions[0])
                    style = line_style(name, position)
                    if len(levels) > 1 and level < 0.5:
                        style |= {"alpha": 0.5, "linewidth": 1.1}
                    kind = f"{name}, {'highest' if level >= 0.5 else 'lowest'} {100 * min(level, 1 - level):g} %"
                    named[kind] = axis.plot(view.leads, at.values, **style)[0]
            axis.tick_params(labelsize=7)
            span(axis, view.leads[0], view.leads[-1])
            if row == 0:
                axis.set_title(view.title(channel).replace(", ", "\n"), fontsize=8.5)
                axis.set_ylim(-0.05, 1.02)
            else:
                axis.set_ylim(0, _often(view, channels, levels))
    axes[0, 0].set_ylabel("SEDI", fontsize=7.5)
    axes[1, 0].set_ylabel("frequency bias", fontsize=7.5)
    figure.supxlabel(f"lead [{view.unit}s]", fontsize=8.5)
    legend(figure, named, 3)
    return Panel(
        "Extremes",
        "Values beyond the quantiles of their hour, season and place in the climatology's record. Top: symmetric extremal "
        "dependence index; bottom: how often they were forecast over how often they happened.",
        "SEDI is 1 for a perfect forecast and 0 for chance, and does not fade as events get rarer. A frequency bias below "
        "one means that the forecast is too tame: a network that blurs loses the extremes first.",
        svg(
            figure,
            f"SEDI and frequency bias of extremes against lead for {', '.join(map(view.title, channels))}.",
            "extremes",
        ),
    )


def _often(view, channels, levels) -> float:
    """Upper limit of the frequency bias: twice, or as far as the forecasts go, up to five times."""
    shown = view.scores["frequency_bias"].sel(map_channel=channels, event=levels, region=view.regions[0])
    values = shown.sel(forecast=[*view.forecasts, "persistence"]).values
    return float(np.clip(1.05 * np.max(values[np.isfinite(values)], initial=0.0), 2.0, 5.0))


@panel("extremes", 20)
def rain_panel(view: View) -> Panel | None:
    """SEEPS and fraction skill score of precipitation; None without them."""
    known = [n for n in ("seeps", "fss") if n in view.scores and np.isfinite(view.scores[n]).any()]
    if not known:
        return None
    first = view.scores[known[0]]
    rainy = [str(c) for c in first["map_channel"].values if np.isfinite(first.sel(map_channel=c)).any()]
    channel = rainy[0]
    figure = Figure(figsize=(WIDTH, 2.6))
    axes = figure.subplots(1, len(known) + ("fss" in known), squeeze=False)[0]
    named = {}
    for axis, score in zip(axes, known, strict=False):
        for position, name in enumerate([*view.forecasts, "persistence"]):
            at = view.scores[score].sel(forecast=name, map_channel=channel, region=view.regions[0])
            if score == "fss":
                at = at.isel(event=-1).sel(window=5)
            named[name] = axis.plot(view.leads, at.values, **line_style(name, position))[0]
        axis.set(
            title={"seeps": "SEEPS", "fss": "FSS, 5 x 5 cells"}[score], xlabel=f"lead [{view.unit}s]", ylim=(0, None)
        )
    if "fss" in known:
        axis, lead = axes[-1], view.judged_lead()
        for position, name in enumerate([*view.forecasts, "persistence"]):
            at = view.scores["fss"].sel(forecast=name, map_channel=channel, region=view.regions[0])
            values = at.isel(event=-1, lead_time=lead).values
            axis.plot(view.scores["window"].values, values, marker="o", markersize=3, **line_style(name, position))
        axis.axhline(0.5, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        axis.set(title=f"FSS at {view.unit} {view.leads[lead]:g}", xlabel="width of the window [cells]", ylim=(0, None))
    legend(figure, named)
    told = _rain_told(view, known)
    return Panel(
        "Precipitation",
        " ".join(told[score].asks for score in known),
        " ".join([DOUBLE, *(told[score].about for score in known)]),
        svg(figure, f"{' and '.join(told[score].name for score in known)} of precipitation against lead.", "rain"),
    )


class _Told(NamedTuple):
    """What is said of a score: its name, what it asks, and how it is to be read."""

    name: str
    asks: str
    about: str


def _rain_told(view, known) -> dict[str, _Told]:
    asks = "SEEPS: dry, light or heavy by the cell's own climate, 0 is perfect."
    told = {"seeps": _Told("SEEPS", asks, "SEEPS asks only for the right category.")}
    if "fss" in known:
        event = 100 * float(view.scores["event"].values[-1])
        asks = f"FSS: is the share of cells above the {event:g} % quantile right in the neighbourhood?"
        about = "The fraction skill score forgives a displacement within its window, and 0.5 marks useful forecasts."
        told["fss"] = _Told("Fraction skill score", asks, about)
    return told
