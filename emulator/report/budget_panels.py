"""The conservation page: what each step leaves of the budgets, how the totals drift, and how large the corrections are."""

import numpy as np
from matplotlib.figure import Figure

from emulator.planet.quantities.registry import quantities, quantity
from emulator.report.display import RAISED, days, number, scientific, unit_and_factor, variable_name
from emulator.report.style import FORECAST_COLOURS, GREY, Panel, line_style, power_ticks, span, svg
from emulator.report.view import View

WIDTH = 10.5
LARGE = 0.5  # share of the error from which a correction is called large


def has_budgets(view: View) -> bool:
    return "budget_relative" in view.scores


def sources(view: View) -> list[str]:
    """Audited stores and last the truth."""
    return [str(name) for name in view.scores["audit_source"].values]


def label(view: View, source: str) -> str:
    """What a line is: the truth is the reference model, or the reanalysis, that the forecasts learned from."""
    return "reference (truth)" if source == "truth" else source


def step_rms(view: View, source: str, budget: str, what: str = "budget_relative") -> np.ndarray:
    """Root mean square over initial times of a residual per step, `(lead,)`; NaN where none was audited."""
    values = (
        view.scores[what].sel(audit_source=source, budget=budget).transpose("audit_init_time", "audit_lead_time").values
    )
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.where(finite, values**2, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan))


def drift(view: View, source: str, budget: str) -> np.ndarray:
    """Mean over initial times of the total minus its initial value, `(lead,)`."""
    total = view.scores["budget_total"].sel(audit_source=source, budget=budget)
    total = total.transpose("audit_init_time", "audit_lead_time").values
    change = total - total[:, :1]
    finite = np.isfinite(change)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, change, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def residual_panel(view: View) -> Panel:
    """Relative residual per step of each budget, logarithmic."""
    budgets = [str(name) for name in view.scores["budget"].values]
    lead = days(view.scores["audit_lead_time"].values)
    figure = Figure(figsize=(WIDTH, 3.1))
    axes = figure.subplots(1, len(budgets), squeeze=False, sharey=True)[0]
    lines = []
    for axis, budget in zip(axes, budgets, strict=True):
        for position, source in enumerate(sources(view)):
            values = step_rms(view, source, budget)
            if not np.isfinite(values).any():
                continue
            (line,) = axis.plot(lead, values, label=label(view, source), **line_style(source, position))
            lines.append(line)
        axis.set_yscale("log")
        power_ticks(axis.yaxis)
        axis.set_title(quantity(budget).label)
        axis.set_xlabel("lead [days]")
        span(axis, 0, lead[-1])
    axes[0].set_ylabel("residual per step, relative")
    named = {line.get_label(): line for line in lines}
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=max(len(named), 1), handlelength=2.6)
    readings = [
        f"{quantity(budget).label}: "
        + ", ".join(f"{label(view, s)} {scientific(overall(view, s, budget))}" for s in sources(view))
        for budget in budgets
    ]
    return Panel(
        "Budgets: what each step leaves unexplained",
        "Root mean square over initial times of the budget residual of one step, relative to the global total (dry air mass, "
        "water, energy); audited in double precision from the fields as written, not reported by the scheme.",
        "Air, water and energy do not come from nowhere. For each step the change of the global total is compared with what "
        "came in and went out; what is left over is the residual. The lower the line, the tighter the budget is closed. The "
        "reference's own line shows how well the data themselves obey the budget."
        + (f" {let_stand(view)}" if let_stand(view) else ""),
        svg(figure, "Relative budget residual per step against lead. " + "; ".join(readings) + ".", "residual"),
    )


def drift_panel(view: View) -> Panel:
    """Change of the global totals since the initial time."""
    budgets = [str(name) for name in view.scores["budget"].values]
    lead = days(view.scores["audit_lead_time"].values)
    figure = Figure(figsize=(WIDTH, 2.8))
    axes = figure.subplots(1, len(budgets), squeeze=False)[0]
    named = {}
    for axis, budget in zip(axes, budgets, strict=True):
        unit, factor = quantity(budget).drift
        for position, source in enumerate(sources(view)):
            values = drift(view, source, budget) * factor
            if np.isfinite(values).any():
                named[label(view, source)] = axis.plot(lead, values, **line_style(source, position))[0]
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_title(f"{quantity(budget).label} [{unit}]")
        axis.set_xlabel("lead [days]")
        span(axis, 0, lead[-1])
    axes[0].set_ylabel("change since lead 0")
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=max(len(named), 1), handlelength=2.6)
    return Panel(
        "Drift of the global totals",
        "Mean over initial times of the global total minus its initial value. Dry air as the pressure that it exerts.",
        "Dry air should not change at all. Water and energy may: the atmosphere gains and loses them through its top and "
        "bottom, and the forecast should follow the reference.",
        svg(figure, "Change of global dry air, water and energy since the initial time, against lead.", "drift"),
    )


