"""Scenarios that no emulator has seen: errors beside pattern scaling and the noise of the truth, and what more members
bring.
"""

import html

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import head_cells, html_table, note, number, table, unit_and_factor, variable_name
from emulator.report.maps import colour_bar, frame, symmetric
from emulator.report.panel import panel
from emulator.report.style import (
    DIVERGING,
    FORECAST_COLOURS,
    FORECAST_DASHES,
    GREY,
    INK,
    PALE,
    WIDTH,
    Panel,
    legend,
    multiples,
    plain_ticks,
    png,
    svg,
)
from emulator.report.view import View
from emulator.verify.scenarios import FLOOR, MEMBER, PATTERN

SCORES = {"spatial": "Spatial", "global": "Global", "total": "Total"}
SHOWN, ROWS = 3, 3


@panel("scenarios", 10, needs=("scenario_nrmse_total",))
def errors(view: View) -> list:
    """Verdict, a table of every held-out scenario, and what the numbers need to be believed."""
    scores = view.scores
    parts = ["".join(f"<p>{html.escape(sentence)}</p>" for sentence in verdict(view))]
    for scenario in _scenarios(view):
        parts.append(table(f"Errors under {scenario}", error_table(view, scenario)))
    return parts + [note(sentence) for sentence in told(view)] + [note(_years(scores))]


def verdict(view: View) -> list[str]:
    """A sentence for every emulator: in how many fields and scenarios it beats pattern scaling, and how far it is from
    the floor.
    """
    scores, sentences = view.scores, []
    total = scores["scenario_nrmse_total"]
    pattern, floor = (total.sel(scenario_source=name).values for name in (PATTERN, FLOOR))
    for name in _emulators(view):
        ours = total.sel(scenario_source=name).values
        known = np.isfinite(ours) & np.isfinite(pattern)
        if not known.any():
            continue
        better = int((ours < pattern)[known].sum())
        ratio = float(np.median((ours / pattern)[known]))
        above = known & np.isfinite(floor)
        beside = f", and {np.median((ours / floor)[above]):.2g} times the noise floor" if above.any() else ""
        sentences.append(
            f"{name} is better than pattern scaling in {better} of {int(known.sum())} fields and scenarios; its "
            f"total error is "
            f"{ratio:.2f} times that of pattern scaling{beside} (median)."
        )
    return sentences


def told(view: View) -> list[str]:
    """What a reader has to know: scenarios beyond training, and a truth of one member."""
    scores, sentences = view.scores, []
    low, high = scores["scenario_forcing_trained"].values
    for scenario in _scenarios(view):
        at = scores.sel(scenario=scenario)
        least, most = at["scenario_forcing"].values
        if least < low or most > high:
            sentences.append(
                f"The forcing of {scenario} goes from {least:.4g} to {most:.4g}, beyond the training's {low:.4g} "
                f"to {high:.4g}: "
                "pattern scaling, and every emulator, extrapolates."
            )
        if (at["scenario_members"] < 2).any():
            sentences.append(
                f"{scenario} has one member: its noise, and with it the least possible error, is not known."
            )
    return sentences


def _years(scores) -> str:
    years = scores["scenario_year"].values
    return (
        f"Means of the years {years[0]} to {years[-1]}. Errors are ClimateBench's (Watson-Parris et al. 2022) "
        f"with true areas: root mean "
        "squares over the size of the truth's mean; total = spatial + 5 x global. Noise floor: what the truth's "
        "own forced response "
        "would score against the mean of its members. Another member: what each scores against the mean of the others."
    )


def error_table(view: View, scenario: str) -> str:
    """HTML table of one scenario: a row for every source, three scores for every field."""
    at, rows = view.scores.sel(scenario=scenario), []
    channels = _channels(view)
    for source in map(str, at["scenario_source"].values):
        values = [
            float(at[f"scenario_nrmse_{kind}"].sel(scenario_source=source, scenario_channel=channel))
            for channel in channels
            for kind in SCORES
        ]
        if not np.isfinite(values).any():
            continue
        kind = "unsure" if source in (FLOOR, MEMBER) else ""
        cells = "".join(f'<td class="{kind}">{number(value)}</td>' for value in values)
        rows.append(f'<th scope="row">{html.escape(source)}</th>{cells}')
    head = head_cells(f"{_title(channel)}: {text.lower()}" for channel in channels for text in SCORES.values())
    members = int(at["scenario_members"].max())
    caption = f"{html.escape(scenario)}: normalised errors against the mean of {members} member{'s' * (members != 1)}"
    return html_table(head, rows, caption)


@panel("scenarios", 20, needs=("scenario_series",))
def global_means(view: View) -> Panel:
    """Global means of the years: every member of the truth, emulators and pattern scaling."""
    scores = view.scores
    places = [(s, c) for s in _scenarios(view) for c in _channels(view)][: 2 * SHOWN]
    figure, axes = multiples(len(places))
    years, named = scores["scenario_year"].values, {}
    for axis, (scenario, channel) in zip(axes, places, strict=True):
        at = scores.sel(scenario=scenario, scenario_channel=channel)
        unit, factor = _units(view, channel)
        for member in at["scenario_series_members"].values * factor:
            named["members of the truth"] = axis.plot(years, member, color=PALE, linewidth=0.9)[0]
        for place, name in enumerate(map(str, scores["scenario_predicted"].values)):
            values = at["scenario_series"].sel(scenario_predicted=name).values * factor
            if np.isfinite(values).any():
                named[name] = axis.plot(years, values, **_style(name, place))[0]
        axis.set(title=f"{_title(channel)} [{unit}]\n{scenario}", xlabel="year")
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend(figure, named)
    return Panel(
        "Global means of the scenarios",
        "Annual means over the globe, less those of the control where one was given.",
        "A line in the midst of the pale ones has the forced response; one that follows a single member's wiggles "
        "has learnt its weather. Pattern scaling is as smooth as its forcing.",
        svg(figure, "Annual global means under the held-out scenarios.", "scenarioseries"),
    )


