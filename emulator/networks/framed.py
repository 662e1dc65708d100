"""A network on maps made one of a limited area: the domain and the frame around it are put together as one map.

In the frame the channels of the state hold that of the air outside at the start of the step, all others those of the nearest
cell of the domain; further channels hold the state outside at the end of the step, at its start what the state of the domain
has no channels for, and a mask of the frame, all 0 in the domain. What comes out is cut to the domain, so that cells of the
frame are seen and never predicted.
"""

import dataclasses
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulator.data.border import VERSION, Border, same_levels
from emulator.networks.signature import Channel, Signature
from emulator.planet.frame import Frame


@dataclasses.dataclass(frozen=True)
class FramedInputs:
    """What a framed network takes.

    Attributes:
      state: for every channel of the boundary at one time that of the input which is the same variable and level, newest
        time; -1 for none, and where the variable has another number of levels, or lies on others.
      inputs: channels of the domain's map. count: channels of the boundary at one time.
    """

    state: tuple[int, ...]
    inputs: int

    @classmethod
    def of(cls, signature: Signature, border: Border) -> "FramedInputs":
        """By what the channels are."""
        known = {(c.name, c.level): n for n, c in enumerate(signature.inputs) if c.role == "state" and not c.time}
        places: dict[str, list] = defaultdict(list)
        for (name, _), n in known.items():
            places[name].append(signature.inputs[n].at)

        def is_alike(name: str, count: int) -> bool:
            own = [] if None in places[name] else places[name]
            return len(places[name]) == max(1, count) and same_levels(border.at_of(name), own)

        alike = {name for name, count in zip(border.names, border.levels, strict=True) if is_alike(name, count)}
        found = [known.get((c.name, c.level), -1) if c.name in alike else -1 for c in boundary_channels(border)]
        return cls(tuple(found), len(signature.inputs))

    @property
    def count(self) -> int:
        return len(self.state)


def boundary_channels(border: Border) -> list[Channel]:
    """The channels of a boundary at one time."""
    found = []
    for name, levels in zip(border.names, border.levels, strict=True):
        at = border.at_of(name) or [None] * levels
        found += [Channel(name, "forcing", level, at[level]) for level in range(levels)] or [Channel(name, "forcing")]
    return found


def check_version(inputs: FramedInputs, border: Border, by_variable: bool) -> None:
    """Raises `ValueError` for a network of an older version that would be given other channels now.

    `by_variable`: whether it treats channels by variable.
    """
    if border.version >= VERSION or not (by_variable or -1 in inputs.state):
        return
    why = (
        "took the state outside for that of the domain"
        if by_variable
        else "was given other channels of driving variables which the state lacks, or has on other levels"
    )
    raise ValueError(
        f"Expected a boundary of version {VERSION}, got one of version {border.version}, which {why}; train anew"
    )


def widened(signature: Signature, border: Border) -> Signature:
    """What the channels of the network inside are: the domain's, the state outside at the end of the step, at its start what
    the state has no channels for, and the mask.

    The state outside has names of its own: a network that treats channels by variable is to take it for another one.
    """
    found, inputs = FramedInputs.of(signature, border).state, signature.inputs
    pairs = list(zip(boundary_channels(border), found, strict=True))
    end = [dataclasses.replace(c, name=f"{c.name}@boundary", at=inputs[n].at if n >= 0 else c.at) for c, n in pairs]
    start = [dataclasses.replace(c, name=f"{c.name}@boundary_start") for c, n in pairs if n < 0]
    more = *end, *start, Channel("frame", "mask")
    return dataclasses.replace(signature, inputs=(*signature.inputs, *more))


class Framed(nn.Module):
    """`(batch, inputs, *domain)` and a boundary `(batch, 2 * channel, point)` -> `(batch, outputs, *domain)`.

    Args:
      network: on the frame's whole map, with the channels of `widened`.
      frame: where domain and boundary lie in it. inputs: which channel is which.
    """

    def __init__(self, network: nn.Module, frame: Frame, inputs: FramedInputs):
        super().__init__()
        self.network, self.inputs = network, inputs
        self.rows, self.columns, self.shape = frame.rows, frame.columns, frame.whole.shape
        (top, bottom), (left, right) = (
            (part.start, size - part.stop) for part, size in zip((self.rows, self.columns), self.shape, strict=True)
        )
        self._around = left, right, top, bottom
        mask = torch.zeros(self.shape)
        mask.view(-1)[frame.index] = 1
        known = [n for n, channel in enumerate(inputs.state) if channel >= 0]
        others = [n for n, channel in enumerate(inputs.state) if channel < 0]
        for name, values in {
            "place": torch.as_tensor(frame.index),
            "mask": mask,
            "known": torch.tensor(known, dtype=torch.long),
            "others": torch.tensor(others, dtype=torch.long),
            "into": torch.tensor([inputs.state[n] for n in known], dtype=torch.long),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor, boundary: Tensor, noise: Tensor | None = None, **more: Tensor) -> Tensor:
        """`noise`: random fields on the domain's map, which those in the frame continue; `more` goes to the network."""
        start, end = boundary.to(x.dtype).split(self.inputs.count, 1)
        whole = self._wider(x)
        flat = whole.flatten(2)
        at = self.into[:, None], self.place[None]
        flat[:, at[0], at[1]] = start[:, self.known]
        outside = x.new_zeros(len(x), self.inputs.count + len(self.others), flat.shape[2])
        outside[:, :, self.place] = torch.cat([end, start[:, self.others]], 1)
        mask = self.mask.to(x.dtype).expand(len(x), 1, *self.shape)
        together = torch.cat([whole, outside.view(len(x), -1, *self.shape), mask], 1)
        if noise is not None:
            more["noise"] = self._wider(noise)
        return self.network(together, **more)[..., self.rows, self.columns]

    def _wider(self, x: Tensor) -> Tensor:
        """The nearest cell's values beyond the domain's sides; a copy."""
        return F.pad(x, self._around, mode="replicate") if any(self._around) else x.clone()
