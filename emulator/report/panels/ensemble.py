"""Ensembles: spread against error, where the truth ranks among the members, and whether probabilities hold."""

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import number, tail_of
from emulator.report.panel import panel
from emulator.report.style import FORECAST_COLOURS, GREY, PALE, WIDTH, Panel, legend, line_style, multiples, span, svg
from emulator.report.view import View
from emulator.verify.metrics.events import roc

SHOWN = 6


@panel("ensemble", 10, needs=("spread_skill",))
def spread_panel(view: View) -> Panel | None:
    """Spread and error of the ensemble mean against lead; None without an ensemble."""
    if not view.ensembles():
        return None
    channels = view.headline[:SHOWN]
    figure, axes = multiples(len(channels), 2.2, 0.5)
    named = {}
    for axis, channel in zip(axes, channels, strict=False):
        for name in view.ensembles():
            style = line_style(name, view.forecasts.index(name))
            count = view.members(name)
            spread = view.get("spread", name, channel) * np.sqrt((count + 1) / count)
            named[f"{name}: error of the mean"] = axis.plot(view.leads, view.get("rmse", name, channel), **style)[0]
            thin = style | {"linewidth": 1.2, "linestyle": (0, (1, 1))}
            named[f"{name}: spread"] = axis.plot(view.leads, spread, **thin)[0]
        axis.set(title=view.title(channel) + f" [{view.units(channel)}]", xlabel=f"lead [{view.unit}s]", ylim=(0, None))
        span(axis, min(view.leads[0], 0), view.leads[-1])
    legend(figure, named, 3)
    at = view.judged_lead((1, 3, 5, 10))
    name = view.ensembles()[0]
    readings = ", ".join(f"{view.title(c)} {number(_ratio(view, name, c)[at])}" for c in channels)
    return Panel(
        "Spread and error of the ensemble",
        "Error of the ensemble mean, and ensemble spread (times the root of (M + 1)/M), against lead. "
        f"Spread over error of {name} at {view.unit} {view.leads[at]:g}: {readings}.",
        "In a reliable ensemble the dotted line of the spread lies on the line of the error: it knows how wrong it may be. A "
        "spread below the error is overconfidence.",
        svg(figure, f"Ensemble spread and error of the mean against lead. {readings}.", "spread"),
    )


def _ratio(view, name, channel):
    return view.get("spread_skill", name, channel, scaled=False)


@panel("ensemble", 20, needs=("rank_histogram",))
def rank_panel(view: View) -> Panel | None:
    """Rank histograms of the first ensemble at a few leads."""
    if not view.ensembles():
        return None
    name = view.ensembles()[0]
    members, channels, leads = view.members(name), view.mapped(SHOWN), view.table_leads()
    figure, axes = multiples(len(channels), 1.9, 0.5)
    ranks = np.arange(members + 1)
    for axis, channel in zip(axes, channels, strict=False):
        at = view.scores["rank_histogram"].sel(forecast=name, map_channel=channel, region=view.regions[0])
        for position, lead in enumerate(leads):
            share = at.isel(lead_time=lead).values[: members + 1] * (members + 1)
            axis.step(
                ranks,
                share,
                where="mid",
                color=FORECAST_COLOURS[position % 6],
                linewidth=1.5,
                label=f"{view.unit} {view.leads[lead]:g}",
            )
        axis.axhline(1, color=GREY, linewidth=0.8)
        axis.set(title=view.title(channel), xlabel="rank of the truth", ylim=(0, None))
    axes[0].set_ylabel("frequency, flat = 1")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return Panel(
        "Where the truth ranks among the members",
        f"Rank histogram of {name} by area, relative to a flat one; ties are shared among the ranks.",
        "Sort the members from low to high: in a reliable ensemble the truth is equally often in every gap: a flat line. "
        "A U means too little spread, a dome too much, a slope a bias.",
        svg(figure, f"Rank histograms of {name} for {', '.join(map(view.title, channels))}.", "rank"),
    )


@panel("ensemble", 30, needs=("sum_reliability_weight", "roc_area"))
def reliability_panel(view: View) -> Panel | None:
    """Reliability and ROC of the upper event at one lead."""
    if not view.ensembles():
        return None
    name, channels = view.ensembles()[0], view.mapped(3)
    event = float(view.scores["event"].values[-1])
    lead = view.judged_lead()
    place = {"forecast": name, "event": event, "region": view.regions[0]}
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, len(channels) + 1, squeeze=False)[0]
    for position, channel in enumerate(channels):
        at = view.scores[[n for n in view.scores if str(n).startswith("sum_reliability")]]
        at = at.sel(place | {"map_channel": channel}).isel(lead_time=lead)
        weight = at["sum_reliability_weight"].values
        given = weight > 1e-6 * weight.sum()
        said = at["sum_reliability_probability"].values[given] / weight[given]
        was = at["sum_reliability_event"].values[given] / weight[given]
        axis, colour = axes[position], FORECAST_COLOURS[position]
        axis.plot([0, 1], [0, 1], color=PALE, linewidth=1.2)
        if "reliability_bar" in view.scores:
            bars = (
                view.scores["reliability_bar"].sel(place | {"map_channel": channel}).isel(lead_time=lead).values[given]
            )
            axis.errorbar(said, said, bars, fmt="none", ecolor=GREY, elinewidth=0.9, capsize=2)
        base = at["sum_reliability_event"].values.sum() / weight.sum()
        axis.axhline(base, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        axis.plot(said, was, color=colour)
        axis.scatter(said, was, s=6 + 90 * weight[given] / weight.sum(), color=colour, zorder=3)
        axis.set(title=view.title(channel), xlabel="forecast probability", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        renamed = at.rename({n: str(n).removeprefix("sum_") for n in at.data_vars})
        hit, false = roc(renamed)
        area = float(view.scores["roc_area"].sel(place | {"map_channel": channel}).isel(lead_time=lead))
        axes[-1].plot(false.values, hit.values, color=colour, label=f"{view.title(channel)}: {area:.2f}")
    axes[0].set_ylabel("how often it happened")
    axes[-1].plot([0, 1], [0, 1], color=PALE, linewidth=1.2)
    axes[-1].set(title="ROC", xlabel="false alarm rate", ylabel="hit rate")
    axes[-1].legend(loc="lower right", fontsize=7, title="area", title_fontsize=7)
    return Panel(
        "Probabilities of extremes",
        f"{name} at {view.unit} {view.leads[lead]:g}: the event is a value {tail_of(event)} of its "
        "hour, season and place. Size of the dots: how often a probability was given. Bars: where nine of ten dots of a "
        "reliable forecast lie; none for probabilities given at fewer than four initial times. Dotted: how often the event "
        "happened at all.",
        "When 30 % is forecast it should happen in 30 % of the cases: the points then lie on the diagonal, within the bars. "
        "Below it the forecast cries wolf. The ROC curve shows what hit rate costs which false alarm rate: an area of 0.5 is "
        "no skill, 1 perfect.",
        svg(figure, f"Reliability and ROC of {name}.", "reliability"),
    )
