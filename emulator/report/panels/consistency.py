"""Whether the errors that a cycle of analyses assumes are those that its departures show."""

import numpy as np
from matplotlib.figure import Figure

from emulator.report.display import number
from emulator.report.panel import panel
from emulator.report.panels.departures import kinds, most_observed
from emulator.report.style import (
    BLUE,
    FORECAST_COLOURS,
    GREY,
    PALE,
    VERMILLION,
    WIDTH,
    Panel,
    multiples,
    plain_ticks,
    svg,
)
from emulator.report.view import View

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
MOST = 40  # rows of a figure


@panel("assimilation", 30, needs=("feedback_sigma_o",))
def consistency(view: View) -> Panel | None:
    """Estimated over assumed standard deviations of both errors, by kind."""
    scores, shown = view.scores, [kind for kind in kinds(view) if kind["count"] > 1][:MOST]
    if not shown:
        return None
    at, places = [kind["at"] for kind in shown], np.arange(len(shown))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(shown)))
    axis, sentences = figure.subplots(), []
    for name, colour, marker, text in (
        ("o", BLUE, "o", "observations' errors"),
        ("b", VERMILLION, "D", "background's errors, by its members"),
    ):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (scores[f"feedback_sigma_{name}"] / scores[f"feedback_sigma_{name}_used"]).values[at]
        known = np.isfinite(ratio) & (ratio > 0)
        if known.any():
            axis.scatter(ratio[known], places[known], color=colour, marker=marker, s=26, label=text, zorder=3)
            sentences.append(f"{text} {number(ratio[known].min(), 2)} to {number(ratio[known].max(), 2)}")
    if not sentences:
        return None
    axis.axvline(1, color=GREY, linewidth=0.9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 0.5), max(high, 2))
    plain_ticks(axis.xaxis, [tick for tick in TICKS if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]])
    axis.set_yticks(places, [kind["title"] for kind in shown])
    axis.set(xlabel="estimated over assumed standard deviation", ylim=(len(shown) - 0.5, -0.5))
    figure.legend(loc="outside upper left", ncols=2)
    left = len(kinds(view)) - len(shown)
    caption = f"Standard deviations estimated from the departures over those that were assumed: {'; '.join(sentences)}."
    caption += f" {left} more kinds are in the scores." if left > 0 and len(shown) == MOST else ""
    return Panel(
        "Consistency of the errors",
        caption,
        "Right of the line errors are larger than was assumed, left of it smaller (Desroziers et al. 2005). The estimate is "
        "exact only for an analysis whose errors were right: from wrong ones it points in the right direction.",
        svg(figure, caption, "consistency"),
    )


@panel("assimilation", 40, needs=("feedback_rank_count",))
def ranks(view: View) -> Panel | None:
    """Where observations rank among the background's members."""
    chosen, scores = most_observed(view), view.scores
    counts = scores["feedback_rank_count"].transpose("feedback_kind", "feedback_rank").values
    chosen = [kind for kind in chosen if counts[kind["at"]].sum() > 0]
    if not chosen:
        return None
    figure, axes = multiples(len(chosen), 1.9, 0.3)
    for axis, kind in zip(axes, chosen, strict=True):
        own = counts[kind["at"]]
        axis.bar(np.arange(len(own)), own / own.mean(), width=0.85, color=FORECAST_COLOURS[0], zorder=2)
        axis.axhline(1, color=PALE if own.max() == own.min() else GREY, linewidth=0.9, zorder=3)
        axis.set(xlabel="rank of the observation")
        axis.set_title(kind["title"], fontsize=8.5)
    axes[0].set_ylabel("frequency, flat = 1")
    members = counts.shape[1] - 1
    caption = f"Rank of the observations among {members} members of the background, which are given errors like theirs."
    return Panel(
        "Where observations rank among the members",
        caption,
        "In a reliable ensemble the observation is equally often in every gap between the members. A U means too little "
        "spread, or errors of observations that are larger than was assumed; a dome the contrary; a slope a bias.",
        svg(figure, caption, "observation-ranks"),
    )
