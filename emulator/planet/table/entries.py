"""What an entry of the variable table is, and short ways to write one."""

import dataclasses
from typing import Literal

Role = Literal["prognostic", "forcing", "diagnostic", "static"]
Cell = Literal["point", "mean", "fixed"]


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable: an entry of the table, or what a store or a configuration says of a field.

    Attributes:
      role: the usual one.
      standard_name, sign: CF's standard name, and which sign means what, where that is a convention.
      vertical: the dimension that it has besides place and time: "level" (pressure, sigma or hybrid), "height", "depth" or
        "soil_layer"; None for none.
      cell: CF's time cell method: "point" (a snapshot at `time`), "mean" (over the step that ends at `time`) or "fixed".
      minimum, maximum: physical bounds in `units` that no valid value may cross.
      domain: where it exists: "all", "land", "ocean", or a static field of its store that is 1 there and 0 elsewhere.
      short, parameter: ECMWF's short name and number of it in GRIB; None for no number.
      cmip: CMIP's short name; also: other names in sources, in small letters, separated by spaces. A minus before a name says
        that sources with it have the opposite sign.
    """

    name: str
    units: str
    role: Role
    standard_name: str | None = None
    vertical: str | None = None
    cell: Cell = "point"
    minimum: float | None = None
    maximum: float | None = None
    sign: str | None = None
    long_name: str = ""
    domain: str = "all"
    short: str = ""
    parameter: int | None = None
    cmip: str = ""
    also: str = ""

    @property
    def levels(self) -> bool:
        """Whether it has a vertical dimension."""
        return self.vertical is not None


def aloft(name: str, units: str, standard_name: str | None = None, role: Role = "prognostic", **more) -> Variable:
    """A state on atmospheric levels, unless `vertical` says otherwise."""
    return Variable(name, units, role, standard_name, **{"vertical": "level"} | more)


def surface(name: str, units: str, standard_name: str | None = None, role: Role = "prognostic", **more) -> Variable:
    """A state without levels."""
    return Variable(name, units, role, standard_name, **more)


def flux(name: str, units: str, standard_name: str | None = None, role: Role = "diagnostic", **more) -> Variable:
    """A mean rate over the step that ends at the time, downward positive unless `sign` says otherwise."""
    return Variable(name, units, role, standard_name, cell="mean", **{"sign": "downward positive"} | more)


def fixed(name: str, units: str, standard_name: str | None = None, **more) -> Variable:
    """A field that does not change in time."""
    return Variable(name, units, "static", standard_name, cell="fixed", **more)


def share(name: str, standard_name: str | None = None, role: Role = "diagnostic", **more) -> Variable:
    """A fraction between 0 and 1."""
    return Variable(name, "1", role, standard_name, minimum=0, maximum=1, **more)
