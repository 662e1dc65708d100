"""Closing the global budgets of dry air, water and energy: hard corrections, soft penalties, and what they did."""

from emulator.conservation.anchors import Unaccounted, estimate_unaccounted, truth_residuals
from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.budgets import Anchor, Budget, ColumnWater, DryAir, Water
from emulator.conservation.checks import check_means, check_units
from emulator.conservation.constraints import Options, Scheme, build, make_budgets
from emulator.conservation.energy import Energy

__all__ = [
    "Anchor",
    "Atmosphere",
    "Budget",
    "ColumnWater",
    "DryAir",
    "Energy",
    "Options",
    "Scheme",
    "Unaccounted",
    "Water",
    "build",
    "check_means",
    "check_units",
    "estimate_unaccounted",
    "make_budgets",
    "truth_residuals",
]
