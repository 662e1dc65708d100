"""Ensembles as distributions of whole fields: spread by scale, ranks of fields, coverage, and what they are worth."""

import math

import numpy as np

from emulator.report.display import lead_label, tail_of
from emulator.report.panel import panel
from emulator.report.panels.spectra import WAVE_TICKS
from emulator.report.style import (
    FORECAST_COLOURS,
    GREY,
    PALE,
    Panel,
    legend,
    line_style,
    line_styles,
    multiples,
    plain_ticks,
    span,
    svg,
)
from emulator.report.view import View

SHOWN = 6
BARS = 0.9  # of a calibrated ensemble's histogram that lie within the band


@panel("ensemble", 15, needs=("spectral_spread_skill",))
def spread_spectra_panel(view: View) -> Panel | None:
    """Spread over error by wavenumber at a few leads."""
    if not view.ensembles():
        return None
    name, channels = view.ensembles()[0], view.mapped(SHOWN)
    scores = view.scores["spectral_spread_skill"].sel(source=name, channel=channels)
    figure, axes = multiples(len(channels), 2.0, 0.5, sharey=True)
    lines, leads = {}, [lead_label(lead) for lead in scores["spectrum_lead"].values]
    for axis, channel in zip(axes, channels, strict=False):
        axis.axhline(1, color=PALE, linewidth=1.2)
        for position, lead in enumerate(leads):
            ratio = scores.sel(channel=channel).isel(spectrum_lead=position).values[1:]
            colour = FORECAST_COLOURS[position % len(FORECAST_COLOURS)]
            lines[lead] = axis.plot(np.arange(1, len(ratio) + 1), ratio, color=colour, linewidth=1.5)[0]
        axis.set(title=view.title(channel), xlabel="wavenumber", xscale="log")
        plain_ticks(axis.xaxis, WAVE_TICKS)
    finite = scores.values[..., 1:]
    axes[0].set(ylabel="spread over error", ylim=(0, max(1.2, min(3.0, 1.05 * np.nanmax(finite, initial=0.0)))))
    legend(figure, lines)
    return Panel(
        "Spread over error by scale",
        f"Of {name} by wavenumber, the spread times the root of (M + 1)/M; degree 0, the global mean, is left out.",
        "A spread that is right for the whole field may be too large in small waves and too small in large ones. A line at 1 "
        "at every wavenumber means that the ensemble is as uncertain as it should be at each scale.",
        svg(figure, f"Ensemble spread over error of {name} by wavenumber.", "spread-spectra"),
    )


@panel("ensemble", 22, needs=("field_rank_histogram",))
def field_rank_panel(view: View) -> Panel | None:
    """Rank histograms of whole fields by each pre-rank, at one lead."""
    if not view.ensembles():
        return None
    name, channels, lead = view.ensembles()[0], view.mapped(SHOWN), view.judged_lead()
    members, kinds = view.members(name), [str(kind) for kind in view.scores["pre_rank"].values]
    figure, axes = multiples(len(channels), 2.1, 0.5, sharey=True)
    ranks, named = np.arange(members + 1), {}
    count = max(int(view.truth_count(channels[0])[lead]), 1)
    low, high = (end * (members + 1) / count for end in chance(count, members + 1))
    at = view.scores["field_rank_histogram"].sel(forecast=name, region=view.regions[0]).isel(lead_time=lead)
    for axis, channel in zip(axes, channels, strict=False):
        axis.axhspan(low, high, color=PALE, alpha=0.5, linewidth=0)
        axis.axhline(1, color=GREY, linewidth=0.8)
        for position, kind in enumerate(kinds):
            share = at.sel(map_channel=channel, pre_rank=kind).values[: members + 1] * (members + 1)
            colour = FORECAST_COLOURS[position % len(FORECAST_COLOURS)]
            named[kind] = axis.step(ranks, share, where="mid", color=colour, linewidth=1.4)[0]
        axis.set(title=view.title(channel), xlabel="rank of the truth's field")
    axes[0].set(ylabel="frequency, flat = 1", ylim=(0, None))  # of all, when all lines are there
    legend(figure, named)
    return Panel(
        "Where the truth's field ranks among the members'",
        f"{name} at {view.unit} {view.leads[lead]:g}, {view.regions[0]}, {count} initial times. Band: where nine of ten bars "
        "of a calibrated ensemble lie, taking initial times as independent.",
        "Fields are put in order by one number each. Average rank: high values everywhere or low ones. Band depth: how "
        "central a field is among the others; low ranks are outlying. Variogram and energy: how far its differences between "
        "places, or all of it, are from the others'; high ranks are outlying. All are flat where the truth could be one more "
        "member; too many outlying ones mean too little spread, or a wrong structure in space.",
        svg(figure, f"Rank histograms of whole fields of {name}.", "field-rank"),
    )


def chance(count: int, ranks: int) -> tuple[int, int]:
    """Between which numbers of `count` draws, both included, one of `ranks` equal ranks has 90 %: binomial quantiles."""
    numbers, share = np.arange(count + 1), 1 / ranks
    ways = np.array([math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in numbers])
    below = np.cumsum(np.exp(ways + numbers * math.log(share) + (count - numbers) * math.log1p(-share)))
    return int(np.searchsorted(below, (1 - BARS) / 2)), int(np.searchsorted(below, (1 + BARS) / 2))


