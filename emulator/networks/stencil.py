"""Convolutions on the sphere with the neighbours in latitude and longitude: of maps, and of cells in a transform's order."""

import math

import numpy as np
import torch
from torch import nn

from emulator.kernels.perceptron import Neighbours
from emulator.kernels.stencil import Patches
from emulator.networks.dropout import Dropout
from emulator.networks.edges import pad_sphere
from emulator.networks.layers import Linear, gelu, halved, perceptron, serves
from emulator.parallel.space import Fetch
from emulator.sphere.tables import own_rows
from emulator.sphere.transform import SphericalTransform


class StencilMLP(nn.Module):
    """`emulator.networks.layers.MLP` of two layers, the first of which takes in a cell's neighbours too.

    The convolution costs `size^2` times what a layer on single cells does. It is the same stencil of cells everywhere, so it
    covers less ground towards the poles and commutes with rotations about the axis alone.

    Args:
      transform: whose grid and order of cells the states have; of a band's, other processes give the rows around it.
      widths: channels in, between the layers and out.
      size: cells of the stencil in either direction, odd.
      precision: of the products. dropout: probability of numbers to be left out after either layer.
    Raises `ValueError` for an even size or one that reaches beyond the grid.
    """

    def __init__(
        self,
        transform: SphericalTransform,
        widths: tuple[int, int, int],
        size: int,
        precision: str = "float32",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dropout = Dropout(dropout)  # after either layer
        margin = size // 2
        if size % 2 == 0 or size < 3 or margin >= transform.nlat - transform.poles or size > transform.nlon:
            raise ValueError(
                f"Expected a stencil of an odd number of cells from 3 on within {transform.shape}, got {size}"
            )
        self.transform, self.size, self.precision = transform, size, precision
        self.beyond = None if transform.space.size == 1 else RowsBeyond(transform, margin)
        self.convolution = nn.Conv2d(widths[0], widths[1], size)
        nn.init.normal_(self.convolution.weight, std=math.sqrt(2 / (widths[0] * size**2)))
        nn.init.zeros_(self.convolution.bias)
        self.last = Linear(widths[1], widths[2], bias=False, precision=precision)
        # The kernels have a stencil with a second layer alone; one that hands on what it gets changes no bit of it. It is a
        # tensor that stays, since what kernels make of a weight is kept by its address.
        same = torch.eye(widths[1]) if dropout else None
        self.register_buffer("_same", same, persistent=False)
        self._neighbours = None

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`(cell, batch, channel)` -> the same, added to a residual where there is one."""
        weight, bias = self.convolution.weight, self.convolution.bias
        half = halved(x, self.precision)
        rows = None if self.beyond is None else self.beyond(x)
        if serves(x, weight, half):
            if self._neighbours is None:  # found once, and only where the compiled kernels take them
                self._neighbours = neighbours(self.transform, self.size, self.beyond)
            x = x if rows is None else torch.cat([x, rows.flatten(0, 1)])
            how = {"neighbours": self._neighbours, "half": half}
            if not self.dropout.active:
                return perceptron(x, weight, bias, self.last.weight, residual=residual, **how)
            return self._ended(perceptron(x, weight, bias, self._same, **how), residual)
        image = _image(self.transform, x, self.size // 2, self.beyond, rows).permute(2, 3, 0, 1)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else image.dtype
        y = nn.functional.conv2d(image.to(dtype), weight.to(dtype), bias.to(dtype)).permute(2, 3, 0, 1)
        return self._ended(gelu(self.transform.arrange(y).contiguous()), residual)

    def _ended(self, y, residual):
        y = self.dropout(self.last(self.dropout(y)))
        return y if residual is None else residual + y


class RowsBeyond(nn.Module):
    """The `margin` rows on either side of a process's band, from the processes that have them; beyond a pole its own side's.

    Args:
      transform: of bands. margin: rows on either side.
    """

    def __init__(self, transform: SphericalTransform, margin: int):
        super().__init__()
        plan, bounds = transform.plan, transform.space.bounds(transform.nlat)
        self.shape, self.margin = transform.shape, margin
        numbers = torch.arange(plan.nlat)[:, None]
        around = pad_sphere(numbers, margin, transform.poles)[:, 0].numpy()  # the row that each row beyond is
        bands = [own_rows(plan._replace(rank=rank)) for rank in range(plan.size)]
        # rows are counted as they lie in their processes' cells
        place = np.concatenate([start + np.argsort(band) for start, band in zip(bounds, bands, strict=False)])

        def needed(rank):
            start, stop = bounds[rank : rank + 2]
            return place[np.concatenate([around[start : start + margin], around[stop + margin : stop + 2 * margin]])]

        self.fetch = Fetch(transform.space, bounds, needed)
        band = transform.band
        rows = np.concatenate([np.arange(band.start - margin, band.start), np.arange(band.stop, band.stop + margin)])
        past_pole = torch.from_numpy((rows < 0) | (rows >= plan.nlat))
        self.register_buffer("past_pole", past_pole[:, None, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(cell, batch, channel)` -> `(row, nlon, batch, channel)`: the northern rows, then the southern ones."""
        nlat, nlon = self.shape
        return self.fetch(x.view(nlon, nlat, *x.shape[1:]).transpose(0, 1))

    def around(self, field: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The band `(row, nlon, batch, channel)` with `rows` as `forward` gives them, and the margins in longitude."""
        rows = torch.where(self.past_pole, rows.roll(self.shape[1] // 2, 1), rows)
        field = torch.cat([rows[: self.margin], field, rows[self.margin :]])
        return torch.cat([field[:, -self.margin :], field, field[:, : self.margin]], 1)


def _image(transform, x, margin, beyond, rows):
    """Cells `(cell, batch, channel)` as a field `(nlat, nlon, batch, channel)` with margins on every side."""
    field = transform.restore(x)
    if beyond is None:
        return pad_sphere(field.permute(2, 3, 0, 1), margin, transform.poles).permute(2, 3, 0, 1)
    return beyond.around(field, rows)


def neighbours(transform: SphericalTransform, size: int, beyond: RowsBeyond | None = None) -> Neighbours:
    """Which cells a stencil takes in, tap by tap from the north-west, cells in the order of the transform.

    Beyond a pole a stencil takes in a cell again which it has on this side, so that some taps meet a cell twice. Cells of the
    rows `beyond` a band are counted behind its own.
    """
    nlat, nlon = transform.shape
    cells, margin = nlat * nlon, size // 2
    further = 0 if beyond is None else 2 * margin * nlon
    number = torch.arange(cells + further, dtype=torch.float64)[:, None, None]  # exact to 2^53
    order = transform.restore(number[:cells])[..., 0, 0].long()
    image = _image(transform, number[:cells], margin, beyond, number[cells:].view(-1, nlon, 1, 1))[..., 0, 0].long()
    source = torch.empty(size**2, cells, dtype=torch.long)
    for tap in range(size**2):
        row, column = divmod(tap, size)
        source[tap, order.flatten()] = image[row : row + nlat, column : column + nlon].flatten()
    pairs = [(row, torch.arange(cells)) for row in source]
    back, pairs = _takers(pairs, cells + further)
    more = []
    while any(len(taken) for taken, _ in pairs):
        again, pairs = _takers(pairs, cells + further)
        more += _grouped(again)
    return Neighbours(source.int(), back.int(), tuple(more), _patches(order, image) if size == 3 else None)


def _patches(order: torch.Tensor, image: torch.Tensor) -> Patches:
    """Two by two cells of a map `(nlat, nlon)`, and the four by four of it padded by one cell that these take in."""
    nlat, nlon = order.shape
    odd = (0, nlon % 2, 0, nlat % 2)
    order, image = (nn.functional.pad(cells, odd, value=-1) for cells in (order, image))
    rows, columns = order.shape

    def every_second(cells, size):
        corners = [(i, j) for i in range(size) for j in range(size)]
        parts = [cells[i : i + rows - 1 : 2, j : j + columns - 1 : 2].flatten() for i, j in corners]
        return torch.stack(parts).int().contiguous()

    return Patches(every_second(image, 4), every_second(order, 2))


def _takers(pairs, cells):
    """`(tap, cell)`: one who takes a cell in, -1 for nobody; and the pairs (cells, who takes them) that are left."""
    back, left = torch.full((len(pairs), cells), -1), []
    for row, (taken, by) in zip(back, pairs, strict=True):
        # Where a cell is taken in twice the last one counts, as numpy promises. By torch's threads it would be whichever came
        # last, and the order of a gradient's sums, and so its bits, would differ from run to run.
        row.numpy()[taken.numpy()] = by.numpy()
        rest = row[taken] != by
        left.append((taken[rest], by[rest]))
    return back, left


def _grouped(extra):
    """Taps that meet the same cells once more together: (taps, targets, sources `(tap, target)`)."""
    groups = {}
    for tap, row in enumerate(extra):
        targets = (row >= 0).nonzero()[:, 0]
        if len(targets):
            groups.setdefault(tuple(targets.tolist()), []).append((tap, row[targets]))
    return [
        (tuple(tap for tap, _ in members), torch.tensor(targets).int(), torch.stack([row for _, row in members]).int())
        for targets, members in groups.items()
    ]
