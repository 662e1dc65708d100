"""What is scored: every option of a verification with its default, its meaning and its limits. Needs no array library."""

import dataclasses
from typing import Literal

from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class ScenarioOptions(Options):
    """How emulators of scenarios are scored, as means of whole years."""

    forcing: str = option("carbon_dioxide_mole_fraction", "variable that the global mean follows in pattern scaling")
    form: Literal["linear", "logarithm"] = option("linear", "of the forcing: as it is, or its logarithm")
    scale_by: str | None = option(
        None, "field whose global mean local fields follow; None: 2m_temperature where there is one, else each its own"
    )
    variables: tuple[str, ...] | None = option(None, "None: all fields of the first training store but forcing")
    months: tuple[int, ...] = option((), "that the mean of a year is of; none: of all", minimum=1, maximum=12)
    years: tuple[int, ...] = option((), "first and last year to score; none: all that every store has")

    def __post_init__(self):
        super().__post_init__()
        if self.years and (len(self.years) != 2 or self.years[0] > self.years[1]):
            raise ValueError(f"Expected years as the first and the last one, got {list(self.years)}")


@dataclasses.dataclass(frozen=True)
class OutflowOptions(Options):
    """What leaves a limited area by its sides, from driving data (docs/limited_area.md)."""

    budgets: tuple[str, ...] = option(("dry_air", "water", "energy"), "of which it is made", shortest=1)
    divergence: tuple[str, ...] = option(
        (),
        "of them those made of the driving data's divergence of vertically integrated transport; the others are what the "
        "budgets of the driving data leave unexplained over the domain",
    )
    energy: Literal["hydrostatic", "total"] = option("hydrostatic", "form of energy, as it is trained")
    heat_capacity: Literal["constant", "moist"] = option("constant")
    kinetic: bool = option(True)

    def __post_init__(self):
        super().__post_init__()
        if other := [name for name in self.divergence if name not in self.budgets]:
            raise ValueError(f"Expected divergence among the budgets {', '.join(self.budgets)}, got {', '.join(other)}")


@dataclasses.dataclass(frozen=True)
class VerifyOptions(Options):
    """What is scored, where, and against which climatology; `period` and `climatology` are first and last times."""

    period: tuple = option((None, None), "initial times to score")
    climatology: tuple = option(
        (None, None),
        "period of the truth that the climatology is made from; open: before the first initial time, or all of it where that "
        "is less than 30 days",
    )
    persistence_lead_hours: tuple[float, ...] = option(
        (), "leads to score persistence at when there are no forecasts; empty: up to 10 days", above=0
    )
    persistence_lead_months: tuple[int, ...] = option(
        (), "the same for a truth of calendar steps; empty: up to a year", new=True, minimum=1, keyword=True
    )
    events: tuple[float, ...] = option(
        (0.05, 0.95),
        "quantiles of the climatology that events lie below (up to 0.5) or above; empty: none",
        minimum=0,
        maximum=1,
    )
    variables: tuple[str, ...] | None = option(None)
    levels: tuple[float, ...] | dict[str, tuple[float, ...]] | None = option(
        None,
        "of these the nearest in the stores, in their own unit: of pressure, sigma or hybrid levels, or by the names of "
        "vertical axes, as {depth: [5, 100]}; of axes that are not named all are scored",
    )
    regions: tuple[str, ...] | None = option(
        None, "None: the globe, the tropics and both hemispheres beyond 20 degrees; the domain of a regional grid"
    )
    energy: Literal["hydrostatic", "total"] = option("hydrostatic", "form of energy in the audit, as trained")
    heat_capacity: Literal["constant", "moist"] = option("constant")
    kinetic: bool = option(True)

    def __post_init__(self):
        super().__post_init__()
        for key in ("events", "regions", "variables"):
            values = getattr(self, key) or ()
            if twice := sorted({v for v in values if values.count(v) > 1}):
                raise ValueError(f"Expected each of {key} once, got {twice[0]!r} more than once")
        if outside := [e for e in self.events if e in (0, 1)]:
            raise ValueError(
                f"Expected events at quantiles between 0 and 1, got {outside[0]:g}, beyond which nothing or everything lies"
            )
