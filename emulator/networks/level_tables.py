"""Which channels lie on which level: for networks that treat the levels of their variables alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from emulator.networks.channel_axes import SHARED, Entry
from emulator.networks.signature import Channel

ATMOSPHERE = 1000.0  # hPa that levels of which nobody knows where they lie are spread over
Ages = list[list[int]]  # positions of a variable's channels by age (0: the newest) and level, -1 where there is none


class LevelTables(NamedTuple):
    """Positions of channels.

    Attributes:
      values: where the levels lie, hPa or m, increasing. surface, levelled: variables without and with levels.
    """

    values: list[float]
    surface: dict[str, Ages]
    levelled: dict[str, Ages]


def level_tables(channels: Sequence[Channel | None], values: Sequence[float] | None = None) -> LevelTables:
    """Tables of channels, None for those to be left out. `values`: levels that there are besides."""
    known = [(n, channel) for n, channel in enumerate(channels) if channel is not None]
    place = dict(zip((n for n, _ in known), places([channel for _, channel in known]), strict=True))
    values = sorted({value for value in place.values() if value is not None} | set(values or ()))
    made = LevelTables(values, {}, {})
    for n, channel in known:
        group, levels = (made.surface, 1) if place[n] is None else (made.levelled, len(values))
        ages = group.setdefault(channel.name, [])
        while len(ages) <= -channel.time:
            ages.append([-1] * levels)
        ages[-channel.time][0 if place[n] is None else values.index(place[n])] = n
    return made


def places(channels: Sequence[Channel]) -> list[float | None]:
    """Where the level of every channel lies: hPa or m; None for fields without levels."""
    count: dict[str, int] = {}
    for channel in channels:
        if channel.level is not None:
            count[channel.name] = max(count.get(channel.name, 0), channel.level + 1)

    def place(channel):
        if channel.level is None or channel.at is not None:
            return channel.at
        return (channel.level + 0.5) / count[channel.name] * ATMOSPHERE

    return [place(channel) for channel in channels]


def columns_of(tables: LevelTables) -> tuple[list[Entry], list[Entry]]:
    """What the columns of `ByLevel` are: variables with levels, whose units several channels share, and those without."""

    def columns(group, level):
        ages = [(name, age, at) for name, table in group.items() for age, at in enumerate(table)]
        return [
            Entry(Channel(name, "state", level, time=-age), at[0] if level is None else SHARED)
            for name, age, at in ages
        ]

    return columns(tables.levelled, 0), columns(tables.surface, None)


def output_order(tables: LevelTables, count: int) -> torch.Tensor:
    """Where each of `count` outputs is among fields without levels, and then variables by levels, `(count,)`."""
    order = np.empty(count, int)
    order[[ages[0][0] for ages in tables.surface.values()]] = np.arange(len(tables.surface))
    if tables.levelled:
        table = np.array([ages[0] for ages in tables.levelled.values()]).ravel()
        order[table[table >= 0]] = len(tables.surface) + np.flatnonzero(table >= 0)
    return torch.from_numpy(order)


class ByLevel(nn.Module):
    """Channels in the order of levels, and of variables and ages on each; zero where a variable has none.

    Attributes:
      shape: levels and columns, of which each is an age of a variable.
    """

    def __init__(self, group: Mapping[str, Ages]):
        super().__init__()
        table = np.array([levels for ages in group.values() for levels in ages]).T
        self.shape = table.shape
        self.register_buffer("index", torch.from_numpy(table.clip(0).ravel()), persistent=False)
        self.register_buffer("there", None if table.min() >= 0 else torch.from_numpy(table >= 0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, *space)` -> `(batch, level, column, *space)`."""
        x = x.index_select(1, self.index).unflatten(1, self.shape)
        if self.there is None:
            return x
        return x * self.there.view(*self.shape, *[1] * (x.ndim - 3)).to(x.dtype)
