"""Along which axes of a network's weights the channels of its input and output lie, so that weights can follow them.

Found by comparing the network with ones that have a channel more: an axis that grows by one has the channels as its last
entries. A network that lays them out otherwise says so in an attribute:
`channel_axes = {"head.weight": (ChannelAxis(...),)}`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from emulator.networks import registry
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid

Shapes = Mapping[str, tuple[int, ...]]
Index = list[int]  # for every entry of an axis where it comes from, -1 from nowhere
SHARED, UNITLESS = None, -1  # positions of what has no channel's units: kept as it is, or without units of its own


class Entry(NamedTuple):
    """What an entry of an axis stands for.

    Attributes:
      channel: what it is known by. position: of the channel whose units it has, `SHARED` where several share it, `UNITLESS`
        where other layers see to units.
    """

    channel: Channel
    position: int | None


Entries = Callable[[Sequence[Channel]], list[Entry]]


@dataclasses.dataclass(frozen=True)
class ChannelAxis:
    """An axis of a weight along which channels lie: some entries ahead of them, then blocks of all channels.

    Attributes:
      of: the channels, those of the input or of the output. axis: its number.
      ahead: entries before the channels'. each: entries of a channel side by side, as the cells of a patch.
      blocks: times that all channels follow one another; where they lie is not known if it is 0.
      hidden: whether entries are no channels', but as many, and keep their order.
      fresh: whether new ones are as in a fresh network, not zero: what the next layer has zero weights for.
      entries: of channels, where they are other ones.
      needed: whether the checkpoint's network has to have the weight too, as without it the function is another one.
    """

    of: Literal["inputs", "outputs"]
    axis: int
    ahead: int = 0
    each: int = 1
    blocks: int = 1
    hidden: bool = False
    fresh: bool = False
    entries: Entries | None = None
    needed: bool = False

    def of_channels(self, channels: Sequence[Channel]) -> list[Entry]:
        """What lies along the axis, but for what is ahead, `each` and `blocks`."""
        return self.entries(channels) if self.entries else [Entry(channel, n) for n, channel in enumerate(channels)]

    def size(self, channels: int) -> int:
        """Entries of the axis for so many channels."""
        return self.ahead + max(1, self.blocks) * channels * self.each

    def index(self, origin: Index, before: int) -> Index:
        """The entries' origins, from the channels' `origin` among those that there were `before`."""
        found = list(range(self.ahead))
        for block in range(max(1, self.blocks)):
            start = self.ahead + block * before * self.each
            found += [start + n * self.each + k if n >= 0 else -1 for n in origin for k in range(self.each)]
        return found

    def spread(self, values: Tensor, channels: Sequence[Channel]) -> Tensor:
        """A number for every entry of the axis from one for every channel, NaN for those that have no channel's units."""
        places = [
            math.nan if (n := entry.position) in (SHARED, UNITLESS) else float(values[n])
            for entry in self.of_channels(channels)
        ]
        ahead, own = values.new_full((self.ahead,), torch.nan), values.new_tensor(places)
        return torch.cat([ahead, own.repeat_interleave(self.each).repeat(max(1, self.blocks))])


Axes = dict[str, list[ChannelAxis]]


def axes_of(network: nn.Module, config: Mapping[str, Any], signature: Signature, grid: Grid) -> Axes:
    """The axes of a network's weights that run over channels, by the weights' names.

    Args:
      network: made of `config` for the `signature` on the `grid`.
    """
    declared = {name: list(axes) for name, axes in getattr(network, "channel_axes", {}).items()}
    return _found(config, signature, grid) | declared


def _found(config: Mapping[str, Any], signature: Signature, grid: Grid) -> Axes:
    inputs, outputs = signature.inputs, signature.outputs
    shapes = _shapes(config, signature, grid)
    more = {
        "inputs": (
            _shapes(config, dataclasses.replace(signature, inputs=(*inputs, _probe("static"))), grid),
            len(inputs),
        ),
        "outputs": (
            _shapes(config, dataclasses.replace(signature, outputs=(*outputs, _probe("diagnostic"))), grid),
            len(outputs),
        ),
    }
    found: Axes = {}
    for of, (larger, count) in more.items():
        for name, axis, grown in _growth(shapes, larger):
            ahead = shapes[name][axis] - grown * count
            blocks = 1 if grown == 1 and ahead >= 0 else 0
            found.setdefault(name, []).append(ChannelAxis(of, axis, max(0, ahead), grown, blocks))
    if registry.NETWORKS[config["kind"]].signature and not _one_by_one(config, signature, grid, shapes, found):
        return {name: [dataclasses.replace(axis, blocks=0) for axis in axes] for name, axes in found.items()}
    return found


def _one_by_one(config, signature: Signature, grid: Grid, shapes: Shapes, found: Axes) -> bool:
    """Whether a variable more in the state changes a network that knows its channels as so many channels more would."""
    states = [n for n, channel in enumerate(signature.inputs) if channel.role == "state"]
    inputs, times = list(signature.inputs), signature.times
    for time in reversed(range(times)):
        inputs.insert(states[0] + (times - time) * len(states) // times, _probe("state", -time))
    outputs = [*signature.outputs]
    outputs.insert(len(states) // times, _probe("state"))
    larger = _shapes(config, dataclasses.replace(signature, inputs=tuple(inputs), outputs=tuple(outputs)), grid)
    grown = {(name, axis): count for name, axis, count in _growth(shapes, larger)}
    expected = {(name, one.axis): times if one.of == "inputs" else 1 for name, axes in found.items() for one in axes}
    return larger.keys() == shapes.keys() and grown == expected


def _probe(role, time: int = 0) -> Channel:
    return Channel("probe", role, time=time)


def _growth(shapes: Shapes, larger: Shapes) -> Iterable[tuple[str, int, int]]:
    for name, shape in shapes.items():
        if name in larger and len(larger[name]) == len(shape):
            for axis, (before, after) in enumerate(zip(shape, larger[name], strict=True)):
                if after != before:
                    yield name, axis, after - before


def _shapes(config, signature: Signature, grid: Grid) -> Shapes:
    """Of the parameters of a network that is made for this alone."""
    with torch.random.fork_rng(devices=[]):
        made = registry.build(config, len(signature.inputs), len(signature.outputs), grid, signature=signature)
    return {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
