"""The climate of long runs: mean bias, variability, annual cycle, zonal means, tails and blocking."""

import html

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import head_cells, html_table, number, percent, relative, table
from emulator.report.maps import difference_maps
from emulator.report.panel import panel
from emulator.report.style import FORECAST_COLOURS, FORECAST_DASHES, INK, PALE, WIDTH, Panel, legend, png, svg
from emulator.report.view import View
from emulator.verify.long_runs import comparable

SHOWN, ROWS, COLUMNS = 6, 3, 3  # maps of one run; runs and fields of several
MONTHS = "JFMAMJJASOND"


@panel("long-run", 20, needs=("climate_bias_map",))
def climate(view: View) -> list:
    """What long runs have to say: a verdict, tables, maps and lines."""
    between = difference_table(view)
    return [
        "".join(f"<p>{html.escape(sentence)}</p>" for sentence in climate_verdict(view)),
        between and table("Climate of the long runs against the first", between),
        table("Climate of the long runs", climate_table(view)),
        bias_maps(view),
        climate_lines(view),
    ]


def climate_table(view: View) -> str:
    """HTML table: bias, its pattern, variability, trend and tails of every run and field."""
    scores, rows = view.scores, []
    for run in map(str, scores["climate_run"].values):
        for channel in channels_of(view):
            at = scores.sel(climate_run=run, climate_channel=channel)
            if not np.isfinite(at["climate_bias_rmse"]):
                continue
            factor, unit = view.factor(channel), view.units(channel)
            slope, error = (float(at[f"climate_trend{n}_per_year"]) * factor for n in ("", "_error"))
            sure = abs(slope) > 2 * error
            drift = f"{number(slope)} ± {number(2 * error)}" if np.isfinite(slope) else "–"
            quantile = at["climate_quantile"]
            tails = quantile.isel(climate_record=0) - quantile.isel(climate_record=1)
            low, high = (float(tails.sel(tail=q)) * factor for q in (0.001, 0.999))
            rows.append(
                f'<th scope="row">{html.escape(view.title(channel))} <span class="unit">{html.escape(unit)}</span></th>'
                f"<td>{html.escape(run)}</td><td>{number(float(at['climate_bias_mean']) * factor)}</td>"
                f'<td class="value">{number(float(at["climate_bias_rmse"]) * factor)}</td>'
                f"<td>{float(at['climate_deviation_ratio']):.2f}</td>"
                f'<td class="{"worse" if sure else "unsure"}">{drift}</td>'
                f"<td>{number(low)}</td><td>{number(high)}</td>"
            )
    head = head_cells(
        (
            "Run",
            "Mean bias",
            "Bias, root mean square",
            "Variability, ratio",
            "Drift per year ± 2 s.e.",
            "Lowest 0.1 %, difference",
            "Highest 0.1 %, difference",
        )
    )
    return html_table(head, rows)


def climate_verdict(view: View) -> list[str]:
    """One sentence for every run but the first that covers the same times, and one for every run that does not."""
    if "climate_difference" not in view.scores:
        return []
    scores, sentences = view.scores, []
    first, *others = map(str, scores["climate_run"].values)
    alike = dict(zip(map(str, scores["climate_run"].values), comparable(scores), strict=True))
    for run in others:
        at = scores.sel(climate_run=run)
        if not alike[run]:
            ours, theirs = (str(scores["climate_sample"].sel(climate_run=r).values) for r in (run, first))
            sentences.append(f"The climate of {run} is not compared with that of {first}: {ours}, and {theirs}.")
            continue
        change = at["climate_difference"].sel(climate_channel=channels_of(view)).values
        sure = at["climate_significant"].sel(climate_channel=channels_of(view)).values.astype(bool)[np.isfinite(change)]
        change = change[np.isfinite(change)]
        if not len(change):
            sentences.append(f"{run} and {first} have no field in common whose climate could be compared.")
            continue
        middle = float(np.median(change))
        better, worse = int((sure & (change < 0)).sum()), int((sure & (change > 0)).sum())
        sentences.append(
            f"Biases of {run} are {relative(middle)} those of {first} (median; "
            f"root mean square over globe and months): significantly smaller in {better} of {len(change)} fields, larger in "
            f"{worse}, undecided in {len(change) - better - worse}."
        )
    return sentences


def difference_table(view: View) -> str | None:
    """HTML table: bias of every further run against the first run's, by field; None with less than two runs."""
    if "climate_difference" not in view.scores:
        return None
    scores = view.scores
    first, *others = (
        str(r) for r, alike in zip(scores["climate_run"].values, comparable(scores), strict=True) if alike
    )
    if not others:
        return None
    rows = []
    for channel in channels_of(view):
        cells = []
        for run in others:
            at = scores.sel(climate_run=run, climate_channel=channel)
            change, half = float(at["climate_difference"]), float(at["climate_difference_half_width"])
            if not np.isfinite(change):
                cells.append("<td>–</td>")
                continue
            kind = ("better" if change < 0 else "worse") if bool(at["climate_significant"]) else "unsure"
            width = f'<span class="interval">± {half:.0f}</span>' if np.isfinite(half) else ""
            cells.append(f'<td class="{kind}">{percent(change)}{width}</td>')
        rows.append(f'<th scope="row">{html.escape(view.title(channel))}</th>{"".join(cells)}')
    caption = (
        f"Bias of the long runs against that of {html.escape(first)}: root mean square over globe and months, difference "
        "with its 95 % interval from the months as pairs; coloured where significant"
    )
    return html_table(head_cells(others), rows, caption)


