"""Drift and variability by depth of an ocean: where heat gathers, and where a forecast has become too smooth.

A network may keep the ocean's heat as a whole and still move it between depths, and deep variability is the first to
collapse in long forecasts; neither shows at the surface.
"""

import numpy as np
from matplotlib.figure import Figure

from emulator.report.panel import panel
from emulator.report.style import FORECAST_COLOURS, FORECAST_DASHES, GREY, PALE, WIDTH, Panel, legend, svg
from emulator.report.view import View

SHOWN = ("sea_water_potential_temperature", "sea_water_salinity")
LEADS = 3  # lines of a forecast: the last lead, and shares of it


@panel("error", 45, needs=("bias", "activity"))
def depth_panel(view: View) -> Panel | None:
    """Mean error and activity against depth, of temperature and salinity; None without depths."""
    variables = [name for name in SHOWN if len(_channels(view, name)) > 1]
    if not variables or not view.forecasts:
        return None
    figure, lines = Figure(figsize=(WIDTH, 3.6)), {}
    axes = figure.subplots(1, 2 * len(variables), squeeze=False, sharey=True)[0]
    for number, name in enumerate(variables):
        channels = _channels(view, name)
        depth = [float(view.scores["level"].values[view.position(channel)]) for channel in channels]
        for axis, score in zip(axes[2 * number : 2 * number + 2], ("bias", "activity"), strict=True):
            profiles = np.stack([view.get(score, view.main, channel, scaled=score == "bias") for channel in channels])
            axis.axvline(score == "activity", color=PALE, linewidth=1.2)
            for colour, dash, lead in zip(FORECAST_COLOURS, FORECAST_DASHES, _leads(view, profiles), strict=False):
                label = f"{view.leads[lead]:g} {view.unit}s"
                (lines[label],) = axis.plot(profiles[:, lead], depth, color=colour, linestyle=dash)
            axis.set_xlabel(f"mean error [{view.units(channels[0])}]" if score == "bias" else "activity ratio")
        axes[2 * number].set_title(view.title(channels[0]).split(",")[0])
    axes[0].set_ylabel("depth [m]", color=GREY)
    axes[0].invert_yaxis()
    legend(figure, lines)
    return Panel(
        "Drift and variability by depth",
        f"{view.main}: mean error over the sea, and size of the departures from climatology relative to the truth's, by "
        "depth at several leads.",
        "A budget that closes fixes the sum over depths, not where the heat lies: errors of one sign above and of the other "
        "below are heat that was moved. An activity far below one is variability that has collapsed.",
        svg(figure, f"Mean error and activity against depth of {view.main}.", "depths"),
    )


def _channels(view: View, variable: str) -> list[str]:
    """Channels of a variable from the surface down."""
    named = [str(name) for name in view.scores["channel"].values if view.variable(str(name)) == variable]
    return sorted(named, key=lambda name: float(view.scores["level"].values[view.position(name)]))


def _leads(view: View, profiles: np.ndarray) -> list[int]:
    """Leads that are drawn: evenly to the last that is scored, the start left out."""
    known = np.flatnonzero(np.isfinite(profiles).any(axis=0) & (np.asarray(view.leads) > 0))
    if not len(known):
        return []
    return [int(place) for place in np.unique(known[np.linspace(0, len(known) - 1, LEADS + 1).round().astype(int)[1:]])]
