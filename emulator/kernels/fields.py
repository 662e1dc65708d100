"""What a step does to whole maps before and after its network, in one pass each."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from emulator.kernels import library

SEGMENTS = 4


def _numbered(names: str) -> str:
    return " ".join(f"{name}_{n}" for name in names.split() for n in range(SEGMENTS))


_Normalise = library.task(
    "normalise", f"{_numbered('start mean std')} to", _numbered("gaps"), f"{_numbered('channels step')} batch all cells"
)
_Finish = library.task(
    "finish",
    "predicted state resting lower upper damping change mean std following diagnostic",
    "",
    "batch prognostic diagnosed cells state_step",
)


class Part(NamedTuple):
    """Maps `(batch, channel, *space)`: normalised if they have moments, by channel, and with 0 for NaN if they have gaps."""

    maps: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    gaps: bool = False


def normalised(parts: list[Part]) -> Tensor:
    """All parts behind one another, `(batch, channels, *space)`; `SEGMENTS` at most, the maps of a sample in one piece."""
    batch, space = len(parts[0].maps), parts[0].maps.shape[2:]
    channels = sum(part.maps.shape[1] for part in parts)
    to = torch.empty(batch, channels, *space)
    values = {"to": to.data_ptr(), "batch": batch, "all": channels, "cells": space.numel()}
    for n, (maps, mean, std, gaps) in enumerate(parts):
        values |= {f"start_{n}": maps.data_ptr(), f"channels_{n}": maps.shape[1], f"step_{n}": maps.stride(0)}
        values[f"gaps_{n}"] = gaps
        if mean is not None:
            values |= {f"mean_{n}": mean.data_ptr(), f"std_{n}": std.data_ptr()}
    library.call("emulator_normalise", _Normalise(**values))
    return to


def finished(predicted, state, bounds, scales, moments) -> tuple[Tensor, Tensor]:
    """Fields at the end of a step, within bounds, and diagnostics, from normalised changes and diagnostics.

    Args:
      predicted: `(batch, prognostic + diagnostic, *space)`; state: at the start, `(batch, prognostic, *space)`.
      bounds: resting fields, lower and upper bounds, `(prognostic, *space)` each.
      scales: damping and change of `emulator.model.predictions.Known`, by prognostic channel.
      moments: mean and standard deviation of the diagnostics, `(diagnostic,)`.
    """
    batch, prognostic, *space = state.shape
    diagnosed = predicted.shape[1] - prognostic
    following, diagnostic = torch.empty(batch, prognostic, *space), torch.empty(batch, diagnosed, *space)
    tensors = (predicted, state, *bounds, *scales, *moments, following, diagnostic)
    sizes = {"batch": batch, "prognostic": prognostic, "diagnosed": diagnosed, "cells": math.prod(space)}
    task = _Finish(*(tensor.data_ptr() for tensor in tensors), **sizes, state_step=state.stride(0))
    library.call("emulator_finish", task)
    return following, diagnostic
