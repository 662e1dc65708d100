"""Downscaled fields beside interpolated ones: what is gained, what is kept, and how they look."""

import json

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import date_and_hour, head_cells, html_table, number, percent, scientific, table, unit_cell
from emulator.report.maps import colour_bar, colours_of, frame
from emulator.report.panel import panel
from emulator.report.style import PALE, WIDTH, Panel, line_style, multiples, png, svg
from emulator.report.view import View
from emulator.store.interval_forecasts import DOWNSCALING, steps_of_interval

SHOWN = 6
FINEST = 2 / 3  # of the last degree that the truth holds: from there on degrees are the finest ones
CAPTION = (
    "RMSE and CRPS relative to those of interpolation alone (of one field the CRPS is the mean absolute error); power of the "
    "finest third of the degrees, the distance of the 99.9th percentile from the median, and the diurnal cycle, all relative "
    "to the truth's; largest departure of a coarse mean from the coarse store, relative to the largest value of its level"
)


@panel("downscaling", 10, needs=("coarse_departure",))
def gains(view: View) -> str:
    """Table of every downscaled store and channel."""
    plain, heads, rows = _interpolated(view), [], []
    for channel in view.mapped(SHOWN):
        for name in _made(view):
            kept = _of(view, "coarse_departure", name, coarse_variable=view.variable(channel))
            heads.append(unit_cell(view.title(channel), name))
            rows.append([*_ratios(view, plain, name, channel), *_relative(view, name, channel), kept])
    known = [place for place in range(len(COLUMNS)) if np.isfinite([row[place] for row in rows]).any()]
    cells = ["".join(f"<td>{COLUMNS[place][1](row[place])}</td>" for place in known) for row in rows]
    columns = head_cells([COLUMNS[place][0] for place in known])
    made = [head + own for head, own in zip(heads, cells, strict=True)]
    return table("Downscaled fields", html_table(columns, made, CAPTION))


def _change(ratio: float) -> str:
    return percent(100 * ratio - 100)


COLUMNS = (
    ("RMSE", _change),
    ("CRPS", _change),
    ("Power", _change),
    ("99.9 %", _change),
    ("Diurnal cycle", _change),
    ("Error of it", number),
    ("Coarse means", scientific),
)


def _made(view: View) -> list[str]:
    """The downscaled stores; more of them than the truth is always there."""
    return [name for name in view.forecasts if name in view.scores["downscaled"].values]


def _interpolated(view: View) -> str | None:
    """The forecast by interpolation alone; None without one."""
    notes = view.note("provenance")
    told = {name: json.loads(notes.get(name, {}).get(DOWNSCALING, "{}")) for name in view.forecasts}
    return next((name for name, one in told.items() if one.get("method") == "bilinear"), None)


def _steps(view: View, name: str) -> int:
    """Fine steps in an interval of a downscaled store."""
    leads = np.atleast_1d(view.scores["lead_time"].values)
    step = np.diff(leads).min() if len(leads) > 1 else leads[0]
    return steps_of_interval(view.note("provenance")[name], step / np.timedelta64(1, "s"))


def _of(view: View, score: str, name: str, **at) -> float:
    """A score of a downscaled store; NaN where it has none."""
    array = view.scores[score] if score in view.scores else None
    if array is None or any(value not in array[dim].values for dim, value in at.items()):
        return float("nan")
    return float(array.sel(downscaled=name, **at))


def _ratios(view: View, plain: str | None, name: str, channel: str) -> list[float]:
    """RMSE and CRPS over all leads relative to those of interpolation."""
    found = []
    for score, power in (("rmse", 2), ("crps", 1)):
        array = view.scores.get(score)
        axis = "map_channel" if array is not None and "map_channel" in array.dims else "channel"
        if plain is None or array is None:
            found.append(float("nan"))
            continue
        at = {axis: channel, "region": view.regions[0]}
        own, other = (
            float((array.sel(forecast=each).sel(at) ** power).mean()) ** (1 / power) for each in (name, plain)
        )
        found.append(own / other if other else float("nan"))
    return found


