"""A scheme from its options."""

import torch

from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.options import SchemeOptions
from emulator.conservation.projection import Projection
from emulator.conservation.scheme import Scheme, make_budgets
from emulator.conservation.sequential import Sequential


def build(options: SchemeOptions, atmosphere: Atmosphere, variables, variances=None) -> Scheme:
    """A scheme.

    Args:
      options: the choice.
      atmosphere: geometry and constants.
      variables: names of all fields of the states (prognostic and diagnostic).
      variances: error variance of one step by variable: a number or `(level,)`, the variable's units squared; usually the
        squared `difference_std` of the statistics. The projection needs those of its controls; of every scheme's record they
        are what sizes of corrections are compared with.

    Raises:
      ValueError: naming the variables that a budget lacks, or the options that do not go together.
    """
    budgets = make_budgets(options, atmosphere, variables)
    if options.kind == "none":
        scheme = Scheme(options, atmosphere, budgets)
    elif options.kind == "sequential":
        scheme = Sequential(options, atmosphere, budgets, variables)
    else:
        scheme = Projection(options, atmosphere, budgets, variables, variances)
    known = {
        name: float(torch.as_tensor(variances[name]).mean()) for name in scheme.changes if name in (variances or {})
    }
    scheme.errors = {name: variance**0.5 for name, variance in known.items() if variance > 0}
    return scheme
