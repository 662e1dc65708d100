"""Which budgets are closed, and how: every option with its default, its meaning and its limits. Needs no torch."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from emulator.options import Options, option
from emulator.planet.quantities.registry import quantities
from emulator.planet.quantities.water import HUMIDITY, PRECIPITATION


@dataclasses.dataclass(frozen=True)
class Unaccounted:
    """Constant sources in the data: `heating` W m-2, `moistening` and `dry_mass` kg m-2 s-1, all global means."""

    heating: float = 0.0
    moistening: float = 0.0
    dry_mass: float = 0.0


@dataclasses.dataclass(frozen=True)
class BudgetOptions(Options):
    """Which budgets are closed inside the step, and how; see docs/conservation.md.

    Attributes:
      kind: "none" measures alone. energy, heat_capacity, kinetic: form of energy (`emulator.planet.quantities.energy`).
      anchor: what dry mass is held to: the "initial" state's, that of the "previous" step, or the "given" number.
      dry_air, water, temperature: forms of the sequential corrections (`sequential.py`); dry_air None takes "ratio" where
        there is surface pressure and "humidity" elsewhere.
      controls: None for the projection's default. bands: degrees north, increasing; none for the globe alone.
      humidity_from_level: index of the highest level that the dry-air form "humidity" may change.
      relative: of the controls, the fields whose error variance is proportional to their value: the projection scales them,
        and dry cells stay dry.
    """

    kind: Literal["none", "sequential", "projection"] = option("sequential")
    budgets: tuple[str, ...] = option(
        ("dry_air", "water", "energy"), "of the registered quantities: these, column_water, ..."
    )
    energy: Literal["hydrostatic", "total"] = option("hydrostatic")
    heat_capacity: Literal["constant", "moist"] = option("constant")
    kinetic: bool = option(True)
    anchor: Literal["initial", "previous", "given"] = option("initial")
    dry_mass: float | None = option(None, "kg m-2, with the anchor 'given'", above=0)
    dry_air: Literal["ratio", "offset", "humidity"] | None = option(None)
    water: Literal["precipitation", "evaporation"] = option("precipitation")
    temperature: Literal["uniform", "ratio"] = option("uniform")
    controls: tuple[str, ...] | None = option(None, "fields that the projection may change")
    bands: tuple[float, ...] = option(
        (),
        "latitudes between bands in which the projection closes water; needs its transport's divergence",
        new=True,
    )
    humidity_from_level: int = option(0)
    relative: tuple[str, ...] = option((PRECIPITATION, HUMIDITY))

    def __post_init__(self):
        super().__post_init__()
        if (self.anchor == "given") != (self.dry_mass is not None):
            raise ValueError(
                f"Expected dry_mass exactly with the anchor 'given', got {self.anchor!r} and {self.dry_mass!r}"
            )
        known = [name for name, quantity in quantities().items() if not quantity.audited_alone]
        if unknown := [name for name in self.budgets if name not in known]:
            raise ValueError(f"Expected budgets among {', '.join(known)}, got {', '.join(unknown)}")
        if self.bands and self.kind != "projection":
            raise ValueError(f"Expected latitude bands with the kind 'projection' alone, got {self.kind!r}")
        if any(a >= b for a, b in zip((-90.0, *self.bands), (*self.bands, 90.0), strict=True)):
            raise ValueError(
                f"Expected increasing latitudes between -90 and 90 as edges of bands, got {list(self.bands)}"
            )


@dataclasses.dataclass(frozen=True)
class SchemeOptions(BudgetOptions):
    """Choice of a scheme, with the constant sources in the data that it does not force to zero."""

    unaccounted: Unaccounted = option(Unaccounted())


@dataclasses.dataclass(frozen=True)
class ConservationOptions(BudgetOptions):
    """Which budgets are closed inside the step, and how; see docs/conservation.md."""

    unaccounted: tuple[Literal["heating", "moistening", "dry_mass"], ...] = option(
        ("heating", "moistening"), "mean residuals of the training data that are let stand, not forced to 0"
    )
    penalty: float = option(0.0, "weight of the squared residuals in the loss; works with kind none too", minimum=0)

    @property
    def scheme(self) -> SchemeOptions:
        """The scheme's options, before residuals are estimated."""
        return self.with_rates({})

    def with_rates(self, saved: Mapping) -> SchemeOptions:
        """The scheme's options with the residuals that a training has estimated and its checkpoint keeps."""
        rates = {n.removeprefix("unaccounted_"): v for n, v in saved.items() if n.startswith("unaccounted_")}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(BudgetOptions)}
        return SchemeOptions(**given, unaccounted=Unaccounted(**rates))
