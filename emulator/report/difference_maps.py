"""Maps of differences: one for each channel, red above 0 and blue below."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from emulator.report.map_frame import frame
from emulator.report.style import DIVERGING
from emulator.report.view import View

WIDTH = 10.5


def difference_maps(view: View, fields: Mapping[str, np.ndarray], of: Sequence[str] = ()) -> Figure:
    """Maps of differences `(latitude, longitude)` by channel, in the channels' units, three in a row around white at 0.

    With names in `of`, fields are `(name, latitude, longitude)`: every name has its maps, in the same colours for a channel.
    """
    places = [(channel, index) for index in range(max(1, len(of))) for channel in fields]
    columns = min(3, len(fields) if of else len(places))
    rows = -(-len(fields) // columns) * max(1, len(of))
    shared = frame(view.scores)
    figure = Figure(figsize=(WIDTH, 1.85 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": shared.projection}).ravel()
    for axis in axes[len(places) :]:
        axis.set_visible(False)
    for axis, (channel, index) in zip(axes, places, strict=False):
        values = fields[channel] * view.factor(channel)
        image = shared.draw(axis, values[index] if of else values, symmetric(values, DIVERGING))
        axis.set_title("\n".join([view.title(channel), *of[index : index + 1]]))
        colour_bar(figure, image, axis, view.units(channel))
    return figure


def symmetric(values: np.ndarray, colours: str) -> dict:
    """Colours from minus to plus the size that one value in two hundred exceeds."""
    held = np.abs(values[np.isfinite(values)])
    widest = float(np.percentile(held, 99.5)) if held.size else 0.0
    widest = widest or 1e-12
    return {"cmap": colours, "vmin": -widest, "vmax": widest}


def colour_bar(figure: Figure, image, axes, unit: str) -> None:
    """A thin bar beside one or several maps that share an image's colours."""
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.015, aspect=18, extend="both")
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=7, width=0.5)
    bar.set_label(unit, fontsize=7.5)
