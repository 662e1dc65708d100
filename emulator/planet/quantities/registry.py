"""Conserved quantities: a file of this folder each, which declares one and registers it.

The declaration is all that the configuration, the schemes, the checks, the audit and the report know of a quantity. Its
functions take arrays of NumPy and tensors alike, and nothing here imports torch. `docs/conservation.md` has an example.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from emulator.planet.constants import Constants
from emulator.planet.vertical import Levels
from emulator.registry import Registry

Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Fields of some times as the audit integrates them.

    Attributes:
      fields: by name, float64, `(..., level, *space)` or `(..., *space)`; static ones `space`.
      layer: mass of air or sea water by level, kg m-2, `(..., level, *space)`.
      levels: of the store, None of a sea. constants: of the store.
      form: what energy means, an `energy.EnergyForm`.
    """

    fields: Fields
    layer: Any
    levels: Levels | None
    constants: Constants
    form: Any

    def integral(self, content, space: int) -> Any:
        """`sum_k x_k m_k` of an amount per kilogram with `space` horizontal axes: `(..., *space)`."""
        return (self.layer * content).sum(-1 - space)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity of the atmosphere, or of the sea, whose mean changes by known fluxes alone.

    Attributes:
      name: in configurations, checkpoints, stores and scores; label: on the report; total: what a sentence calls its amount.
      units: of the global mean, per unit of area.
      state: fields that its content is formed from, without which it has no budget; of an atmosphere surface pressure goes
        without saying.
      content: amount per kilogram of air or sea water, `content(fields, constants)`, `(..., level, *space)`. None: no audit.
      medium: "air", in layers of the dimension `level`, or "sea", on depths.
      fluxes: mean rates over the step, and what a unit of each adds to a column per second.
      optional: fields of the state that count where they are known; optional_fluxes: the same of fluxes.
      divergence: mean rates of the divergence of vertically integrated transport, and what a unit of each takes from a column
        per second; the area mean over a domain is what leaves it by its sides.
      gain: what a column gains per second, `gain(fields, constants)`, where it is more than the sum over `fluxes`.
      column: amount of every column, `column(columns)`, where it is more than the integral of the content.
      control: field that is changed where no correction is written for the budget; by default the first of `state`.
      correction: what happens to it, one "ratio" or one "increment" for all cells that hold something; with a projection, a
        change in proportion to the error variance of the level, times the value or not.
      unaccounted: name in `conservation.Unaccounted` of the constant rate by which the data may fail to close, if it has one.
      as_rate: whether the audit gives residuals per second, in `rate_units`, rather than per step.
      drift: unit in which the report shows changes, and factor from `units`.
      order: place in the sequence of corrections, in records and on the report.
      audited_alone: whether no scheme closes it, since it follows from other budgets.
    """

    name: str
    label: str
    units: str
    state: tuple[str, ...]
    content: Callable[[Fields, Constants], Any] | None
    fluxes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    optional: tuple[str, ...] = ()
    optional_fluxes: tuple[str, ...] = ()
    divergence: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gain: Callable[[Fields, Constants], Any] | None = None
    column: Callable[[Columns], Any] | None = None
    control: str = ""
    correction: Literal["ratio", "increment"] = "ratio"
    medium: Literal["air", "sea"] = "air"
    unaccounted: str | None = None
    as_rate: bool = False
    drift: tuple[str, float] = ("", 1.0)
    total: str = ""
    order: int = 100
    audited_alone: bool = False

    def __post_init__(self):
        object.__setattr__(self, "control", self.control or self.state[0])
        object.__setattr__(self, "total", self.total or self.label.lower())
        object.__setattr__(self, "drift", self.drift if self.drift[0] else (self.units, 1.0))

    @property
    def needed(self) -> tuple[str, ...]:
        """Fields without which the quantity cannot be audited."""
        return (*(("surface_pressure",) if self.medium == "air" else ()), *self.state, *self.fluxes)

    @property
    def rate_units(self) -> str:
        """Of a rate of change of the global mean."""
        return self.units.replace("J", "W") if "J" in self.units else f"{self.units} s-1"

    def gained(self, fields: Fields, constants: Constants) -> Any:
        """What fluxes bring per second: of fields, or of their means over the sphere."""
        if self.gain is not None:
            return self.gain(fields, constants)
        return sum((sign * fields[name] for name, sign in self.fluxes.items()), 0.0)


QUANTITIES: Registry[Quantity] = Registry("conserved quantity", __package__, order=lambda entry: entry.order)


def register(entry: Quantity) -> Quantity:
    """Adds a quantity. Raises `ValueError` for a name that another one has."""
    return QUANTITIES.register(entry.name, entry)


def quantities() -> dict[str, Quantity]:
    """All registered quantities by name, in their order."""
    return QUANTITIES.all()


def quantity(name: str) -> Quantity:
    """Raises `ValueError`, naming all there are, for an unknown one."""
    return QUANTITIES[name]
