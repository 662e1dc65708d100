"""How far the analyses of a cycle are from the truth, against time."""

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from emulator.report.display import number
from emulator.report.panel import panel
from emulator.report.style import BLUE, GREY, Panel, legend, multiples, svg
from emulator.report.view import View

SHOWN = 6


@panel("assimilation", 5, needs=("analysis_rmse",))
def analysis_errors(view: View) -> Panel | None:
    """Root mean square errors of the analyses, with that of the climatology beside them; None for a single analysis."""
    times = view.scores["analysis_time"].values
    if len(times) < 2 or not bool(view.scores["analysis_rmse"].notnull().any()):
        return None
    known = view.scores["analysis_rmse"].notnull().any("analysis_time")
    channels = [channel for channel in view.headline if bool(known.sel(channel=channel))][:SHOWN]
    named, readings = {}, []
    figure, axes = multiples(len(channels), 2.1, 0.45)
    late = slice(len(times) // 2, None)
    for axis, channel in zip(axes, channels, strict=True):
        values = view.scores["analysis_rmse"].sel(channel=channel).values * view.factor(channel)
        named["analyses"] = axis.plot(times, values, color=BLUE, linewidth=1.4)[0]
        reference = np.nanmean(view.get("rmse", "climatology", channel))
        named["climatology, mean over the forecasts"] = axis.axhline(reference, color=GREY, linewidth=0.8)
        axis.set_title(f"{view.title(channel)} [{view.units(channel)}]", fontsize=8.5)
        axis.set_ylim(bottom=0)
        locator = AutoDateLocator(maxticks=5)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        settled = values[late][np.isfinite(values[late])]
        mean = float(np.sqrt(np.mean(settled**2))) if len(settled) else np.nan
        readings.append(f"{view.title(channel)} {number(mean)} {view.units(channel)}".strip())
    legend(figure, named)
    caption = (
        f"Root mean square error of {len(times)} analyses against the truth, {str(times[0])[:13]} to {str(times[-1])[:13]}. "
        f"In the second half: {', '.join(readings)}."
    )
    return Panel(
        "Errors of the analyses",
        caption,
        "Of the whole globe, observed or not. A cycle that works falls within days to a level at which it stays; one that "
        "has lost the truth lies at the climatology's or above.",
        svg(figure, caption, "analysis-errors"),
    )
