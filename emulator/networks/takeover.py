"""Weights of a network as the start of another of its kind, with other channels, another grid or another truncation.

Channels are matched by name, level and time. A new input has zero weights and a new output is zero, so that at the start the
network's function is the old one's. Weights by degree are cut, or go on with those of the last degree; fields of cells are
interpolated. All else has to have the same shape.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from emulator.networks.channel_axes import Axes, Index
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
    """
    places: dict[tuple, list[int]] = {}
    for number, channel in enumerate(old):
        places.setdefault((channel.name, channel.time), []).append(number)
    counts: dict[tuple, int] = {}
    for channel in new:
        counts[channel.name, channel.time] = counts.get((channel.name, channel.time), 0) + 1

    def origin(channel: Channel) -> int:
        known = places.get((channel.name, channel.time), [])
        same_number = len(known) == counts[channel.name, channel.time]
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
    origins = {
        "inputs": matched(new.signature.inputs, old.signature.inputs),
        "outputs": matched(new.signature.outputs, old.signature.outputs),
    }
    counts = {"inputs": len(old.signature.inputs), "outputs": len(old.signature.outputs)}
    moved = {of for of, origin in origins.items() if origin != list(range(counts[of]))}
    along = axes() if moved else {}
    degrees, fields = declared(network, "by_degree"), declared(network, "cell_fields")
    rows, own = [], dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in own.items():
            if name not in old.tensors:
                rows.append(Row(name, tuple(parameter.shape), "new", "as a fresh network has it"))
                continue
            value, how = old.tensors[name], []
            if name in fields and not old.grid.same_as(new.grid):
                value, told = _interpolated(name, value, old.grid, new.grid)
                how.append(told)
            for one in along.get(name, ()):
                if one.of in moved:
                    value, told = _moved(name, value, one, origins[one.of], counts[one.of])
                    how.append(told)
            if name in degrees:
                value, told = _by_degree(value, len(parameter))
                how += [told] if told else []
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


def declared(network: nn.Module, attribute: str) -> set[str]:
    """Whole names of the parameters that the classes of a network's modules name in an attribute."""
    found = set()
    for path, module in network.named_modules():
        found |= {f"{path}.{name}" if path else name for name in getattr(type(module), attribute, ())}
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
    return _picked(value, one.axis, one.index(origin, before)), f"{one.of}: {', '.join(said)}"


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


def rescale(network: nn.Module, axes: Axes, inputs: Affine, outputs: Affine) -> dict[str, str]:
    """Change the first and last layers so that the network's function stays the same in other units; what was done, by name.

    Exact for linear layers and for convolutions that continue fields beyond their edges. Where a layer has no bias the offset
    of its inputs or outputs is left out, and said so.
    """
    scale, own, said = {"inputs": inputs, "outputs": outputs}, dict(network.named_parameters()), {}
    told = {of: False for of in scale}  # the offset of an output is added once
    for name, found in axes.items():
        for one in found:
            if not one.blocks:
                said[name] = "kept, since it is not known where its channels lie"
                continue
            with torch.no_grad():
                said[name] = _rescaled(own, name, one, scale[one.of], told)
    return said


def _rescaled(own, name, one, scale: Affine, told) -> str:
    weight, bias = own[name], own.get(f"{name.rpartition('.')[0]}.bias")
    factor = torch.nan_to_num(one.spread(scale.factor), nan=1.0).to(weight.device)
    offset = torch.nan_to_num(one.spread(scale.offset), nan=0.0).to(weight.device)
    along = [-1 if axis == one.axis else 1 for axis in range(weight.ndim)]
    left_out = bool(offset.any())
    if one.of == "inputs" and left_out and bias is not None and one.axis == 1:
        product = (weight.double() * offset.view(along)).flatten(1).sum(1)
        bias.copy_(bias.double() + product)
        left_out = False
    weight.copy_(weight.double() * factor.view(along))
    if one.of == "outputs" and left_out and not told["outputs"] and weight is bias:
        bias.copy_(bias.double() + offset)
        told["outputs"] = True
    if one.of == "outputs":
        left_out = False  # a layer's bias has it, if there is one
    return f"rescaled to the new statistics{', but for the offset' * left_out}"
