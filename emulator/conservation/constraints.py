"""Hard corrections: `build` chooses the scheme.

A scheme is a callable `scheme(state0, state1, anchor) -> (corrected, record)`. `corrected` holds the changed fields
alone, `record` numbers for every batch element: residuals before and after, the size of the corrections and any
saturation. Fields keep their type; run it outside autocast (it refuses half precision).
"""

import torch

from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.budgets import Budget
from emulator.conservation.projection import Projection
from emulator.conservation.scheme import BUDGETS, Options, Scheme, make_budgets
from emulator.conservation.sequential import Sequential


def build(
    options: Options, atmosphere: Atmosphere, variables, variances=None, extra: tuple[Budget, ...] = (), bands=None
) -> Scheme:
    """A scheme.

    Args:
      options: the choice.
      atmosphere: geometry and constants.
      variables: names of all fields of the states (prognostic and diagnostic).
      variances: error variance of one step by variable: a number or `(level,)`, the variable's units squared; usually the
        squared `difference_std` of the statistics. The projection needs those of its controls; of every scheme's record they
        are what sizes of corrections are compared with.
      extra: further budgets, which the projection closes and every scheme reports.
      bands: for the projection, the number of every cell's latitude band, `(*space,)`: see `Bands`.

    Raises:
      ValueError: naming the variables that a budget lacks, or the options that do not go together.
    """
    scheme = _scheme(options, atmosphere, variables, variances, extra, bands)
    known = {
        name: float(torch.as_tensor(variances[name]).mean()) for name in scheme.changes if name in (variances or {})
    }
    scheme.errors = {name: variance**0.5 for name, variance in known.items() if variance > 0}
    return scheme


def _scheme(options: Options, atmosphere: Atmosphere, variables, variances, extra, bands) -> Scheme:
    budgets = make_budgets(options, atmosphere, variables)
    for budget in extra:
        if budget.name in budgets:
            raise ValueError(f"Expected a new name for an extra budget, got {budget.name!r}")
        budgets[budget.name] = budget
    if options.kind == "none":
        return Scheme(options, atmosphere, budgets)
    if options.kind == "sequential":
        if extra:
            raise ValueError(
                f"Expected no extra budgets with the sequential scheme, which has a correction for each of {BUDGETS}, "
                f"got {[budget.name for budget in extra]}; the projection closes any budget"
            )
        return Sequential(options, atmosphere, budgets, variables)
    return Projection(options, atmosphere, budgets, variables, variances, bands)
