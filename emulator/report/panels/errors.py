"""Scores against lead as small multiples: error, CRPS, anomaly correlation, bias and activity."""

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import lead_label, number, over_region
from emulator.report.panel import panel
from emulator.report.style import GREY, PALE, WIDTH, Panel, legend, line_styles, multiples, span, svg
from emulator.report.view import View

SHOWN = 6


@panel("error", 10, needs=("rmse",))
def error_panel(view: View) -> Panel:
    """RMSE against lead with intervals, baselines and the crossing of climatology."""
    figure, readings = _errors(view, "rmse")
    alt = f"Root mean square error against lead. {readings}"
    return Panel(
        "Error against lead",
        f"Root mean square error {over_region(view.regions[0])}; ribbons are 95 % intervals (block bootstrap over initial "
        "times; below 11 of them Student's t). A vertical line marks where the forecast stops beating climatology.",
        "Lower is better. Persistence says that tomorrow's weather is today's; climatology knows only the date. A forecast "
        "is worth having while its line stays below both. The root is taken after averaging over all forecasts."
        + (" Analyses that are held say that tomorrow is as today was analysed, not as it was." if view.held else ""),
        svg(figure, alt, "error"),
    )


@panel("error", 20, needs=("crps",))
def crps_panel(view: View) -> Panel:
    """CRPS against lead with intervals, baselines and the crossing of climatology."""
    figure, readings = _errors(view, "crps")
    return Panel(
        "CRPS against lead",
        f"Fair continuous ranked probability score {over_region(view.regions[0])}; ribbons are 95 % intervals (block "
        "bootstrap over initial times; below 11 of them Student's t). For a single forecast, and for both baselines, it is "
        "the mean absolute error.",
        "The CRPS judges all members at once, in the unit of the field; lower is better. Where the error of the mean rewards "
        "a smooth forecast, this rewards one that gives every outcome its right chance.",
        svg(figure, f"Continuous ranked probability score against lead. {readings}", "crps"),
    )


def _errors(view, score) -> tuple[Figure, str]:
    """Lines of a score in the unit of the field, and its values in words."""
    figure, axes = multiples(min(len(view.headline), SHOWN))
    for axis, channel in zip(axes, view.headline, strict=False):
        for name, style in line_styles(view).items():
            _ribbon(axis, view, score, name, channel, style)
            axis.plot(view.leads, view.get(score, name, channel), label=name, **style)
        if view.forecasts:
            day, crosses = view.useful_until(view.main, channel, score)
            if crosses and day > 0:
                axis.axvline(day, color=GREY, linewidth=0.8, zorder=0)
                late = day > (view.leads[0] + view.leads[-1]) / 2
                where = {"xytext": (-3 if late else 3, 3), "ha": "right" if late else "left"}
                axis.annotate(
                    f"{view.unit} {day:.1f}", (day, 0), **where, textcoords="offset points", fontsize=8, color=GREY
                )
        _finish(axis, view, channel, zero=score)
    _legend(figure, axes)
    return figure, " ".join(_reading(view, channel, score) for channel in view.headline[:SHOWN])


def _ribbon(axis, view, score, name, channel, style) -> None:
    if name in view.forecasts:
        low, high = view.interval(score, name, channel)
        axis.fill_between(view.leads, low, high, color=style["color"], alpha=0.18, linewidth=0)


