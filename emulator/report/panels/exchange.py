"""What an atmosphere gave to the ocean's network beside it, and what that was given: the two sides of one book."""

import html

import numpy as np

from emulator.report.display import (
    head_cells,
    html_table,
    note,
    number,
    scientific,
    table,
    unit_and_factor,
    variable_name,
)
from emulator.report.panel import panel
from emulator.report.view import View


@panel("conservation", 20, needs=("exchange_given",))
def exchanged(view: View) -> list:
    """Table of all forecasts that were coupled with a network, and what its columns are."""
    rows = []
    for source, name, found in exchange_rows(view):
        unit, factor = unit_and_factor(found["units"])
        rows.append(
            f'<th scope="row">{variable_name(name)} <span class="unit">{html.escape(unit)}</span></th>'
            f"<td>{html.escape(source)}</td><td>{number(found['given'] * factor, 6)}</td>"
            f"<td>{number(found['received'] * factor, 6)}</td><td>{scientific(found['mean_relative'])}</td>"
            f'<td class="value">{scientific(found["cells_relative"])}</td>'
        )
    if not rows:
        return []
    head = head_cells(
        ("Forecast", "Left the atmosphere", "Given to the ocean", "Difference of the means", "Difference in cells")
    )
    about = (
        "Over intervals of the ocean, over the sea, from the fields as written in both stores; downward is positive. "
        "Differences are root mean squares over intervals, relative to what was given: of the means over the sea, and of "
        "its cells. What one side books as lost the other has to book as won, to the rounding of float32."
    )
    return [
        table("Exchange with the ocean", html_table(head, rows, "What passes between the atmosphere and the ocean")),
        note(about),
    ]


def exchange_rows(view: View) -> list[tuple[str, str, dict]]:
    """Forecast, what is exchanged, and its numbers, in the units of the stores."""
    if "exchange_given" not in view.scores:
        return []
    rows = []
    for source in map(str, view.scores["audit_source"].values):
        for name in map(str, view.scores["exchange"].values):
            at = view.scores.sel(audit_source=source, exchange=name)
            gave, got, difference, size = (
                at[f"exchange_{score}"].values.ravel() for score in ("given", "received", "difference", "size")
            )
            if not np.isfinite(gave).any():
                continue
            whole, scale = (np.sqrt(np.nanmean(values**2)) for values in (got - gave, gave))
            cells = np.sqrt(np.nanmean(difference**2) / np.nanmean(size**2)) if np.nanmean(size**2) > 0 else np.nan
            numbers = {
                "given": float(np.nanmean(gave)),
                "received": float(np.nanmean(got)),
                "mean_relative": float(whole / scale) if scale > 0 else float("nan"),
                "cells_relative": float(cells),
                "units": str(at["exchange_units"].values),
            }
            rows.append((source, name, numbers))
    return rows
