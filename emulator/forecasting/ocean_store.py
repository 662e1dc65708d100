"""The store of an ocean's network beside that of the atmosphere: written with it, lead by lead of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.forecasting.blocks import Block
from emulator.forecasting.ocean_network import OceanFields
from emulator.forecasting.schedule import Schedule
from emulator.store.forecast import create_forecast, whole_inits, write_forecast_init
from emulator.store.marks import mark


@dataclasses.dataclass(frozen=True, eq=False)
class OceanStore:
    """Forecasts of an ocean's network on their way to its store.

    Attributes:
      fields: what they are of. leads: all of them, timedelta64 `(lead,)`, the initial time first.
    """

    fields: OceanFields
    leads: np.ndarray

    @classmethod
    def of(cls, fields: OceanFields | None, schedule: Schedule) -> "OceanStore | None":
        """For forecasts that are written at some steps of the atmosphere; None for an ocean that is no network."""
        last = schedule.ends[-1] if schedule.ends else 0
        return fields and cls(fields, fields.forcing.step.leads(range(last // fields.every + 1)))

    @property
    def path(self) -> Path:
        return self.fields.path

    def create(self, template: xr.Dataset, times: Sequence, attributes: Mapping) -> set[int]:
        """Makes or goes on with the store; the numbers of the initial times that are whole in it."""
        saved, forcing = self.fields.model.metadata, self.fields.model.layout.forcing.names
        scheme = saved["config"]["conservation"].get("kind", "sequential") if saved["scheme"] else "none"
        kept = ("constants", "source", "history", "vertical_coordinate")
        found = {n: v for n, v in self.fields.dataset.attrs.items() if n in kept}
        found |= {n: attributes[n] for n in ("title", "ensemble", "ocean", "fingerprint") if n in attributes}
        found |= {"time_step_seconds": self.fields.forcing.step_seconds, "checkpoint": saved["sha256"]}
        found |= {"conservation": scheme, "training_period": " to ".join(saved["period"])}
        found["prescribed"] = ", ".join(name for name in forcing if name not in self.fields.exchanged)
        create_forecast(self.path, template, times, self.leads, found)
        return whole_inits(self.path)

    def begin(self, number: int) -> int:
        """The place among the leads of the first after step `number` of the atmosphere."""
        return number // self.fields.every + 1

    def write(self, block: Block | None, group: Sequence[int], at: int, last: bool, named) -> None:
        """Some leads of a group of initial times from place `at` on; marked as whole with the `last`.

        `named`: makes a dataset of the fields of one initial time and their leads.
        """
        fields = {} if block is None else block.fields()
        for row, index in enumerate(group):
            if block is not None:
                part = {name: field[row] for name, field in fields.items()}
                leads = self.leads[at : at + block.leads]
                write_forecast_init(self.path, named(part, leads), index, False)
            if last:
                mark(self.path, f"init-{index:06d}")
