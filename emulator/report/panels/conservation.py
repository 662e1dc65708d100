"""The budgets of the forecasts as written: residuals, drift and the size of the corrections."""

import html

import numpy as np

from emulator.planet.quantities import quantity
from emulator.report import budget_panels as budgets
from emulator.report.display import number, scientific
from emulator.report.panel import panel
from emulator.report.template import note, table
from emulator.report.view import View


@panel("conservation", 10, needs=("budget_relative",))
def conservation(view: View) -> list:
    let_stand = budgets.let_stand(view)
    return [
        budgets.residual_panel(view),
        table("Budgets", budget_table(view)),
        let_stand and note(let_stand),
        budgets.drift_panel(view),
        budgets.correction_panel(view),
    ]


def budget_table(view: View) -> str:
    """HTML table: residual per step and drift per day of every source and budget."""
    rows = []
    for budget in map(str, view.scores["budget"].values):
        unit = str(view.scores["budget_units"].sel(budget=budget).values)
        per = {"W m-2": "W/m²", "kg m-2": "kg/m² per step"}[unit]
        for index, source in enumerate(budgets.sources(view)):
            relative = budgets.overall(view, source, budget)
            if not np.isfinite(relative):
                continue
            head = f'<th scope="rowgroup">{quantity(budget).label}</th>' if not index else "<td></td>"
            drift = budgets.drift_per_day(view, source, budget)
            rows.append(
                f'<tr>{head}<th scope="row">{html.escape(budgets.label(view, source))}</th>'
                f"<td>{scientific(relative)}</td>"
                f"<td>{number(budgets.mean_residual(view, source, budget))} {per}</td>"
                f"<td>{number(budgets.overall(view, source, budget, 'budget_residual'))} {per}</td>"
                f"<td>{number(drift)} {budgets.drift_unit(budget)}</td></tr>"
            )
    return (
        '<table class="budget"><thead><tr><th scope="col" class="text">Budget</th><th scope="col" class="text">Source</th>'
        '<th scope="col">Residual per step, relative (rms)</th><th scope="col">Mean residual</th>'
        '<th scope="col">Residual (rms)</th><th scope="col">Drift of the total per day</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
