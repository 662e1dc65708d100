"""The network of a learned analysis: an increment from a background and from what is observed, on the grid.

After FengWu-Adas (Chen et al. 2023): gated convolutions over values times confidence, and gated attention of the background
to the observations, on grids halved several times. Raw values of a system are set against the background in a latent space,
as in FuXi-DA (Xu et al. 2025), which knows no observation operator.

Whatever is observed passes through products without an offset, and the background only opens and shuts gates and asks: where
nothing is observed within reach the increment is exactly zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulator.assimilation.learned.options import AnalysisNetworkOptions
from emulator.networks.edges import edges_of, padded
from emulator.networks.halos import Level, expect_halvings, levels
from emulator.networks.map_layers import Pointwise, SphereConv
from emulator.parallel.space import ALONE
from emulator.planet.grid import Grid

SMALL = 1e-6  # added to confidences that are divided by or whose logarithm is taken


class Gated(nn.Module):
    """`conv(x) * sigmoid(gate(x, context))`, without an offset in the convolution (Yu et al. 2019, eq. 2)."""

    def __init__(self, inputs: int, outputs: int, context: int, place: Level):
        super().__init__()
        self.value = SphereConv(inputs, outputs, place.around(), bias=False)
        self.gate = Pointwise(inputs + context, outputs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`(batch, inputs, row, column)` and `(batch, context, row, column)` -> `(batch, outputs, row, column)`."""
        return self.value(x) * self.gate(torch.cat([x, context], 1)).sigmoid()


class CrossAttention(nn.Module):
    """What is observed around each cell, as the background there asks for it.

    Queries are of the background, keys and values of what is observed in the `(2 reach + 1)^2` cells around, so that it is
    the same at every longitude; weights are the softmax of products plus the logarithm of the confidence and a number of
    each offset. What comes of it is gated by both sides and added.
    """

    def __init__(self, width: int, heads: int, reach: int, place: Level):
        super().__init__()
        self.heads, self.reach, self.edges = heads, reach, place.edges
        self.query = Pointwise(width, width)
        self.key_value = Pointwise(width, 2 * width, bias=False)
        self.gate = Pointwise(2 * width, width)
        self.offset = nn.Parameter(torch.zeros(heads, (2 * reach + 1) ** 2))

    def forward(self, x: Tensor, confidence: Tensor, context: Tensor) -> Tensor:
        """Observed `(batch, width, row, column)`, its largest confidence `(batch, 1, row, column)`, and the background."""
        query = self.query(context).flatten(2).unflatten(1, (self.heads, -1))  # (batch, head, part, cell)
        around = padded(torch.cat([self.key_value(x), confidence], 1), self.reach, self.edges)
        cells = F.unfold(around, 2 * self.reach + 1).unflatten(1, (around.shape[1], -1))  # (batch, part, near, cell)
        key, value = (each.unflatten(1, (self.heads, -1)) for each in cells[:, :-1].chunk(2, 1))
        logits = torch.einsum("bhdc,bhdnc->bhnc", query, key) * query.shape[2] ** -0.5
        logits = logits + (cells[:, -1:] + SMALL).log() + self.offset[:, :, None]
        found = torch.einsum("bhnc,bhdnc->bhdc", logits.softmax(2), value).flatten(1, 2).view_as(x)
        return x + self.gate(torch.cat([context, found], 1)).sigmoid() * found


class Background(nn.Module):
    """What gates and queries see on a grid: the background, its finer features, and where something is observed."""

    def __init__(self, inputs: int, width: int, place: Level):
        super().__init__()
        self.layers = nn.Sequential(
            SphereConv(inputs, width, place.around()), nn.GELU(), SphereConv(width, width, place.around()), nn.GELU()
        )

    def forward(self, *parts: Tensor) -> Tensor:
        return self.layers(torch.cat(parts, 1))