@panel("ensemble", 24, needs=("tarp_coverage", "tarp_bar"))
def tarp_panel(view: View) -> Panel | None:
    """Expected coverage by distance to fields of the record."""
    if not view.ensembles():
        return None
    name, channels, leads = view.ensembles()[0], view.mapped(SHOWN), view.table_leads()
    members, judged = view.members(name), view.judged_lead()
    credible = np.arange(1, members + 2) / (members + 1)
    at = view.scores[["tarp_coverage", "tarp_bar", "tarp_departure", "tarp_flag"]]
    at = at.sel(forecast=name, region=view.regions[0])
    figure, axes = multiples(len(channels), 2.3, 0.5)
    named = {}
    for axis, channel in zip(axes, channels, strict=False):
        here = at.sel(map_channel=channel)
        bar, inner = float(here["tarp_bar"].isel(lead_time=judged)), np.append(0, credible)
        axis.fill_between(
            inner, np.clip(inner - bar, 0, 1), np.clip(inner + bar, 0, 1), color=PALE, alpha=0.5, linewidth=0
        )
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        for position, lead in enumerate(leads):
            coverage = here["tarp_coverage"].isel(lead_time=lead).values[: members + 1]
            colour = FORECAST_COLOURS[position % len(FORECAST_COLOURS)]
            label = f"{view.unit} {view.leads[lead]:g}"
            named[label] = axis.plot(np.append(0, credible), np.append(0, coverage), color=colour, linewidth=1.5)[0]
        axis.set(title=view.title(channel), xlabel="credibility", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_ylabel("coverage")
    legend(figure, named)
    return Panel(
        "Coverage of whole fields (TARP)",
        f"{name}, {view.regions[0]}. Band: where 95 % of calibrated ensembles lie throughout at {view.unit} "
        f"{view.leads[judged]:g}. Largest departure there: {_departures(view, at.isel(lead_time=judged), channels)}.",
        "How often is the truth among the share of members that is nearest to some other field of the climatology's record? "
        "As often as that share says, if the ensemble is calibrated: the line is the diagonal. Above it at the left and "
        "below it at the right the spread is too small, the other way round too large; on one side of it throughout, the "
        "members lie nearer to the climate's fields than the truth does (below), or farther (above).",
        svg(figure, f"Coverage of the truth's fields by {name} against credibility.", "tarp"),
    )


def _departures(view, at, channels) -> str:
    texts = []
    for channel in channels:
        here = at.sel(map_channel=channel)
        departure, flag = float(here["tarp_departure"]), float(here["tarp_flag"])
        said = "too few initial times" if np.isnan(flag) else "not calibrated" if flag else "within the band"
        texts.append(f"{view.title(channel)} {100 * departure:.0f} % ({said})")
    return ", ".join(texts)


@panel("ensemble", 40, needs=("economic_value",))
def value_panel(view: View) -> Panel | None:
    """Relative economic value of the upper event by cost-loss ratio, at one lead."""
    if not view.ensembles():
        return None
    channels, lead, event = view.mapped(3), view.judged_lead(), float(view.scores["event"].values[-1])
    figure, axes = multiples(len(channels), 2.4, 0.5, sharey=True)
    named = {}
    for axis, channel in zip(axes, channels, strict=False):
        at = view.scores["economic_value"].sel(map_channel=channel, event=event, region=view.regions[0])
        for position, name in enumerate([*view.forecasts, "persistence"]):
            value = at.sel(forecast=name).isel(lead_time=lead).values
            named[name] = axis.plot(at["cost_loss"].values, value, **line_style(name, position))[0]
        axis.set(title=view.title(channel), xlabel="cost over loss", ylim=(0, 1))
        span(axis, 0, 1)
    axes[0].set_ylabel("relative value")
    legend(figure, named)
    return Panel(
        "What the forecast of extremes is worth",
        f"At {view.unit} {view.leads[lead]:g}, of values {tail_of(event)}: share of the saving of a "
        "perfect forecast over the climatological frequency.",
        "A user pays a cost to protect himself, or takes a loss if the event comes unannounced, and acts from the "
        "probability on that serves him best. 1 is as good as knowing, 0 no better than always or never acting. Users whose "
        "cost over loss is the event's frequency gain most; an ensemble serves a wider range of them than a single forecast.",
        svg(figure, "Relative economic value of forecasts of extremes against the cost-loss ratio.", "value"),
    )


@panel("extremes", 15, needs=("twcrps",))
def tail_panel(view: View) -> Panel | None:
    """Threshold-weighted CRPS against lead."""
    if not view.ensembles():
        return None
    channels, event = view.mapped(SHOWN), float(view.scores["event"].values[-1])
    figure, axes = multiples(len(channels), 2.1, 0.5)
    named = {}
    for axis, channel in zip(axes, channels, strict=False):
        at = view.scores["twcrps"].sel(map_channel=channel, event=event, region=view.regions[0])
        for name, style in line_styles(view).items():
            values = at.sel(forecast=name).values * view.factor(channel)
            named[name] = axis.plot(view.leads, values, **style)[0]
        axis.set(title=view.title(channel) + f" [{view.units(channel)}]", xlabel=f"lead [{view.unit}s]", ylim=(0, None))
        span(axis, view.leads[0], view.leads[-1])
    legend(figure, named)
    return Panel(
        "CRPS of the tail",
        f"Threshold-weighted CRPS of values {tail_of(event)} of their hour, season and place; of a "
        "single forecast the error of what lies beyond it.",
        "The usual CRPS is decided by ordinary days. This one asks only how the forecast does beyond the threshold, "
        "and counts a false alarm there as well as a miss; looking only at cases in which an extreme happened would reward "
        "crying wolf.",
        svg(figure, f"Threshold-weighted CRPS against lead for {', '.join(map(view.title, channels))}.", "tail"),
    )