@panel("scenarios", 30, needs=("scenario_error_map",))
def error_maps(view: View) -> Panel | None:
    """Errors of the time means, of one field under the first scenario."""
    maps = view.scores["scenario_error_map"]
    if maps.dims[-1] == "cell":
        return None
    scenario, channels = _scenarios(view)[0], _channels(view)[:SHOWN]
    names = [
        n for n in map(str, maps["scenario_predicted"].values) if np.isfinite(maps.sel(scenario_predicted=n)).any()
    ]
    names = names[-ROWS:]  # pattern scaling is the last
    figure, shared = Figure(figsize=(WIDTH, 1.85 * len(names))), frame(view.scores)
    columns = max(len(channels), 2)
    axes = figure.subplots(len(names), columns, squeeze=False, subplot_kw={"projection": shared.projection})
    for axis in axes[:, len(channels) :].ravel():
        axis.set_visible(False)
    for column, channel in zip(axes.T, channels, strict=False):
        unit, factor = _units(view, channel)
        fields = maps.sel(scenario=scenario, scenario_channel=channel, scenario_predicted=names).values * factor
        style = symmetric(fields, DIVERGING)
        for axis, name, field in zip(column, names, fields, strict=True):
            image = shared.draw(axis, field, style)
            axis.set_title(f"{_title(channel)}\n{name}")
        colour_bar(figure, image, list(column), unit)
    return Panel(
        f"Errors of the time means under {scenario}",
        "Mean over the years minus the mean of the truth's members.",
        "Patterns that pattern scaling has too are what no line in the global mean can give, or noise of the truth; "
        "a member more changes the latter.",
        png(figure, f"Maps of errors under {scenario} of {', '.join(names)}."),
    )


@panel("scenarios", 40, needs=("scenario_curve_error",))
def members_needed(view: View) -> Panel | None:
    """Spatial error of pattern scaling against the number of training members, with its noise and the floor."""
    scores, scenario = view.scores, _scenarios(view)[0]
    counts = scores["scenario_curve_members"].values
    if len(counts) < 2:
        return None
    channels = _channels(view)[:SHOWN]
    figure, axes = multiples(len(channels))
    named = {}
    for axis, channel in zip(axes, channels, strict=True):
        at = scores.sel(scenario=scenario, scenario_channel=channel)
        for place, (name, score) in enumerate((("error", "error"), ("noise of the training", "noise"))):
            values = at[f"scenario_curve_{score}"].values
            named[f"pattern scaling, {name}"] = axis.plot(
                counts, values, marker="o", markersize=3.5, **_style("", place)
            )[0]
        noise = at["scenario_curve_noise"].values
        line = noise[0] / np.sqrt(counts)
        named["one over the root of members"] = axis.plot(counts, line, color=GREY, linewidth=0.9, linestyle="--")[0]
        floor = float(at["scenario_nrmse_spatial"].sel(scenario_source=FLOOR))
        if np.isfinite(floor):
            style = {"color": INK, "linewidth": 0.9, "linestyle": (0, (1, 1.4))}
            named["noise floor"] = axis.axhline(floor, **style)
        axis.set(
            title=f"{_title(channel)}\nspatial error",
            xlabel="members of every training scenario",
            xscale="log",
            ylim=(0, None),
        )
        plain_ticks(axis.xaxis, counts[: -1 if len(counts) > 2 and counts[-1] < 1.5 * counts[-2] else None])
    legend(figure, named, 2)
    return Panel(
        f"Error by the number of members under {scenario}",
        "Pattern scaling fitted to means of 1, 2, 4, ... members of every training scenario: its spatial error, and "
        "the part of it that is noise of the training, from fits that share no member.",
        "Noise falls as one over the root of the number of members. What is left of the error above the floor is "
        "what lines cannot give; below the floor no error can be told from the truth's own noise.",
        svg(figure, "Error of pattern scaling by the number of members.", "scenariocurve"),
    )


def _style(name: str, place: int) -> dict:
    if name == PATTERN:
        return {"color": INK, "linestyle": "--", "linewidth": 1.3}
    return {"color": FORECAST_COLOURS[place % 6], "linestyle": FORECAST_DASHES[place % 6], "linewidth": 1.6}


def _scenarios(view: View) -> list[str]:
    return [str(name) for name in view.scores["scenario"].values]


def _channels(view: View) -> list[str]:
    return [str(name) for name in view.scores["scenario_channel"].values][:SHOWN]


def _emulators(view: View) -> list[str]:
    return [n for n in map(str, view.scores["scenario_source"].values) if n not in (PATTERN, FLOOR, MEMBER)]


def _title(channel: str) -> str:
    variable, _, level = channel.partition(" ")
    return variable_name(variable) + (f", {level.split(' (')[0]}" if level else "")


def _units(view: View, channel: str) -> tuple[str, float]:
    return unit_and_factor(str(view.scores["scenario_units"].sel(scenario_channel=channel).values))