@panel("error", 30, needs=("acc",))
def correlation_panel(view: View) -> Panel:
    """Anomaly correlation against lead."""
    figure, axes = multiples(min(len(view.headline), SHOWN))
    for axis, channel in zip(axes, view.headline, strict=False):
        axis.axhline(0.6, color=PALE, linewidth=1.2)
        for name, style in line_styles(view).items():
            if name != "climatology":
                values = view.get("acc", name, channel, scaled=False)
                _ribbon(axis, view, "acc", name, channel, style)
                axis.plot(view.leads, values, label=name, **style)
        _finish(axis, view, channel, unit="")
        axis.set_ylim(min(0, axis.get_ylim()[0]), 1.02)
    _legend(figure, axes)
    return Panel(
        "Anomaly correlation",
        "Correlation of forecast and true departures from climatology (WeatherBench 2 form: per forecast, then the mean); "
        "ribbons are 95 % intervals. The pale line marks 0.6; climatology has none, by definition.",
        "1 is a perfect pattern, 0 none at all. Forecasters have long taken 0.6 as the limit up to which the position of "
        "highs and lows is useful.",
        svg(figure, f"Anomaly correlation against lead for {_names(view)}.", "correlation"),
    )


@panel("error", 40, needs=("bias", "activity"))
def bias_panel(view: View) -> Panel:
    """Bias and activity against lead."""
    shown = view.headline[:SHOWN]
    columns = len(shown)
    figure = Figure(figsize=(WIDTH, 3.9))
    grid = figure.subplots(2, columns, squeeze=False, sharex=True)
    for column, channel in enumerate(shown):
        for row, name in enumerate(("bias", "activity")):
            axis = grid[row, column]
            axis.axhline(row, color=PALE, linewidth=1.2)
            for forecast, style in line_styles(view).items():
                if forecast == "climatology":
                    continue
                values = view.get(name, forecast, channel, scaled=name == "bias")
                axis.plot(view.leads, values, label=forecast, **style)
            axis.tick_params(labelsize=7)
            if row == 0:
                axis.set_title(view.title(channel).replace(", ", "\n"), fontsize=8.5)
                axis.set_ylabel(
                    f"bias [{view.units(channel)}]" if column == 0 else f"[{view.units(channel)}]", fontsize=7.5
                )
            elif column == 0:
                axis.set_ylabel("activity ratio", fontsize=7.5)
            span(axis, view.leads[0], view.leads[-1])
    figure.supxlabel(f"lead [{view.unit}s]", fontsize=8.5)
    _legend(figure, grid.ravel())
    return Panel(
        "Bias and activity",
        "Top: mean error. Bottom: size of the departures from climatology relative to the truth's.",
        "A bias away from zero means that the forecast drifts warm, moist or heavy. An activity below one means that it "
        "grows too smooth: a network may lower its error by blurring, and this shows when it does.",
        svg(figure, f"Bias and activity ratio against lead for {_names(view)}.", "bias"),
    )


def _finish(axis, view, channel, unit=None, zero=None):
    unit = view.units(channel) if unit is None else unit
    axis.set_title(view.title(channel) + (f" [{unit}]" if unit else ""))
    span(axis, min(view.leads[0], 0), view.leads[-1])
    if zero:
        axis.set_ylim(0, _upper(view, channel, zero))
    axis.set_xlabel(f"lead [{view.unit}s]")


def _upper(view, channel, score):
    """An upper limit that keeps the baselines readable when a forecast blows up."""
    baselines = np.concatenate([view.get(score, name, channel) for name in (*view.held, *view.baselines)])
    tops = [np.fmax(view.get(score, name, channel), view.interval(score, name, channel)[1]) for name in view.forecasts]
    ours = np.concatenate(tops or [baselines])
    ours, baselines = ours[np.isfinite(ours)], baselines[np.isfinite(baselines)]
    top = baselines.max(initial=0.0)
    highest = max(ours.max(initial=0.0), top)
    return 1.05 * (min(highest, 2.5 * top) if top > 0 else highest) or 1.0


def _legend(figure, axes):
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    legend(figure, handles)


def _names(view):
    return ", ".join(view.lines)


def _reading(view, channel, score):
    at = view.judged_lead((1, 3, 5, 10))
    parts = [f"{name} {number(view.get(score, name, channel)[at])}" for name in view.lines]
    day = lead_label(view.scores["lead_time"].values[at])
    return f"{view.title(channel)} at {day}: {', '.join(parts)} {view.units(channel)}."
