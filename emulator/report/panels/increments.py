"""Water and energy that the analyses of a cycle add: observations know nothing of budgets."""

import numpy as np

from emulator.report.display import head_cells, html_table, number, table, unit_cell
from emulator.report.panel import panel
from emulator.report.view import View

ROWS = (
    ("Water added", "added_water", "kg m⁻²", 1.0),
    ("Energy added", "added_energy", "MJ m⁻²", 1e-6),
    ("Negative humidity set to zero", "clipped_water", "kg m⁻²", 1.0),
    ("Surface pressure that gives the dry mass back", "added_pressure", "Pa", 1.0),
)


@panel("assimilation", 15, needs=("increment_added_water",))
def increments(view: View) -> str:
    """Table of global means: of an analysis, its size, and over a day."""
    times, rows = view.scores["increment_time"].values, []
    span = (times[-1] - times[0]) / np.timedelta64(1, "D") * len(times) / max(len(times) - 1, 1)
    for title, name, units, factor in ROWS:
        values = view.scores[f"increment_{name}"].values * factor
        daily = values.sum() / span if span > 0 else np.nan
        shown = (values.mean(), np.sqrt((values**2).mean()), daily)
        rows.append(unit_cell(title, units) + "".join(f"<td>{number(float(value))}</td>" for value in shown))
    text = (
        f"What {len(times)} analyses add in the global mean. Dry mass is kept by a uniform change of surface pressure, and "
        "negative humidity is made up for by a factor of all humidity; water and energy are what the observations ask for"
    )
    return table("Budgets of analyses", html_table(head_cells(("Mean", "Root mean square", "A day")), rows, text))