def correction_panel(view: View) -> Panel | None:
    """Root mean square of what the conservation scheme added to each field; None where no store records it."""
    names = [name for name in map(str, view.scores.data_vars) if name.startswith("correction_rms_")]
    recorded = [(name, source) for name in names for source in sources(view) if _recorded(view, name, source)]
    if not recorded:
        return None
    lead = days(view.scores["audit_lead_time"].values)
    changed = [name for name in names if np.nanmax(np.abs(view.scores[name].values), initial=0.0) > 0]
    shown = [name for name in dict.fromkeys(name for name, _ in recorded) if name in changed]
    untouched = [variable_name(name.removeprefix("correction_rms_")) for name in names if name not in changed]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH, 2.1 * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, shown, strict=False):
        units = view.stored_units(name.removeprefix("correction_rms_"))
        unit, factor = ("Pa", 1.0) if units == "Pa" else unit_and_factor(units)
        for position, source in enumerate(sources(view)):
            if (name, source) in recorded:
                values = view.scores[name].sel(audit_source=source).values[1:] * factor
                axis.plot(lead[1:], values, color=FORECAST_COLOURS[position % len(FORECAST_COLOURS)])
        axis.set_title(variable_name(name.removeprefix("correction_rms_")) + (f" [{unit}]" if unit else ""))
        span(axis, 0, lead[-1])
        axis.set_ylim(0)
        axis.set_xlabel("lead [days]")
    return Panel(
        "Size of the corrections",
        "Area-weighted root mean square of what the conservation scheme added to each field in one step, over initial times."
        + _shares(view, shown)
        + _too_large(view, shown)
        + (f" Nothing was added to: {', '.join(untouched)}." if untouched else ""),
        "Closing a budget means nudging the network's fields. The nudge should be small beside the errors above, and should "
        "not grow with lead; if it does, the network is fighting the physics.",
        svg(figure, "Size of the conservation scheme's corrections against lead.", "correction"),
    )


def overall(view: View, source: str, budget: str, what: str = "budget_relative") -> float:
    """Root mean square of a residual over all audited steps."""
    values = view.scores[what].sel(audit_source=source, budget=budget).values
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def mean_residual(view: View, source: str, budget: str) -> float:
    """Mean residual over all audited steps, in its unit."""
    values = view.scores["budget_residual"].sel(audit_source=source, budget=budget).values
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def drift_per_day(view: View, source: str, budget: str) -> float:
    """Drift over the forecast per day, in the page's unit."""
    values, lead = drift(view, source, budget), days(view.scores["audit_lead_time"].values)
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 2 or lead[finite[-1]] == lead[finite[0]]:
        return float("nan")
    return float(
        (values[finite[-1]] - values[finite[0]]) / (lead[finite[-1]] - lead[finite[0]]) * quantity(budget).drift[1]
    )


def drift_unit(budget: str) -> str:
    return quantity(budget).drift[0]


def _shares(view, names) -> str:
    """How large corrections are at most beside a step's own deviation; nothing where no store records it."""
    largest = {}
    for name in names:
        share = view.scores.get(name.replace("_rms_", "_share_"))
        if share is not None and np.isfinite(share).any():
            largest[variable_name(name.removeprefix("correction_rms_"))] = 100 * float(share.max())
    if not largest:
        return ""
    shares = ", ".join(f"{name} {percent:.2g} %" for name, percent in largest.items())
    return f" At most, as a share of the deviation that a step has in the training data: {shares}."


def _too_large(view, names) -> str:
    """Which corrections reach half of the forecast's error at the same lead, and how much of it; nothing where none does."""
    large = []
    for name in names:
        variable = name.removeprefix("correction_rms_")
        channels = [c for c in map(str, view.scores["channel"].values) if view.variable(c) == variable]
        for source in (s for s in sources(view) if channels and s in view.forecasts and _recorded(view, name, s)):
            squares = [view.get("rmse", source, channel, scaled=False) ** 2 for channel in channels]
            error = dict(zip(view.scores["lead_time"].values, np.sqrt(np.mean(squares, axis=0)), strict=True))
            correction = view.scores[name].sel(audit_source=source)
            leads = [at for at in correction["audit_lead_time"].values if error.get(at, 0) > 0]
            share = correction.sel(audit_lead_time=leads).values / np.array([error[at] for at in leads])
            if np.isfinite(share).any() and (largest := np.nanmax(share)) >= LARGE:
                who = f" of {source}" if len(view.forecasts) > 1 else ""
                large.append(f"{variable_name(variable)}{who} up to {largest:.2g} times")
    return f" Not small beside the forecast's error at the same lead: {', '.join(large)}." if large else ""


def _recorded(view, name, source):
    values = view.scores[name].sel(audit_source=source).values
    return bool(np.isfinite(values).any())


def let_stand(view: View) -> str:
    """What of the absolute residuals is a constant of the training data; nothing where there is none."""
    rates = view.scores["unaccounted"]
    if not np.any(rates.values):
        return ""
    texts = []
    for name, declared in reversed(quantities().items()):
        if name in rates["budget"].values and (value := float(rates.sel(budget=name).values[0])):
            texts.append(f"{number(value)} {declared.rate_units.translate(RAISED)} of {declared.label.lower()}")
    return (
        f"The mean residuals hold {' and '.join(texts)}, which the training data themselves leave unexplained and the scheme "
        "lets stand; the relative residuals are without it."
    )
