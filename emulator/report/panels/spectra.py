"""Power spectra of the forecasts relative to the truth's."""

import html

import matplotlib
import numpy as np

from emulator.report.display import head_cells, html_table, lead_label, number, table
from emulator.report.panel import panel
from emulator.report.style import PALE, Panel, multiples, plain_ticks, svg
from emulator.report.view import View

SHOWN, FORECASTS = 6, 3
FILLED = "Fields that are not everywhere are filled smoothly first, in the forecast as in the truth."
CIRCUMFERENCE = 40030.0  # of the Earth, km: the wavelength of total wavenumber 1
FIRST_WAVE = {
    "total": "Wavenumber 1 spans the globe",
    "plane": "Wavenumber 1 is half a wave along the domain's shorter side",
}
NAMED = {"plane": "wavenumber in the plane, of the discrete cosine transform (Denis et al. 2002)"}
WAVE_TICKS, RATIO_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


@panel("spectra", 10, needs=("power_ratio",))
def spectra_panels(view: View) -> list[Panel]:
    """A panel for each of the first few forecasts."""
    return [_panel(view, name, f"spectra{place}") for place, name in enumerate(view.forecasts[:FORECASTS])]


@panel("spectra", 20, needs=("effective_wavenumber",))
def resolution(view: View) -> str | None:
    """`resolution_table` on the page."""
    markup = resolution_table(view)
    return markup and table("Effective resolution", markup)


def resolution_table(view: View) -> str | None:
    """HTML table: how far up in wavenumber each forecast keeps half of the truth's power, at the leads of the spectra."""
    if "effective_wavenumber" not in view.scores or not view.forecasts:
        return None
    leads = view.scores["spectrum_lead"].values
    total = view.scores.attrs.get("spectrum_kind") == "total"
    rows = []
    for channel in view.headline[:SHOWN]:
        for name in view.forecasts[:FORECASTS]:
            at = view.scores["effective_wavenumber"].sel(source=name).isel(channel=view.position(channel))
            truth = view.scores["effective_wavenumber"].sel(source="truth").isel(channel=view.position(channel))
            cells = "".join(_reach(*pair, total) for pair in zip(at.values, truth.values, strict=True))
            several = f"<td>{html.escape(name)}</td>" if len(view.forecasts) > 1 else ""
            rows.append(f'<th scope="row">{html.escape(view.title(channel))}</th>{several}{cells}')
    head = head_cells([*(["Forecast"] if len(view.forecasts) > 1 else []), *map(lead_label, leads)])
    plane = view.scores.attrs.get("spectrum_kind") == "plane"
    what = "wavelength in km" if total else "half-waves along the shorter side" if plane else "zonal wavenumber"
    caption = f"Effective resolution: up to which {what} the forecast keeps half of the truth's power"
    return html_table(head, rows, caption, "narrow")


def _reach(wavenumber: float, limit: float, total: bool) -> str:
    """A cell: the wavelength or wavenumber, and whether it is all that the truth holds."""
    if not np.isfinite(wavenumber):
        return "<td>–</td>"
    value = number(CIRCUMFERENCE / wavenumber, 2) if total else f"{wavenumber:g}"
    note = "all" if wavenumber >= limit else f"wave {wavenumber:g} of {limit:g}"
    return f'<td class="value">{value}<span class="interval">{note}</span></td>'


def _panel(view: View, name: str, prefix: str) -> Panel:
    """Ratio of power to the truth's per wavenumber at several leads."""
    ratios = view.scores["power_ratio"].sel(source=name)
    leads = view.scores["spectrum_lead"].values
    shown = view.headline[:SHOWN]
    figure, axes = multiples(len(shown), sharex=True)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(leads)))
    wavenumber = view.scores["wavenumber"].values
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
    first, named = FIRST_WAVE.get(kind, FIRST_WAVE["total"]), NAMED.get(kind, f"{kind} wavenumber")
    return Panel(
        "Spectra" + (f" of {name}" if len(view.forecasts) > 1 else ""),
        f"Power of {name} per {named}, relative to the truth's, by lead."
        + (f" {FILLED}" if set(shown) & set(view.note("domains")) else ""),
        f"{first}; high wavenumbers are small features. Below one the forecast has lost detail of that "
        "size, above one it makes noise. A good forecast stays near one at every lead.",
        svg(
            figure,
            f"Power spectra of {name} relative to the truth for {', '.join(map(view.title, shown))}.",
            prefix,
        ),
    )
