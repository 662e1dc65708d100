"""What the audit of forecasts says of their budgets: residuals of steps and drifts of totals, in numbers."""

import numpy as np

from emulator.planet.calendar import lead_seconds
from emulator.planet.quantities.registry import quantity
from emulator.report.view import View


def has_budgets(view: View) -> bool:
    return "budget_relative" in view.scores


def has_outflow(view: View) -> bool:
    """Whether forecasts of a domain record what left it by its sides."""
    return "budget_closed_relative" in view.scores


def sources(view: View) -> list[str]:
    """Audited stores and last the truth."""
    return [str(name) for name in view.scores["audit_source"].values]


def label(view: View, source: str) -> str:
    """What a line is: the truth is the reference model, or the reanalysis, that the forecasts learned from."""
    return "reference (truth)" if source == "truth" else source


def step_rms(view: View, source: str, budget: str, what: str = "budget_relative") -> np.ndarray:
    """Root mean square over initial times of the relative residual per step, `(lead,)`; NaN where none was audited."""
    return np.sqrt(_mean(_audited(view, what, source, budget) ** 2))


def drift(view: View, source: str, budget: str) -> np.ndarray:
    """Mean over initial times of the total minus its initial value, `(lead,)`."""
    total = _audited(view, "budget_total", source, budget)
    return _mean(total - total[:, :1])


def overall(view: View, source: str, budget: str, what: str = "budget_relative") -> float:
    """Root mean square of a residual over all audited steps."""
    values = _finite(view, what, source, budget)
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def mean_residual(view: View, source: str, budget: str) -> float:
    """Mean residual over all audited steps, in its unit."""
    values = _finite(view, "budget_residual", source, budget)
    return float(values.mean()) if len(values) else float("nan")


def drift_per_day(view: View, source: str, budget: str) -> float:
    """Drift over the forecast per day, in the page's unit."""
    values, lead = drift(view, source, budget), lead_seconds(view.scores["audit_lead_time"].values) / 86400
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 2 or lead[finite[-1]] == lead[finite[0]]:
        return float("nan")
    return float(
        (values[finite[-1]] - values[finite[0]]) / (lead[finite[-1]] - lead[finite[0]]) * quantity(budget).drift[1]
    )


def _audited(view, what, source, budget) -> np.ndarray:
    """Of one source and budget, `(init, lead)`."""
    array = view.scores[what].sel(audit_source=source, budget=budget)
    return array.transpose("audit_init_time", "audit_lead_time").values


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the initial times that are known, `(lead,)`."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def _finite(view, what, source, budget) -> np.ndarray:
    values = view.scores[what].sel(audit_source=source, budget=budget).values
    return values[np.isfinite(values)]
