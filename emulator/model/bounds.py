"""Where states come to rest and what bounds them: the training data's envelope, physical limits, or nothing."""

import copy
import dataclasses
import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels
from emulator.data.normalisation import channel_statistics
from emulator.data.samples import Samples
from emulator.store.moments import Cells, Moments, std_about_mean
from emulator.store.schema import entry
from emulator.store.statistics import ENVELOPE

MARGIN = 0.5  # of variables for which none is given
KINDS = ("trained", "inputs", "none")  # of a rollout

log = logging.getLogger(__name__)


def released(step, kind: str):
    """The same `Step` with bounds of a rollout, one of `KINDS`; the one that is given keeps its own.

    With `inputs` the network alone is shown states within the envelope of its training data, cell by cell, and the states
    themselves are free. Beyond what it was trained on a network extrapolates its own response, and where that amplifies, a
    departure grows without end; shown the edge, it answers as it would there, which is to go back.

    Raises `ValueError` for another kind, and for `inputs` of a network that was trained without an envelope.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected bounds among {', '.join(KINDS)}, got {kind!r}")
    if kind == "trained":
        return step
    if not hasattr(step, "bounded_by"):
        raise ValueError(f"Expected a model from a checkpoint for bounds: {kind}, got {type(step).__name__}")
    free = copy.copy(step)
    free._buffers = dict(step._buffers)  # a shallow copy shares the table of buffers too
    free.lower, free.upper = (torch.full_like(step.lower, sign * torch.inf) for sign in (-1, 1))
    if kind == "inputs":
        if not (step.lower.isfinite().any() or step.upper.isfinite().any()):
            raise ValueError(
                "Expected a network that was trained within bounds for bounds: inputs, got one without any"
            )
        free.shown = step.lower, step.upper
    free.bounded_by = kind
    return free


def outside(step, state: Tensor) -> dict[str, float]:
    """The share of the values of each variable that lie beyond what bounds the states of a `Step`; none where nothing does.

    `state`: `(batch, channel, *space)`. Where a field does not exist nothing counts.
    """
    lower, upper = (getattr(step, name, None) for name in ("lower", "upper"))
    if lower is None or not (lower.isfinite().any() or upper.isfinite().any()):
        return {}
    beyond, exists = (state < lower) | (state > upper), getattr(step, "exists", None)
    counted = torch.ones_like(beyond) if exists is None else (exists > 0).expand_as(beyond)
    parts = step.layout.prognostic.slices.items()
    shares = {n: float((beyond & counted)[:, part].sum() / counted[:, part].sum().clamp(min=1)) for n, part in parts}
    return {name: share for name, share in shares.items() if share}


class Envelope(NamedTuple):
    """What the training data's states are, cell by cell; 0 where a cell never has a value.

    Attributes:
      mean: over time, float64; lowest, highest: state, float32; each `(channel, *space)`.
      spread: standard deviation about the cells' own means, in the root mean square over the area, `(channel,)`, float64.
    """

    mean: Tensor
    spread: Tensor
    lowest: Tensor
    highest: Tensor


def envelope(samples: Samples, statistics: xr.Dataset) -> Envelope:
    """The envelope in the statistics, or where they hold none (written by an older version) that of the samples.

    The latter reads every state. Of the times that are there, not of missing slots; they need no weighting by season: a
    period of whole years is the user's choice. Raises `ValueError` for statistics of another grid, and for a period in
    which every state is missing.
    """
    channels = samples.layout.prognostic
    lacking = [name for name in channels.names if f"{name}:{ENVELOPE[0]}" not in statistics]
    if lacking:
        log.info("The statistics hold no envelope: it is found now, which reads all states; run stats anew to store it")
        return _of_samples(samples)
    own = [str(min(samples.times)), str(max(samples.times))]
    theirs = [statistics.attrs.get(f"period_{end}") for end in ("start", "end")]
    if own != theirs:
        log.info("The envelope is of the statistics' period, %s to %s, not the training's, %s to %s", *theirs, *own)
    mean, lowest, highest = (_stacked(statistics, channels, label, samples.grid.shape) for label in ENVELOPE)
    spread = channel_statistics(statistics, channels, "std_about_time_mean")
    return Envelope(mean.double(), spread.nan_to_num(), lowest, highest)


def _stacked(statistics: xr.Dataset, channels: Channels, label: str, space: tuple[int, ...]) -> Tensor:
    fields = [torch.zeros(0, *space)]
    for name, width in zip(channels.names, channels.widths, strict=True):
        values = np.asarray(statistics[f"{name}:{label}"].values, np.float32)
        if values.size != width * np.prod(space) or values.shape[-len(space) :] != tuple(space):
            raise ValueError(
                f"Expected the {label} of {name} on {width} levels of a grid of {space} in the statistics, got "
                f"{values.shape}: they are of another store"
            )
        fields.append(torch.from_numpy(values.reshape(width, *space)))
    return torch.cat(fields).nan_to_num()


def _of_samples(samples: Samples) -> Envelope:
    present = np.flatnonzero(~samples.missing)
    if not len(present):
        raise ValueError(
            f"Expected a state to train on from {samples.times[0]} to {samples.times[-1]}, all are missing"
        )
    cells = Cells((samples.layout.prognostic.count, *samples.shape))
    for index in present:
        cells.add(samples.state(int(index)).numpy().astype(np.float64))
    found = _whole(cells.moments(), samples)
    spread = torch.from_numpy(std_about_mean(found, samples.grid.area)).nan_to_num()
    fields = (torch.from_numpy(found.or_nan(each)).nan_to_num() for each in (found.mean, found.minimum, found.maximum))
    mean, lowest, highest = fields
    return Envelope(mean, spread, lowest.float(), highest.float())


def _whole(own: Moments, samples: Samples) -> Moments:
    """The moments of all cells, of which each process of a space has found those of its rows."""
    rows = samples.grid.shape[0]
    fields = (torch.from_numpy(np.ascontiguousarray(part)) for part in dataclasses.astuple(own))
    return Moments(*(samples.space.whole(field, rows).numpy() for field in fields))


def bounds(kind: str, margin: float | Mapping[str, float], found: Envelope, samples: Samples) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of every state, `(channel, *space)` float32, infinite where there is none.

    Args:
      kind: `envelope`, widened by the share `margin` of its range (by variable; `MARGIN` of those not named); `physical`:
        the minimum and maximum of the variable; `none`.

    Raises `ValueError` for a margin of what is no prognostic variable, and for a kind that is none of these.
    """
    channels = samples.layout.prognostic
    if kind != "envelope" and margin != MARGIN:
        log.warning("margin %s widens the envelope and has no effect with bounds: %s", margin, kind)
    if kind == "envelope":
        share = _by_channel(channels, margin).view(-1, *[1] * (found.lowest.dim() - 1))
        widened = share * (found.highest - found.lowest)
        return found.lowest - widened, found.highest + widened
    if kind not in ("physical", "none"):
        raise ValueError(f"Expected bounds among envelope, physical and none, got {kind!r}")
    lower, upper = (torch.full_like(found.lowest, sign * torch.inf) for sign in (-1, 1))
    if kind == "physical":
        for name, where in channels.slices.items():
            variable = entry(samples.dataset, name)
            lower[where] = -torch.inf if variable.minimum is None else variable.minimum
            upper[where] = torch.inf if variable.maximum is None else variable.maximum
    return lower, upper


def _by_channel(channels: Channels, margin: float | Mapping[str, float]) -> Tensor:
    if not isinstance(margin, Mapping):
        return torch.full((channels.count,), float(margin))
    if unknown := sorted(set(margin) - set(channels.names)):
        raise ValueError(f"Expected margins of prognostic variables {list(channels.names)}, got {unknown}")
    shares = torch.zeros(channels.count)
    for name, where in channels.slices.items():
        shares[where] = margin.get(name, MARGIN)
    return shares
