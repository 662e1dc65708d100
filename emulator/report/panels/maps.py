"""One forecast beside the truth, and the mean error, as maps."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import days, lead_label
from emulator.report.maps import colour_bar, colours_of, difference_maps, frame, symmetric
from emulator.report.panel import panel
from emulator.report.style import DIVERGING, WIDTH, Panel, png
from emulator.report.view import View

SHOWN, LABEL = 6, 20  # fields; characters in a line beside a row of maps
SKIPPED = ("v_component_of_wind",)  # shows the same waves as the zonal wind


@panel("maps", 10, needs=("case_forecast",))
def typical(view: View) -> Panel | None:
    return case_panel(view)


@panel("maps", 30, needs=("case_forecast",))
def extremes(view: View) -> list[Panel | None]:
    return [case_panel(view, "best"), case_panel(view, "worst")]


def case_panel(view: View, case: str = "typical") -> Panel | None:
    """Forecast, truth and their difference for the headline channels at one lead; None on points."""
    scores = view.scores
    if scores["case_forecast"].dims[-1] == "cell" or case not in scores["case"]:
        return None
    lead = _nearest(view)
    channels = _channels(view)
    picked = scores.sel(case=case, map_channel=channels).isel(map_lead=lead)
    shared = frame(scores)
    figure = Figure(figsize=(WIDTH, 1.42 * len(channels) + 0.3))
    axes = figure.subplots(len(channels), 3, squeeze=False, subplot_kw={"projection": shared.projection})
    for row, channel in enumerate(channels):
        factor = view.factor(channel)
        forecast, truth = (
            picked[name].sel(map_channel=channel).values * factor for name in ("case_forecast", "case_truth")
        )
        field = colours_of(view.variable(channel), np.concatenate([forecast, truth]))
        styles = [field, field, symmetric(forecast - truth, DIVERGING)]
        images = []
        for axis, values, style in zip(axes[row], (forecast, truth, forecast - truth), styles, strict=True):
            images.append(shared.draw(axis, values, style))
        if row == 0:
            for axis, text in zip(axes[0], (view.main, "truth", "difference"), strict=True):
                axis.set_title(text, loc="center")
        axes[row, 0].text(
            -0.06,
            0.5,
            "\n".join(line for part in view.title(channel).split(", ") for line in textwrap.wrap(part, LABEL)),
            rotation=90,
            ha="center",
            va="center",
            transform=axes[row, 0].transAxes,
            fontsize=8.5,
        )
        colour_bar(figure, images[0], axes[row, :2], view.units(channel))
        colour_bar(figure, images[2], axes[row, 2], view.units(channel))
    first = scores["case_init"].sel(case=case).values[()]
    start = f"{first.astype('datetime64[h]') if isinstance(first, np.datetime64) else str(first)[:13]}"
    start = start.replace("T", " ") + " UTC"
    when = f"{start}, lead {lead_label(scores['map_lead'].values[lead])}"
    kind, which = {
        "typical": ("A typical forecast", "the median"),
        "best": ("The best forecast", "the smallest"),
        "worst": ("The worst forecast", "the largest"),
    }[case]
    names = ", ".join(view.title(channel) for channel in channels)
    return Panel(
        f"{kind} beside the truth",
        f"Initial time {when}: {which} error of all initial times by the headline fields.",
        "Left the forecast, in the middle what happened, right the difference. Look for features in the wrong place, and for "
        "detail that the forecast has lost.",
        png(figure, f"Maps of {names}: {view.main}, truth and difference, from {when}."),
    )


@panel("maps", 20, needs=("mean_error_map",))
def mean_error_panel(view: View) -> Panel | None:
    """Mean error of the main forecast at one lead; None on points."""
    scores = view.scores
    if scores["mean_error_map"].dims[-1] == "cell":
        return None
    lead = _nearest(view)
    at = scores["mean_error_map"].sel(forecast=view.main).isel(map_lead=lead)
    channels = _channels(view)
    figure = difference_maps(view, {channel: at.sel(map_channel=channel).values for channel in channels})
    count = scores.sizes["init_time"]
    return Panel(
        "Mean error",
        f"{view.main} minus truth at {lead_label(scores['map_lead'].values[lead])}, mean over {count} initial times.",
        "Red where the forecast is too high on average, blue where it is too low. With few forecasts much of the pattern is "
        "chance; what lines up with coasts, mountains or the tropics is usually not.",
        png(figure, f"Maps of the mean error of {view.main} for {', '.join(view.title(c) for c in channels)}."),
    )


def _nearest(view) -> int:
    """Position of the nearest lead of maps that has a truth."""
    leads = view.scores["map_lead"].values
    known = view.has_truth()[np.isin(view.scores["lead_time"].values, leads)]
    return int(np.where(known | ~known.any(), np.abs(days(leads) - view.map_lead_days), np.inf).argmin())


def _channels(view):
    wanted = view.mapped(len(view.headline))
    return [name for name in wanted if view.variable(name) not in SKIPPED][:SHOWN] or wanted[:SHOWN]
