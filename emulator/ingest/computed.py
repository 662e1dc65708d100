"""Fields that are computed from other fields while a store is made: derived variables, and fields on other levels."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from emulator.ingest.fields import Field, Plan, Term


@dataclasses.dataclass(frozen=True, eq=False)
class Computed:
    """Stands where a `Field` stands.

    Attributes:
      name, role: canonical, and of the store.
      inputs: fields on the same time axis.
      function: from the inputs' values, each `(time, [lead,] [member,] [level,] *space)`, and the moments that they are of
        (nanoseconds or cftime, with leads added) to those of this field. Sent to other processes, so of module level.
      moments: `(time,)` of the store.
    """

    name: str
    role: str
    inputs: Sequence["Field | Computed"]
    function: Callable
    moments: np.ndarray
    has_member: bool
    has_level: bool
    averaged: bool

    @property
    def slots(self) -> np.ndarray:
        """`(time,)`, -1 where an input is missing."""
        return np.where(self.present, 0, -1)

    @property
    def present(self) -> np.ndarray:
        """`(time,)`: which times have values."""
        return np.all([np.ones(len(self.moments), bool), *(field.present for field in self.inputs)], axis=0)

    @property
    def terms(self) -> list[Term]:
        return [term for field in self.inputs for term in field.terms]

    @property
    def window(self) -> int:
        return max((field.window for field in self.inputs), default=1)

    def read(self, start: int, stop: int, shape: tuple[int, ...], leads: np.ndarray | None = None) -> np.ndarray:
        """Times `start` to `stop` (and leads) as stored, float32; float64 inside."""
        values = [field.read(start, stop, shape, leads) for field in self.inputs]
        out = self.function(values, self.moments[start:stop], shape)
        missing = ~self.present[start:stop]
        if missing.any():
            out = np.array(out, np.float32)
            out[missing] = np.nan
        return np.asarray(out, np.float32)

    def part(self, start: int, stop: int) -> "Computed":
        """The field at times `start` to `stop` of the store alone."""
        inputs = [field.part(start, stop) for field in self.inputs]
        return dataclasses.replace(self, inputs=inputs, moments=self.moments[start:stop])


def with_fields(plan: Plan, fields: dict) -> Plan:
    """The plan with other fields, in the order of their names."""
    return dataclasses.replace(plan, fields=dict(sorted(fields.items())))
