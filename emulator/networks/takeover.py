"""Weights of a network as the start of another of its kind, with other channels, another grid or another truncation.

Channels are matched by name, level and time. A new input has zero weights and a new output is zero, so that at the start the
network's function is the old one's. Weights by degree are cut, or go on with those of the last degree; fields of cells are
interpolated. All else has to have the same shape.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from emulator.networks.channel_axes import SHARED, Axes, ChannelAxis, Index
from emulator.networks.remembered import learned
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid
from emulator.sphere.regrid import Regridder

LEVEL = 1e-3  # share by which the places of one level may differ in two stores


@dataclasses.dataclass(frozen=True)
class Known:
    """A network's weights by name, what its channels are, and its grid; or without weights what another is made for."""

    signature: Signature
    grid: Grid
    tensors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class Row(NamedTuple):
    """What happened to a tensor; `shape` is the one that it has now, or had where it was left."""

    name: str
    shape: tuple[int, ...]
    what: Literal["taken", "changed", "new", "left"]
    how: str = ""


class Affine(NamedTuple):
    """`factor` and `offset` for every channel, float64: of inputs from new to old units, of outputs from old to new."""

    factor: Tensor
    offset: Tensor


def matched(new: Sequence[Channel], old: Sequence[Channel]) -> Index:
    """For each of the new channels the number of the old one of its name, level and time; -1 where there is none.

    Levels are told by where they lie. Where one side does not know, by their numbers, if the variable has as many on both.
    What is diagnosed is another thing than a state or forcing of the same name: an output of it has other units.
    """

    def group(channel: Channel) -> tuple:
        return channel.name, channel.time, channel.role == "diagnostic"

    places: dict[tuple, list[int]] = {}
    for number, channel in enumerate(old):
        places.setdefault(group(channel), []).append(number)
    counts = collections.Counter(map(group, new))

    def origin(channel: Channel) -> int:
        known = places.get(group(channel), [])
        same_number = len(known) == counts[group(channel)]
        return next((n for n in known if _one_level(channel, old[n], same_number)), -1)

    return [origin(channel) for channel in new]


def _one_level(a: Channel, b: Channel, same_number: bool) -> bool:
    if a.at is None or b.at is None:
        return same_number and a.level == b.level
    return math.isclose(a.at, b.at, rel_tol=LEVEL, abs_tol=LEVEL)


def take_over(network: nn.Module, axes: Callable[[], Axes], new: Known, old: Known) -> list[Row]:
    """Put a network's weights into another of its kind, and say of every tensor what became of it.

    Args:
      network: freshly made for `new`. axes: gives those of its weights that run over channels, which takes a while, and is
        asked for where channels have changed. old: the weights, and what they were made for.
    Raises `ValueError` for weights that cannot be taken over, and names them.
    """
    channels = {of: (getattr(new.signature, of), getattr(old.signature, of)) for of in ("inputs", "outputs")}
    moved = {of for of, both in channels.items() if matched(*both) != list(range(len(both[1])))}
    along = {n: [one for one in found if one.of in moved] for n, found in axes().items()} if moved else {}
    moves = _Moves(channels, along, network)
    rows, own = [], learned(network)
    with torch.no_grad():
        for name, parameter in own.items():
            if name not in old.tensors:
                how = moves.begin(name, parameter)
                rows.append(Row(name, tuple(parameter.shape), "new", how))
                continue
            value, how = old.tensors[name], []
            if name in moves.fields and not old.grid.same_as(new.grid):
                value, told = _interpolated(name, value, old.grid, new.grid)
                how.append(told)
            value, told = moves.moved(name, value, parameter)
            how += told
            if value.shape != parameter.shape:
                raise ValueError(
                    f"Expected {name} of shape {tuple(parameter.shape)}, as this network has it, the checkpoint's is "
                    f"{tuple(value.shape)}; only channels, degrees and learned positions may differ"
                )
            parameter.copy_(value)
            rows.append(Row(name, tuple(parameter.shape), "changed" if how else "taken", ", ".join(how)))
    rows += [
        Row(name, tuple(t.shape), "left", "no such weight now") for name, t in old.tensors.items() if name not in own
    ]
    if not any(row.what in ("taken", "changed") for row in rows):
        raise ValueError("Expected weights of the network that is asked for in the checkpoint, got none")
    return rows


