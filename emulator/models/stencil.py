"""Convolution with the neighbours in latitude and longitude, of states whose cells lie in the order of a transform."""

import math

import torch
from torch import nn

from emulator.models.layers import Linear, gelu
from emulator.models.padding import pad_sphere
from emulator.spherical import SphericalTransform


class StencilMLP(nn.Module):
    """`emulator.models.layers.MLP` of two layers, the first of which takes in a cell's neighbours too.

    The convolution costs `size^2` times what a layer on single cells does. It is the same stencil of cells everywhere, so it
    covers less ground towards the poles and commutes with rotations about the axis alone.

    Args:
      transform: whose grid and order of cells the states have.
      widths: channels in, between the layers and out.
      size: cells of the stencil in either direction, odd.
      precision: of the products.
    Raises `ValueError` for an even size or one that reaches beyond the grid.
    """

    def __init__(
        self, transform: SphericalTransform, widths: tuple[int, int, int], size: int, precision: str = "float32"
    ):
        super().__init__()
        margin = size // 2
        if size % 2 == 0 or size < 3 or margin >= transform.nlat - transform.poles or size > transform.nlon:
            raise ValueError(
                f"Expected a stencil of an odd number of cells from 3 on within {transform.shape}, got {size}"
            )
        self.transform, self.precision = transform, precision
        self.convolution = nn.Conv2d(widths[0], widths[1], size)
        nn.init.normal_(self.convolution.weight, std=math.sqrt(2 / (widths[0] * size**2)))
        nn.init.zeros_(self.convolution.bias)
        self.last = Linear(widths[1], widths[2], bias=False, precision=precision)
        self._padded = transform.nlat + 2 * margin, transform.nlon + 2 * margin
        indices, self._groups = _indices(transform, margin)
        for name, index in indices.items():
            self.register_buffer(name, index, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(cell, batch, channel)` -> the same."""
        image = _Pad.apply(x, self.source, self.home, self.beyond, self.target, self._groups)
        image = image.unflatten(1, self._padded).permute(0, 3, 1, 2)
        dtype = image.dtype if self.precision == "float32" else torch.bfloat16
        weight, bias = self.convolution.weight.to(dtype), self.convolution.bias.to(dtype)
        y = nn.functional.conv2d(image.to(dtype), weight, bias).permute(0, 2, 3, 1).contiguous()
        return self.transform.arrange(self.last(gelu(y)).permute(1, 2, 0, 3))


def _indices(transform, margin):
    """Which cell every place of the padded image takes, where each cell has its own place, and the places beyond the map.

    Those come in groups in which no cell occurs twice, with the groups' sizes: sums over a group do not depend on the order.
    """
    cells = transform.nlat * transform.nlon
    order = transform.restore(torch.arange(cells, dtype=torch.float64)[:, None])[..., 0]  # exact to 2^53
    source = pad_sphere(order, margin, transform.poles).long()
    places = torch.arange(source.numel()).view(source.shape)
    inside = places[margin : margin + transform.nlat, margin : margin + transform.nlon].flatten()
    source = source.flatten()
    home = torch.empty(cells, dtype=torch.long)
    home[source[inside]] = inside
    groups, left = [], sorted(set(range(len(source))) - set(inside.tolist()))
    while left:
        seen, later = {}, []
        for place in left:
            cell = int(source[place])
            if cell in seen:
                later.append(place)
            else:
                seen[cell] = place
        groups.append(list(seen.values()))
        left = later
    beyond = torch.tensor([place for group in groups for place in group], dtype=torch.long)
    return {"source": source, "home": home, "beyond": beyond, "target": source[beyond]}, [
        len(group) for group in groups
    ]


class _Pad(torch.autograd.Function):
    """`(cell, batch, channel)` -> `(batch, place, channel)`, with the neighbours beyond the edges of the map."""

    @staticmethod
    def forward(ctx, x, source, home, beyond, target, groups):
        ctx.save_for_backward(home, beyond, target)
        ctx.groups = groups
        return x.transpose(0, 1).index_select(1, source)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        home, *outside = ctx.saved_tensors
        gradient = gradient.transpose(0, 1)
        result = gradient.index_select(0, home)
        for beyond, target in zip(*(index.split(ctx.groups) for index in outside), strict=True):
            result.index_add_(0, target, gradient.index_select(0, beyond))
        return result, None, None, None, None, None