def bias_maps(view: View) -> Panel | None:
    """Time-mean bias of the long runs: a row for each run where there are several; None on points."""
    scores = view.scores
    if scores["climate_bias_map"].dims[-1] == "cell":
        return None
    runs = [str(run) for run in scores["climate_run"].values][:ROWS]
    several = len(runs) > 1
    channels = channels_of(view)[: COLUMNS if several else SHOWN]
    at = scores["climate_bias_map"].sel(climate_run=runs if several else runs[0])
    fields = {channel: at.sel(climate_channel=channel).values for channel in channels}
    figure = difference_maps(view, fields, runs if several else ())
    lengths = ", ".join(f"{run}, {float(scores['climate_days'].sel(climate_run=run)):.0f} days" for run in runs)
    return Panel(
        "Mean bias of the long run" + ("s" if several else ""),
        f"{lengths}: mean of the run minus mean of the truth's record over the same months and hours.",
        "Red where the run is too high on average. This is the run's own climate: after two weeks it no longer knows the "
        "weather that it started from. A run of a year also shows that year's chance; of ten years little of it is left.",
        png(figure, f"Maps of the mean bias of {', '.join(runs)} for {', '.join(view.title(c) for c in channels)}."),
    )


def climate_lines(view: View) -> Panel:
    """Zonal means, annual cycle and blocking of the runs beside the truth."""
    scores, channels = view.scores, channels_of(view)[:2]
    zonal, blocking = "climate_zonal_mean" in scores, "climate_blocking" in scores
    columns = len(channels) * (1 + zonal) + blocking
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    runs, named = list(map(str, scores["climate_run"].values)), {}
    for channel in channels:
        factor = view.factor(channel)
        label = view.title(channel).replace(", ", "\n") + f" [{view.units(channel)}]"
        if zonal:
            axis = axes.pop(0)
            field = scores["climate_zonal_mean"].sel(climate_channel=channel) * factor
            _draw(axis, np.sin(np.radians(scores["latitude"].values)), field, runs, named)
            axis.set(title=label, xlabel="latitude")
            axis.set_xticks(np.sin(np.radians([-60, -30, 0, 30, 60])), ["60S", "30S", "0", "30N", "60N"])
        axis = axes.pop(0)
        field = scores["climate_annual_cycle"].sel(climate_channel=channel) * factor
        _draw(axis, np.arange(12), field, runs, named)
        axis.set(title=label, xlabel="month")
        axis.set_xticks(range(0, 12, 2), MONTHS[::2])
    if blocking:
        axis = axes.pop(0)
        _draw(axis, scores["longitude"].values, 100 * scores["climate_blocking"], runs, named)
        axis.set(title="Blocking\n[% of days]", xlabel="longitude", ylim=(0, None))
        axis.set_xticks([0, 90, 180, 270], ["0", "90E", "180", "90W"])
    for axis in figure.axes:
        axis.title.set_fontsize(8.5)
        axis.tick_params(labelsize=7.5)
    legend(figure, named)
    return Panel(
        "Zonal means, annual cycle" + (" and blocking" if blocking else ""),
        "Means over the months that run and truth share; sine of latitude, so that equal widths are equal areas."
        + (" Blocking of the northern flow by Tibaldi and Molteni (1990)." if blocking else ""),
        "The run should lie on the truth. A zonal mean that is too flat has lost the contrast between equator and poles; an "
        "annual cycle that is too flat means that the run does not feel the season."
        + (" Blocks are long-lived highs that steer storms away; models usually have too few." if blocking else ""),
        svg(figure, f"Zonal mean and annual cycle of {', '.join(runs)} and the truth.", "climate"),
    )


def _draw(axis, x, field, runs, named) -> None:
    truths = np.unique(field.isel(climate_record=1).values, axis=0)  # runs may have references of their own
    axis.axhline(0, color=PALE, linewidth=0.8) if truths.min() < 0 < truths.max() else None
    for truth in truths:
        named["truth"] = axis.plot(x, truth, color=INK, linestyle=(0, (1, 1.4)), linewidth=1.6)[0]
    for position, run in enumerate(runs):
        values = field.sel(climate_run=run).isel(climate_record=0).values
        style = {"color": FORECAST_COLOURS[position % 6], "linestyle": FORECAST_DASHES[position % 6]}
        named[run] = axis.plot(x, values, marker="." if np.isfinite(values).sum() < 3 else None, **style)[0]
    axis.set_xlim(x.min(), x.max())


def channels_of(view) -> list[str]:
    """Fields of the long runs, those that are looked at first first."""
    channels = [str(name) for name in view.scores["climate_channel"].values]
    if "climate_rank" not in view.scores:  # older scores: all are fields of the forecasts too
        return [name for name in view.headline if name in channels] or channels
    order = np.argsort(view.scores["climate_rank"].values, kind="stable")  # NaN last
    return [channels[place] for place in order if view.describes(channels[place])]