class AnalysisNetwork(nn.Module):
    """Increments of a state's channels, all in units of their scale.

    Args:
      channels: of the state. fixed: of fields that do not change. raw: of raw values, 0 without.
      grid: of the states; a list of cells is refused. options: size.
    Raises `ValueError` for a grid whose neighbours do not lie side by side, or that cannot be halved so often.
    """

    def __init__(self, channels: int, fixed: int, raw: int, grid: Grid, options: AnalysisNetworkOptions):
        super().__init__()
        if grid.is_points:
            raise ValueError(f"Expected a grid of rows and columns for a learned analysis, got {grid.describe()}")
        edges, width, depth = edges_of(grid), options.width, options.depth
        expect_halvings(edges, *grid.shape, depth)
        self.halvings, places = levels(edges, ALONE, grid.shape[0], depth)
        widths, latent = [width * 2**n for n in range(depth + 1)], width if raw else 0
        given, confidences = channels + latent, channels + bool(raw)
        self.latent = latent
        if raw:
            self.raw = Pointwise(2 * raw, latent, bias=False)
            self.column = nn.Sequential(Pointwise(channels + fixed, latent), nn.GELU(), Pointwise(latent, latent))
        before = [0, *widths[:-1]]
        self.background = nn.ModuleList(
            Background((b or channels + fixed) + confidences, w, place)
            for b, w, place in zip(before, widths, places, strict=True)
        )
        self.down = nn.ModuleList(
            Gated(given + confidences + b, w, w, place) for b, w, place in zip(before, widths, places, strict=True)
        )
        reach = min(options.reach, -(-min(grid.shape) // 2**depth) - 1)
        self.ask = CrossAttention(widths[-1], options.heads, reach, places[-1])
        self.narrow = nn.ModuleList(Pointwise(2 * w, w, bias=False) for w in widths[:-1])
        self.up = nn.ModuleList(Gated(2 * w, w, w, place) for w, place in zip(widths[:-1], places[:-1], strict=True))
        self.head = Pointwise(width, channels, bias=False)
        nn.init.zeros_(self.head.weight)
        self.own = nn.Parameter(torch.ones(channels, 1, 1))  # at the start every cell has its own observations alone

    def forward(self, background: Tensor, value: Tensor, confidence: Tensor, raw: Tensor, raw_confidence: Tensor):
        """The increment `(batch, channel, row, column)`.

        Args:
          background: normalised, with the fixed fields, `(batch, channel + fixed, row, column)`.
          value, confidence: departures in units of the scale, and 0 to 1, `(batch, channel, row, column)`.
          raw, raw_confidence: normalised values, and 0 to 1, `(batch, raw, row, column)`.
        Values count times their confidence, so that those of confidence 0 may be any number.
        """
        value = value * confidence
        given, sure = [value], [confidence]
        if self.latent:
            there = raw_confidence.amax(1, keepdim=True)
            seen = self.raw(torch.cat([raw * raw_confidence, raw_confidence], 1))
            given, sure = [*given, seen - there * self.column(background)], [*sure, there]
        observed, confidence = torch.cat(given, 1), torch.cat(sure, 1)
        # channels last in memory, for products of single cells and stencils alike
        observed, confidence, context = map(_channels_last, (observed, confidence, background))
        x, kept = None, []
        for n, (see, gated) in enumerate(zip(self.background, self.down, strict=True)):
            if n:
                halve = self.halvings[n - 1]
                observed, confidence = self._coarser(halve, observed, confidence)
                context, x = halve(context), halve(x)
            context = see(context, confidence)
            x = gated(torch.cat([observed, confidence, *([] if x is None else [x])], 1), context)
            kept.append((x, context))
        x = self.ask(x, confidence.amax(1, keepdim=True), context)
        for n in reversed(range(len(self.halvings))):
            across, context = kept[n]
            x = self.narrow[n](self.halvings[n].back(x, *across.shape[2:]))
            x = across + self.up[n](torch.cat([across, x], 1), context)
        return self.head(x) + self.own * value

    def _coarser(self, halve: nn.Module, observed: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the cells that are observed, times the confidence of four cells together, at most 1."""
        mean = halve(confidence)
        sure = (4 * mean).clamp(max=1)

        def of_each(confidences: Tensor) -> Tensor:
            """Of every channel that is observed: the last one is that of all channels of the latent space."""
            if not self.latent:
                return confidences
            return torch.cat([confidences[:, :-1], confidences[:, -1:].expand(-1, self.latent, -1, -1)], 1)

        return halve(observed) / (of_each(mean) + SMALL) * of_each(sure), sure


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
