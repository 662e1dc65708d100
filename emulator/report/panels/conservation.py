"""The budgets of the forecasts as written: what each step leaves, how the totals drift, how large the corrections are."""

import html
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from emulator.planet.quantities.registry import quantities, quantity
from emulator.report.budgets import drift, drift_per_day, has_outflow, label, mean_residual, overall, sources, step_rms
from emulator.report.display import RAISED, days, note, number, scientific, table, unit_and_factor, variable_name
from emulator.report.panel import panel
from emulator.report.style import FORECAST_COLOURS, GREY, WIDTH, Panel, line_style, power_ticks, span, svg
from emulator.report.view import View

LARGE = 0.5  # share of the error from which a correction is called large


@panel("conservation", 10, needs=("budget_relative",))
def conservation(view: View) -> list:
    stands = let_stand(view)
    return [
        residual_panel(view),
        closure_panel(view) if has_outflow(view) else None,
        table("Budgets", budget_table(view)),
        stands and note(stands),
        drift_panel(view),
        correction_panel(view),
    ]


def _by_budget(view: View, height: float, values: Callable[[str, str], np.ndarray], **options) -> tuple[Figure, list]:
    """A figure with an axis for each budget, and on it `values(source, budget)`, `(lead,)`, of every source."""
    budgets = [str(name) for name in view.scores["budget"].values]
    lead = days(view.scores["audit_lead_time"].values)
    figure, named = Figure(figsize=(WIDTH, height)), {}
    axes = figure.subplots(1, len(budgets), squeeze=False, **options)[0]
    for axis, budget in zip(axes, budgets, strict=True):
        for position, source in enumerate(sources(view)):
            line = values(source, budget)
            if np.isfinite(line).any():
                named[label(view, source)] = axis.plot(lead, line, **line_style(source, position))[0]
        axis.set_title(quantity(budget).label)
        axis.set_xlabel(f"lead [{view.unit}s]")
        span(axis, 0, lead[-1])
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=max(len(named), 1), handlelength=2.6)
    return figure, list(zip(axes, budgets, strict=True))


def residual_panel(view: View) -> Panel:
    """Relative residual per step of each budget, logarithmic."""
    figure, readings = _residuals(view, "budget_relative")
    if view.scores.attrs.get("open_domain"):
        return Panel(
            "Budgets of an open domain: what passes its sides",
            "Root mean square over initial times of the budget residual of one step, relative to the domain's total (dry air "
            "mass, water, energy): the flux through the sides, estimated as what the fluxes at the top and the ground leave "
            "unexplained.",
            "Air, water and energy enter and leave a limited area by its sides. A good forecast lets through as much as the "
            "reference: its line lies on that one, neither above nor below.",
            svg(figure, f"Relative residual per step against lead. {readings}.", "residual"),
        )
    return Panel(
        "Budgets: what each step leaves unexplained",
        "Root mean square over initial times of the budget residual of one step, relative to the global total (dry air mass, "
        "water, energy); audited in double precision from the fields as written, not reported by the scheme.",
        "Air, water and energy do not come from nowhere. For each step the change of the global total is compared with what "
        "came in and went out; what is left over is the residual. The lower the line, the tighter the budget is closed. The "
        "reference's own line shows how well the data themselves obey the budget."
        + (f" {let_stand(view)}" if let_stand(view) else ""),
        svg(figure, f"Relative budget residual per step against lead. {readings}.", "residual"),
    )


def closure_panel(view: View) -> Panel:
    """The same with what left the domain by its sides, as the forecasts were given it."""
    figure, readings = _residuals(view, "budget_closed_relative")
    return Panel(
        "Budgets with the given flux through the sides",
        "Root mean square over initial times of what one step leaves unexplained of the domain's dry air, water and energy, "
        "relative to the domain's total, once what left by the sides counts, as the forecasts were given it; audited in "
        "double precision from the fields as written.",
        "Closed budgets lie at rounding; a forecast without corrections lets through something else than it was given. The "
        "reference's line is how well the given flux is the reference's own, which holds the imbalance of the data that it "
        "was made of. Where that line lies high, corrections push the forecast away from the reference."
        + (f" {let_stand(view)}" if let_stand(view) else ""),
        svg(figure, f"Relative residual per step with the given flux against lead. {readings}.", "closure"),
    )


