"""What of a sample's initial state is hidden from the network: patches of cells, and whole variables.

Hidden is missing (NaN), as it is in a state that lacks values; `emulator.model.gaps` says what a step makes of it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from emulator.data.batch import Batch
from emulator.data.samples import Samples
from emulator.training.options.phases import MaskOptions

PURPOSE = 9  # the last number of the seeds, which tells what is drawn


def masked(batch: Batch, options: MaskOptions, samples: Samples, keys: Sequence[tuple[int, ...]]) -> Batch:
    """A batch whose windows start from states of which a part is hidden, in all input times the same.

    With `options.lead` 0 they start from what they end with, so that the network is to find the state that it sees a part of.

    Args:
      batch: of single forecasts, on this process's rows. samples: that it is of.
      keys: of every sample, `(seed, update, place in the whole batch)`, of which the masks are a function.
    """
    history, channels = batch.history, samples.layout.prognostic
    start, ends = batch.state[:, :history], batch.state[:, history:]
    if not options.lead:
        start = batch.state[:, 1:]
    whole = [hidden(options, samples.grid.shape, len(channels.names), key) for key in keys]
    every = torch.from_numpy(np.stack(whole).repeat(channels.widths, axis=1))  # (batch, channel, *space)
    own = samples.space.cut(every).unsqueeze(1)
    return dataclasses.replace(batch, state=torch.cat([start.masked_fill(own, torch.nan), ends], 1)).pinned()


def hidden(options: MaskOptions, space: tuple[int, ...], variables: int, key: tuple[int, ...]) -> np.ndarray:
    """What is hidden of one sample, `(variable, *space)` bool: a function of the options, the shapes and the key.

    As in Prithvi WxC (Schmude et al. 2024): patches of `options.patch` cells along each side lie in windows of
    `options.window` patches; hidden are a share of the patches of every window, or a share of the windows. What the borders
    cut off of patches and windows counts as whole ones. A share that is no whole number is one as often as to be right on
    average.
    """
    rng = np.random.default_rng([*key, PURPOSE])
    windows = options.kind == "windows" or (options.kind == "mixed" and rng.random() < 0.5)
    side = options.patch * (options.window if windows else 1)
    counts = [-(-n // side) for n in space]
    share = options.share if options.share_to is None else rng.uniform(options.share, options.share_to)
    chosen = _some(share, counts, 10**9 if windows else options.window, rng)
    for axis in range(len(space)):
        chosen = chosen.repeat(side, axis=axis)
    cells = chosen[tuple(slice(n) for n in space)]
    gone = rng.random(variables) < options.variables
    gone[rng.integers(variables)] &= not gone.all()
    return cells | gone.reshape(-1, *[1] * len(space))


def _some(share: float, counts: Sequence[int], side: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the places of an array of some shape in each of the windows of a side that it falls into, bool."""
    sides = [min(side, n) for n in counts]
    windows = [-(-n // s) for n, s in zip(counts, sides, strict=True)]
    drawn = np.full([w * s for w, s in zip(windows, sides, strict=True)], np.inf)
    inside = tuple(slice(n) for n in counts)
    drawn[inside] = rng.random(counts)
    split = drawn.reshape([n for pair in zip(windows, sides, strict=True) for n in pair])
    order = [*range(0, split.ndim, 2), *range(1, split.ndim, 2)]
    rows = split.transpose(order).reshape(int(np.prod(windows)), -1)  # (window, place in it), the drawn places first
    most = np.floor(share * np.isfinite(rows).sum(1) + rng.random(len(rows)))
    taken = rows.argsort(1).argsort(1) < most[:, None]
    whole = taken.reshape([*windows, *sides]).transpose(np.argsort(order)).reshape(drawn.shape)
    return whole[inside]
