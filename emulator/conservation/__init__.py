"""Closing the global budgets of dry air, water, energy and more: hard corrections, soft penalties, and what they did.

A scheme (`build`) is a callable `scheme(state0, state1, anchor) -> (corrected, record)`. `corrected` holds the changed fields
alone, `record` numbers for every batch element: residuals before and after, the size of the corrections and any
saturation. Fields keep their type; run it outside autocast (it refuses half precision).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers read
    from emulator.conservation.anchors import truth_residuals as truth_residuals
    from emulator.conservation.atmosphere import Atmosphere as Atmosphere
    from emulator.conservation.budgets import Anchor as Anchor
    from emulator.conservation.budgets import Budget as Budget
    from emulator.conservation.budgets import ColumnWater as ColumnWater
    from emulator.conservation.budgets import DryAir as DryAir
    from emulator.conservation.budgets import Water as Water
    from emulator.conservation.checks import check_means as check_means
    from emulator.conservation.checks import check_units as check_units
    from emulator.conservation.energy import Energy as Energy
    from emulator.conservation.options import SchemeOptions as SchemeOptions
    from emulator.conservation.options import Unaccounted as Unaccounted
    from emulator.conservation.scheme import Scheme as Scheme
    from emulator.conservation.scheme import make_budgets as make_budgets
    from emulator.conservation.schemes import build as build

# Imported when they are first used: the options, which need no torch, lie in this folder too.
_WHERE = {
    "anchors": ("truth_residuals",),
    "atmosphere": ("Atmosphere",),
    "budgets": ("Anchor", "Budget", "ColumnWater", "DryAir", "Water"),
    "checks": ("check_means", "check_units"),
    "energy": ("Energy",),
    "options": ("SchemeOptions", "Unaccounted"),
    "scheme": ("Scheme", "make_budgets"),
    "schemes": ("build",),
}

__all__ = sorted(name for names in _WHERE.values() for name in names)


def __getattr__(name: str):
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