def _relative(view: View, name: str, channel: str) -> list[float]:
    """Power of the finest degrees, distance of the highest quantile from the median, size and error of the cycle of a day."""
    power = view.scores["power_ratio"].isel(channel=view.position(channel)) if "power_ratio" in view.scores else None
    finest = float("nan")
    if power is not None and np.isfinite(power.sel(source=name)).any():
        of_truth = power.sel(source="truth").transpose("spectrum_lead", "wavenumber").values
        last = int(np.flatnonzero(np.isfinite(of_truth).any(0))[-1])
        finest = float(power.sel(source=name).isel(wavenumber=slice(round(FINEST * last), last + 1)).mean())
    known = view.scores["downscaled_quantile"].sel(downscaled_channel=channel)
    tail, middle = (known.sel(downscaled_quantile_level=level) for level in (0.999, 0.5))
    away = tail - middle
    several = _steps(view, name) > 1  # with one step in an interval the cycle is that of the coarse fields
    cycles = [
        _of(view, f"diurnal_{kind}", name, downscaled_channel=channel) if several else float("nan")
        for kind in ("strength", "error")
    ]
    return [finest, float(away.sel(downscaled=name) / away.sel(downscaled="truth")), *cycles]


@panel("downscaling", 20, needs=("downscaled_case",))
def case(view: View) -> Panel | None:
    """The coarse field, what is made of it, and the truth, of one time."""
    scores = view.scores
    names, channels = _made(view), [str(name) for name in scores["case_channel"].values]
    shared = frame(scores)
    rows = _nearest(scores["coarse_row"].values, scores["latitude"].values)
    columns = _nearest(scores["coarse_column"].values, scores["longitude"].values, 360.0)
    titles = ["coarse", *names, "truth"]
    figure = Figure(figsize=(WIDTH, (WIDTH / len(titles) * 0.5 + 0.1) * len(channels) + 0.3))
    axes = figure.subplots(len(channels), len(titles), squeeze=False, subplot_kw={"projection": shared.projection})
    for number_of, channel in enumerate(channels):
        factor = view.factor(channel)
        coarse = scores["downscaled_case_coarse"].sel(case_channel=channel).values[rows][:, columns]
        made = scores["downscaled_case"].sel(case_channel=channel)
        fields = [coarse * factor, *(made.sel(downscaled=name).values * factor for name in titles[1:])]
        style = colours_of(view.variable(channel), fields[-1])
        for axis, field, title in zip(axes[number_of], fields, titles, strict=True):
            image = shared.draw(axis, field, style)
            if number_of == 0:
                axis.set_title(title, loc="center", fontsize=8.5)
        colour_bar(figure, image, axes[number_of], f"{view.title(channel)} [{view.units(channel)}]".replace(", ", "\n"))
    shown = ", ".join(view.title(channel) for channel in channels)
    when = date_and_hour(scores["downscaled_case_time"].values[()])
    return Panel(
        "One time",
        f"The coarse field, the fine ones made of it and the truth at {when}; of an ensemble the first member.",
        "A network that makes the mean is smooth where the coarse field does not tell what lies below it; a generative one "
        "has features of the right size there, which need not be in the right place.",
        png(figure, f"Maps of {shown}: coarse, {', '.join(names)} and truth at {when}."),
    )


def _nearest(coarse: np.ndarray, fine: np.ndarray, period: float = np.inf) -> np.ndarray:
    """Of each fine row or column the nearest coarse one."""
    apart = np.abs(fine[:, None] - coarse)
    return np.minimum(apart, period - apart).argmin(1)


@panel("downscaling", 30, needs=("downscaled_quantile",))
def quantiles(view: View) -> Panel:
    """Departures of quantiles from the truth's."""
    channels, levels = view.mapped(SHOWN), view.scores["downscaled_quantile_level"].values
    figure, axes = multiples(len(channels))
    places, named = np.arange(len(levels)), {}
    for axis, channel in zip(axes, channels, strict=True):
        known = view.scores["downscaled_quantile"].sel(downscaled_channel=channel) * view.factor(channel)
        axis.axhline(0, color=PALE, linewidth=1.4)
        for position, name in enumerate(_made(view)):
            away = known.sel(downscaled=name) - known.sel(downscaled="truth")
            named[name] = axis.plot(places, away.values, marker="o", markersize=3, **line_style(name, position))[0]
        axis.set(title=view.title(channel), xticks=places, ylabel=view.units(channel))
        axis.set_xticklabels([f"{100 * level:g}" for level in levels], fontsize=7)
    figure.supxlabel("percentile", fontsize=8.5)
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=len(named), handlelength=1.8)
    return Panel(
        "Quantiles",
        "Departure of the percentiles of all cells (by area), times and members from the truth's.",
        "Interpolation cuts off the highest values and fills the lowest; a line at zero at both ends means that extremes are "
        "as strong as they are in the truth.",
        svg(
            figure,
            f"Departures of quantiles from the truth's for {', '.join(map(view.title, channels))}.",
            "downscaled-quantiles",
        ),
    )