class _Moves:
    """How weights follow channels, degrees and ages.

    Args:
      channels: of the inputs and outputs, the new ones and the old. along: axes of those that have changed, by weight.
      network: the new one, whose modules say what their weights go by.
    """

    def __init__(
        self, channels: Mapping[str, tuple[Sequence[Channel], Sequence[Channel]]], along: Axes, network: nn.Module
    ):
        self._channels, self._along = channels, along
        self.fields = declared(network, "cell_fields")
        self._degrees, self._ages = declared(network, "by_degree"), declared(network, "by_age")
        self._variables = declared(network, "by_variable")

    def begin(self, name: str, parameter: Tensor) -> str:
        """Has a parameter that was not there before leave the function alone where it is of new channels; what was done."""
        axes = self._along.get(name, ())
        if any(one.needed for one in axes):
            raise ValueError(
                f"Expected {name} in the checkpoint, which this network has for its number of {axes[0].of}, got none"
            )
        of_new = any(one.entries and not one.fresh and max(self._origin(name, one)[0]) < 0 for one in axes)
        if not of_new and name not in self._variables:
            return "as a fresh network has it"
        parameter.zero_()
        return "zero, since the channels are new"

    def moved(self, name: str, value: Tensor, fresh: Tensor) -> tuple[Tensor, list[str]]:
        """An old value in the new network's layout, `fresh`'s, and what was done."""
        how = []
        for one in self._along.get(name, ()):
            origin, before = self._origin(name, one)
            if origin != list(range(before)):
                value, told = _moved(name, value, one, origin, before)
                how.append(told)
        for one in self._along.get(
            name, ()
        ):  # after all of them, as what is new along one axis is new along the others
            if one.fresh and value.shape == fresh.shape:
                origin, before = self._origin(name, one)
                index = torch.tensor(one.index(origin, before), device=value.device)
                value = torch.where((index < 0).view(-1, *[1] * (value.ndim - one.axis - 1)), fresh, value)
        if name in self._degrees:
            value, told = _by_degree(value, len(fresh))
            how += [told] if told else []
        if name in self._ages and value.shape[1] != fresh.shape[1]:
            before, now = value.shape[1], fresh.shape[1]
            value = _picked(value, 1, [n if n < before else -1 for n in range(now)])
            how.append(f"times: {before} to {now}")
        return value, how

    def _origin(self, name: str, one: ChannelAxis) -> tuple[Index, int]:
        """Where what lies along an axis comes from, and of how many."""
        new, old = (one.of_channels(channels) for channels in self._channels[one.of])
        if not one.hidden:
            return matched([entry.channel for entry in new], [entry.channel for entry in old]), len(old)
        if len(new) < len(old):
            raise ValueError(
                f"Expected no fewer {one.of} than the {len(old)} of the checkpoint, since {name} has hidden "
                f"channels by their number, and the function needs all of them; got {len(new)}"
            )
        return [n if n < len(old) else -1 for n in range(len(new))], len(old)


def declared(network: nn.Module, attribute: str) -> set[str]:
    """Whole names of the parameters and buffers that the classes of a network's modules name in an attribute.

    A part of a module stands for all its parameters.
    """
    found = set()
    for path, module in network.named_modules():
        for name in getattr(type(module), attribute, ()):
            part, whole = getattr(module, name, None), f"{path}.{name}" if path else name
            found |= {f"{whole}.{n}" for n, _ in part.named_parameters()} if isinstance(part, nn.Module) else {whole}
    return found


def _moved(name, value, one, origin: Index, before: int) -> tuple[Tensor, str]:
    if not one.blocks:
        raise ValueError(
            f"Expected the channels of the checkpoint in their order, since the network does not say where those of {name} "
            "lie (channel_axes)"
        )
    if one.axis >= value.ndim or value.shape[one.axis] != one.size(before):
        raise ValueError(
            f"Expected {name} with {one.size(before)} entries along axis {one.axis} for {before} {one.of}, the checkpoint's "
            f"shape is {tuple(value.shape)}"
        )
    kept = [n for n in origin if n >= 0]
    said = [f"{len(origin) - len(kept)} added"] * (len(kept) < len(origin))
    said += [f"{before - len(kept)} dropped"] * (len(kept) < before)
    said += ["reordered"] * (kept != sorted(kept))
    told = f"hidden, with the {one.of}" if one.hidden else one.of
    return _picked(value, one.axis, one.index(origin, before)), f"{told}: {', '.join(said)}"