def _residuals(view: View, what: str) -> tuple[Figure, str]:
    """A figure of relative residuals per step, logarithmic, and what it shows in words."""
    figure, axes = _by_budget(view, 3.1, lambda source, budget: step_rms(view, source, budget, what), sharey=True)
    for axis, _ in axes:
        axis.set_yscale("log")
        power_ticks(axis.yaxis)
    axes[0][0].set_ylabel("residual per step, relative")
    readings = [
        f"{quantity(budget).label}: "
        + ", ".join(
            f"{label(view, s)} {scientific(value)}"
            for s in sources(view)
            if np.isfinite(value := overall(view, s, budget, what))
        )
        for _, budget in axes
    ]
    return figure, "; ".join(readings)


def drift_panel(view: View) -> Panel:
    """Change of the global totals since the initial time."""
    figure, axes = _by_budget(view, 2.8, lambda source, budget: drift(view, source, budget) * quantity(budget).drift[1])
    for axis, budget in axes:
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_title(f"{quantity(budget).label} [{quantity(budget).drift[0]}]")
    axes[0][0].set_ylabel("change since lead 0")
    return Panel(
        "Drift of the totals",
        "Mean over initial times of the total minus its initial value, of the globe or of the domain. Dry air as the "
        "pressure that it exerts.",
        "Dry air of a globe should not change at all. Water and energy may: the atmosphere gains and loses them through "
        "its top and bottom, and the forecast should follow the reference.",
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
        axis.set_xlabel(f"lead [{view.unit}s]")
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


def budget_table(view: View) -> str:
    """HTML table: residual per step and drift per day of every source and budget."""
    rows = []
    for budget in map(str, view.scores["budget"].values):
        unit, _ = unit_and_factor(str(view.scores["budget_units"].sel(budget=budget).values))
        per = unit if quantity(budget).as_rate else f"{unit} per step"
        for index, source in enumerate(sources(view)):
            relative = overall(view, source, budget)
            if not np.isfinite(relative):
                continue
            head = f'<th scope="rowgroup">{quantity(budget).label}</th>' if not index else "<td></td>"
            per_day = drift_per_day(view, source, budget)
            rows.append(
                f'<tr>{head}<th scope="row">{html.escape(label(view, source))}</th>'
                f"<td>{scientific(relative)}</td>"
                f"<td>{number(mean_residual(view, source, budget))} {per}</td>"
                f"<td>{number(overall(view, source, budget, 'budget_residual'))} {per}</td>"
                f"<td>{number(per_day)} {quantity(budget).drift[0]}</td>"
                + (f"<td>{_closed(view, source, budget)}</td>" if has_outflow(view) else "")
                + "</tr>"
            )
    given = '<th scope="col">With the given flux, relative (rms)</th>' if has_outflow(view) else ""
    return (
        '<table class="budget"><thead><tr><th scope="col" class="text">Budget</th><th scope="col" class="text">Source</th>'
        '<th scope="col">Residual per step, relative (rms)</th><th scope="col">Mean residual</th>'
        f'<th scope="col">Residual (rms)</th><th scope="col">Drift of the total per day</th>{given}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _closed(view: View, source: str, budget: str) -> str:
    """Residual of a source with what left by the sides; nothing where it is not known."""
    value = overall(view, source, budget, "budget_closed_relative")
    return scientific(value) if np.isfinite(value) else ""


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
        if declared.audited_alone:
            continue
        if name in rates["budget"].values and (value := float(rates.sel(budget=name).values[0])):
            texts.append(f"{number(value)} {declared.rate_units.translate(RAISED)} of {declared.label.lower()}")
    return (
        f"The mean residuals hold {' and '.join(texts)}, which the training data themselves leave unexplained and the scheme "
        "lets stand; the relative residuals are without it."
    )
