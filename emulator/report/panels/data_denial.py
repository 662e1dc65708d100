"""How much each observing system lowers the errors of forecasts: cycles that were denied it, beside the whole one."""

import numpy as np

from emulator.report.display import percent
from emulator.report.panel import panel
from emulator.report.style import GREY, Panel, legend, line_style, multiples, span, svg
from emulator.report.view import View
from emulator.verify.feedback import reduction

DENIED = "denied "  # so begin the names of forecasts of cycles that were denied what follows
SHOWN = 6


@panel("assimilation", 60, needs=("rmse",))
def data_denial(view: View) -> Panel | None:
    """Reduction of the error by every observing system against lead; None without forecasts named `denied SYSTEM`."""
    denied = [name for name in view.forecasts if name.startswith(DENIED)]
    whole = [name for name in view.forecasts if not name.startswith(DENIED)]
    if not denied or not whole:
        return None
    share, channels, named = 100 * reduction(view.scores, whole[0], denied), view.headline[:SHOWN], {}
    figure, axes = multiples(len(channels), 2.1, 0.45)
    for axis, channel in zip(axes, channels, strict=True):
        for place, name in enumerate(denied):
            values = share.sel(forecast=name).isel(channel=view.position(channel)).values
            named[name.removeprefix(DENIED)] = axis.plot(view.leads, values, **line_style(name, place))[0]
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=view.title(channel), xlabel=f"lead [{view.unit}s]")
        span(axis, min(view.leads[0], 0), view.leads[-1])
    axes[0].set_ylabel("error lower by [%]")
    legend(figure, named)
    lead = view.judged_lead((1, 3, 5, 10))
    mean = {name: float(np.nanmean(share.sel(forecast=name).isel(lead_time=lead))) for name in denied}
    readings = ", ".join(f"{name.removeprefix(DENIED)} {percent(value)}" for name, value in mean.items())
    caption = (
        f"By how much each observing system lowers the RMSE of {whole[0]}, against lead; mean over all fields at {view.unit} "
        f"{view.leads[lead]:g}: {readings}."
    )
    return Panel(
        "Reduction of the error by observing system",
        caption,
        "Each line is the whole cycle against one that was denied the system. Above zero the system helps. The parts do not "
        "add up to the whole: what one system tells, others tell too.",
        svg(figure, caption, "data-denial"),
    )