def _picked(value: Tensor, axis: int, index: Index) -> Tensor:
    where = torch.tensor(index, device=value.device)
    picked = value.index_select(axis, where.clamp(min=0))
    return picked.masked_fill((where < 0).view(-1, *[1] * (value.ndim - axis - 1)), 0.0)


def _by_degree(value: Tensor, now: int) -> tuple[Tensor, str]:
    before = len(value)
    if before == now:
        return value, ""
    picked = _picked(value, 0, [min(degree, before - 1) for degree in range(now)])
    return picked, f"degrees: {before} to {now}, " + ("cut" if now < before else "those beyond as the last")


def _interpolated(name, value: Tensor, old: Grid, new: Grid) -> tuple[Tensor, str]:
    try:
        regridder = Regridder(old, new, "bilinear")
    except ValueError as error:
        raise ValueError(f"The learned field {name} cannot be taken to another grid: {error}") from error
    fields = regridder(value.permute(2, 0, 1).double().cpu().numpy())
    return torch.from_numpy(fields).to(value).permute(1, 2, 0), "interpolated to the new grid"


def rescale(network: nn.Module, axes: Axes, signature: Signature, inputs: Affine, outputs: Affine) -> dict[str, str]:
    """Change the first and last layers so that the network's function stays the same in other units; what was done, by name.

    Exact for linear layers and for convolutions that continue fields beyond their edges. Where a layer has no bias the offset
    of its inputs or outputs is left out, where a weight serves several channels its units are kept, and both are said.
    """
    scale, own, said = {"inputs": inputs, "outputs": outputs}, dict(network.named_parameters()), {}
    told = {of: False for of in scale}  # the offset of an output is added once
    for name, found in axes.items():
        for one in found:
            if one.hidden or name not in own:
                continue
            if not one.blocks:
                said[name] = "kept, since it is not known where its channels lie"
                continue
            with torch.no_grad():
                text = _rescaled(own, name, one, getattr(signature, one.of), scale[one.of], told)
            said |= {name: text} if text else {}
    return said | dict.fromkeys(declared(network, "by_variable"), "kept, since it serves all levels")


def _rescaled(own, name, one, channels, scale: Affine, told) -> str:
    module, places = name.rpartition(".")[0], [entry.position for entry in one.of_channels(channels)]
    weight, bias = own[name], own.get(f"{module}.bias", own.get(f"{module}.offset"))
    if one.of == "inputs" and weight is bias:
        return ""  # its scale's turn sees to it
    if all(place is SHARED for place in places):
        return "kept, since it serves several channels"
    values = [one.spread(each, channels) for each in scale]
    factor, offset = (torch.nan_to_num(v, nan=to).to(weight.device) for v, to in zip(values, (1.0, 0.0), strict=True))
    if values[0].isnan().all():
        return ""
    along = [-1 if axis == one.axis else 1 for axis in range(weight.ndim)]
    left_out = bool(offset.any())
    if one.of == "inputs" and left_out and bias is not None and one.axis == min(1, weight.ndim - 1):
        product = weight.double() * offset.view(along)
        bias.copy_(bias.double() + (product.flatten(1).sum(1) if weight.ndim > 1 else product))
        left_out = False
    weight.copy_(weight.double() * factor.view(along))
    if one.of == "outputs" and left_out and (one.entries or not told["outputs"]) and weight is bias:
        bias.copy_(bias.double() + offset)
        told["outputs"] = True
    if one.of == "outputs":
        left_out = False  # a layer's bias has it, if there is one
    kept = ", but for what serves several channels" * (SHARED in places)
    return f"rescaled to the new statistics{', but for the offset' * left_out}{kept}"
