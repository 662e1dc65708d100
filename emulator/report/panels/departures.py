"""Observations against the background and the analysis of a cycle: departures by what observed them, and in time."""

import collections
import html

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from emulator.report.display import channel_title, head_cells, html_table, number, table, unit_and_factor, unit_cell
from emulator.report.panel import panel
from emulator.report.style import BLUE, GREY, VERMILLION, Panel, legend, multiples, svg
from emulator.report.view import View

SHOWN = 6


def kinds(view: View) -> list[dict]:
    """Of every kind of feedback its position, system, variable and level, a title, and unit and factor of the page."""
    named = [view.scores[f"feedback_{name}"].values for name in ("system", "variable", "level")]
    result = []
    for at, (system, variable, level) in enumerate(zip(*named, strict=True)):
        units, factor = unit_and_factor(view.stored_units(str(variable)))
        title = f"{system}: {channel_title(str(variable), _level_name(view, str(variable), level))}"
        result.append(
            {"at": at, "system": str(system), "variable": str(variable), "level": float(level), "title": title}
        )
        result[-1] |= {"units": units, "factor": factor, "count": int(view.scores["feedback_count"].values[at])}
    return result


def _level_name(view: View, variable: str, level: float) -> str:
    """Of the scored level that is the same to two digits, else the number; nothing for a field without levels."""
    if np.isnan(level):
        return ""
    scores = view.scores
    known = zip(*(scores[name].values for name in ("variable", "level", "level_name")), strict=True)
    names = [str(name) for field, value, name in known if field == variable and f"{value:.2g}" == f"{level:.2g}"]
    return names[0] if names else f"{level:g}"


def most_observed(view: View, most: int = SHOWN) -> list[dict]:
    """Kinds with the most observations, of each system and variable one, in the order of the scores."""
    best: dict[tuple, dict] = {}
    for kind in sorted(kinds(view), key=lambda kind: -kind["count"]):
        best.setdefault((kind["system"], kind["variable"]), kind)
    chosen = sorted(best.values(), key=lambda kind: -kind["count"])[:most]
    return sorted((kind for kind in chosen if kind["count"]), key=lambda kind: kind["at"])


@panel("assimilation", 10, needs=("feedback_background_std",))
def departures(view: View) -> str:
    """Table of observation minus background and analysis, by system, variable and level."""
    rows = []
    for kind in kinds(view):
        named = ("background_mean", "background_std", "analysis_mean", "analysis_std")
        values = [float(view.scores[f"feedback_{name}"].values[kind["at"]]) * kind["factor"] for name in named]
        cells = "".join(f"<td>{number(value)}</td>" for value in values)
        smaller = f"{round(100 * (1 - values[3] / values[1]))} %" if values[1] > 0 else "–"
        rows.append(
            f'{unit_cell(kind["title"], kind["units"])}<td>{kind["count"]}</td>{cells}<td class="value">{smaller}</td>'
        )
    head = ("Number", "Mean O−B", "Std. O−B", "Mean O−A", "Std. O−A", "Smaller by")
    text = "Observation minus background (O−B) and minus analysis (O−A), of the observations that were used"
    return table("Departures", html_table(head_cells(head), rows, text))


@panel("assimilation", 20, needs=("feedback_background_std_by_time",))
def departures_in_time(view: View) -> Panel | None:
    """Standard deviations and means of departures against time, for kinds with the most observations."""
    chosen, times = most_observed(view), view.scores["feedback_time"].values
    if not chosen or len(times) < 2:
        return None
    figure, axes = multiples(len(chosen), 2.1, 0.45)
    named = {}
    for axis, kind in zip(axes, chosen, strict=True):
        for what, colour in (("background", BLUE), ("analysis", VERMILLION)):
            for part, dashes in (("std", "-"), ("mean", (0, (2, 1.5)))):
                values = view.scores[f"feedback_{what}_{part}_by_time"].values[:, kind["at"]] * kind["factor"]
                text = f"{'standard deviation' if part == 'std' else 'mean'}, observation minus {what}"
                named[text] = axis.plot(times, values, color=colour, linestyle=dashes, linewidth=1.4)[0]
        axis.axhline(0, color=GREY, linewidth=0.8)
        units = f" [{kind['units']}]" if kind["units"] else ""
        axis.set_title(kind["title"] + units, fontsize=8.5)
        locator = AutoDateLocator(maxticks=5)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    legend(figure, named, 2)
    text = f"Departures at {len(times)} analyses, {str(times[0])[:13]} to {str(times[-1])[:13]}."
    return Panel(
        "Departures in time",
        text,
        "A cycle that works settles: after its first days the departures from the background neither grow nor shrink, and "
        "those from the analysis are smaller. A mean away from zero is a bias, of the model or of the observations.",
        svg(figure, text, "departures"),
    )


@panel("assimilation", 50, needs=("feedback_rejected",))
def rejections(view: View) -> str:
    """Table of rejected observations, by system and reason."""
    reasons = [str(reason) for reason in view.scores["feedback_reason"].values]
    count = view.scores["feedback_rejected"].transpose("feedback_kind", "feedback_reason").values
    systems: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(len(reasons), np.int64))
    used: dict[str, int] = collections.Counter()
    for kind in kinds(view):
        systems[kind["system"]] += count[kind["at"]].astype(np.int64)
        used[kind["system"]] += kind["count"]
    rows = []
    for system, own in sorted(systems.items()):
        cells = "".join(f"<td>{value}</td>" for value in own)
        share = 100 * own.sum() / max(1, own.sum() + used[system])
        rows.append(
            f'<th scope="row">{html.escape(system)}</th><td>{used[system]}</td>{cells}<td class="value">{share:.2g} %</td>'
        )
    head = head_cells(("Used", *(reason.capitalize() for reason in reasons), "Rejected"))
    return table("Rejected observations", html_table(head, rows, "Observations that were not used, by the reason"))
