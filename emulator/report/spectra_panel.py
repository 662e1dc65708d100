"""Power spectra of the forecasts relative to the truth's."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import lead_label
from emulator.report.style import PALE, Panel, plain_ticks, svg
from emulator.report.view import View

SHOWN, FORECASTS = 6, 3
WAVE_TICKS, RATIO_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def spectra_panels(view: View) -> list[Panel]:
    """A panel for each of the first few forecasts; none where the scores hold no spectra."""
    if "power" not in view.scores:
        return []
    return [_panel(view, name, f"spectra{number}") for number, name in enumerate(view.forecasts[:FORECASTS])]


def _panel(view: View, name: str, prefix: str) -> Panel:
    """Ratio of power to the truth's per wavenumber at several leads."""
    ratios = view.scores["power_ratio"].sel(source=name)
    leads = view.scores["spectrum_lead"].values
    shown = view.headline[:SHOWN]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(10.5 if columns == 3 else 3.4 * columns, 2.35 * rows + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(leads)))
    wavenumber = view.scores["wavenumber"].values
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, channel in zip(axes, shown, strict=False):
        at = view.position(channel)
        axis.axhline(1, color=PALE, linewidth=1.4)
        for index, lead in enumerate(leads):
            ratio = ratios.isel(channel=at, spectrum_lead=index).values
            axis.plot(wavenumber[1:], ratio[1:], color=colours[index], linewidth=1.4, label=lead_label(lead))
        axis.set(xscale="log", yscale="log", title=view.title(channel), xlabel="wavenumber")
        low, high = axis.get_ylim()
        axis.set_ylim(min(max(low, 1e-2), 0.4), min(max(high, 2.5), 1e2))
        plain_ticks(axis.xaxis, WAVE_TICKS)
        axis.tick_params(labelbottom=True)
        plain_ticks(axis.yaxis, RATIO_TICKS)
    axes[0].set_ylabel("power relative to truth")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=1.8)
    kind = view.scores.attrs.get("spectrum_kind", "total")
    return Panel(
        "Spectra" + (f" of {name}" if len(view.forecasts) > 1 else ""),
        f"Power of {name} per {kind} wavenumber, relative to the truth's, by lead.",
        "Wavenumber 1 spans the globe; high wavenumbers are small features. Below one the forecast has lost detail of that "
        "size, above one it makes noise. A good forecast stays near one at every lead.",
        svg(
            figure,
            f"Power spectra of {name} relative to the truth for {', '.join(map(view.title, shown))}.",
            prefix,
        ),
    )
