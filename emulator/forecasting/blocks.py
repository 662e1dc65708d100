"""Blocks of consecutive leads on their way from the device to a store, and the named fields that are made of them."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from emulator.data.channels import Channels, Layout
from emulator.forecasting.leads import Lead
from emulator.parallel.host_copies import HostCopies, Landing


@dataclasses.dataclass(frozen=True)
class Entry:
    """One lead of all rows, on its way to the host.

    Attributes:
      landing: of the state and the diagnostics, `(row, channel, *space)` each, and where there are records, of these,
        `(record, row)` float32; then of other fields, `(row, *space)` each.
      records: their names. beside: names of the other fields.
    """

    landing: Landing
    records: tuple[str, ...]
    beside: tuple[str, ...] = ()

    @classmethod
    def begin(cls, lead: Lead, copies: HostCopies) -> "Entry":
        """Begins the copies, with all records in one."""
        numbers = [torch.stack([value.float() for value in lead.record.values()])] if lead.record else []
        tensors = [lead.state, lead.diagnostic, *numbers, *lead.beside.values()]
        return cls(copies.begin(tensors), tuple(lead.record), tuple(lead.beside))


@dataclasses.dataclass(frozen=True)
class Naming:
    """How rows become fields.

    Attributes:
      layout: names of the channels. outside: by variable where it does not exist, `(level or 1, *space)`, or None.
      times, members: what the rows are, time-major; None for forecasts without an axis of members.
    """

    layout: Layout
    outside: Mapping[str, np.ndarray | None]
    times: int
    members: int | None


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive leads.

    Attributes:
      records: names of the records that its fields have, 0 where an entry has none.
      ocean: leads of another network's forecast that lie within these; None where there is no such network.
    """

    entries: list[Entry]
    naming: Naming
    records: tuple[str, ...]
    ocean: "Block | None" = None

    @property
    def leads(self) -> int:
        return len(self.entries)

    def fields(self) -> dict[str, np.ndarray]:
        """Fields and records `(time, lead, [member,] ..., *space)` by name; waits until the copies have arrived.

        Missing (NaN) where a field does not exist. Whatever thread asks, torch's own threads are left to the forecast.
        """
        arrived = [[tensor.numpy() for tensor in entry.landing.arrive()] for entry in self.entries]
        layout, out = self.naming.layout, {}
        for channels, part in ((layout.prognostic, 0), (layout.diagnostic, 1)):
            out |= self._named(channels, [lead[part] for lead in arrived])
        rows = len(arrived[0][0])
        for name in self.records:
            values = np.zeros((rows, len(arrived)), np.float32)
            for number, (entry, lead) in enumerate(zip(self.entries, arrived, strict=True)):
                if name in entry.records:
                    values[:, number] = lead[2][entry.records.index(name)]
            out[name] = self._shaped(values)
        names = self.entries[0].beside
        for at, name in enumerate(names, -len(names)):
            out[name] = self._shaped(np.stack([lead[at] for lead in arrived], axis=1))
        return out

    def _named(self, channels: Channels, leads: list[np.ndarray]) -> dict[str, np.ndarray]:
        fields = {}
        for (name, where), count in zip(channels.slices.items(), channels.levels, strict=True):
            field = np.stack([lead[:, where if count else where.start] for lead in leads], axis=1)
            if (outside := self.naming.outside[name]) is not None:
                np.copyto(field, np.float32(np.nan), where=outside.reshape(field.shape[2:]))
            fields[name] = self._shaped(field)
        return fields

    def _shaped(self, field: np.ndarray) -> np.ndarray:
        """`(time and member, lead, ...)` -> `(time, lead, [member,] ...)`."""
        if self.naming.members is None:
            return field
        return np.moveaxis(field.reshape(self.naming.times, self.naming.members, *field.shape[1:]), 1, 2)
