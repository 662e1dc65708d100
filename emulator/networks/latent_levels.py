"""From fields on any levels to tokens on a few latent ones, and back, by Perceivers (Aurora; Bodnar et al. 2025).

Tokens lie on latent levels and patches; the first level is the surface's, of all fields without levels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from emulator.networks.fourier import expand, harmonics, wavelengths
from emulator.networks.layers import MLP
from emulator.networks.level_tables import level_tables, output_order
from emulator.networks.patches import PatchEmbedding, PatchHeads
from emulator.networks.perceiver import Perceiver
from emulator.networks.signature import Channel
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid

YEAR = 365.25 * 24  # hours
# Wavelengths, the shortest and the longest, as the paper has them, but for the root of a patch's area in place of the area.
ANGLES, LEVELS, LEADS, SIZES = (0.01, 720.0), (0.01, 1e5), (1 / 60, 504.0), (1.0, 4e4)  # degrees, hPa or m, hours, km


class Encoder(nn.Module):
    """Fields to latent levels, told of place, time and length of the step.

    Args:
      channels: the inputs, None for those that are no fields. codes: of the patches, as `patch_codes` gives them.
      patch: cells of a patch in either direction. width: of the tokens. latents: levels, the surface among them.
      perceiver: heads, layers and `mlp_ratio`. timed: whether the time of the year is known.
    Raises `ValueError` for inputs that all have levels.

    Attributes:
      latents: levels, 1 where no input has levels.
    """

    by_variable = ("time",)

    def __init__(
        self,
        channels: Sequence[Channel | None],
        codes: tuple[torch.Tensor, torch.Tensor],
        patch: int,
        width: int,
        latents: int,
        perceiver: tuple[int, int, float],
        timed: bool,
    ):
        super().__init__()
        heads, depth, mlp_ratio = perceiver
        values, surface, levelled = level_tables(channels)
        if not surface:
            raise ValueError("Expected inputs without levels among others, got none")
        self.latents = latents if values else 1
        self.surface = PatchEmbedding(surface, patch, width)
        self.surface_code = nn.Parameter(torch.empty(width))
        self.surface_mlp, self.surface_norm = MLP((width, int(width * mlp_ratio), width)), nn.LayerNorm(width)
        if values:
            self.levelled = PatchEmbedding(levelled, patch, width)
            self.level = nn.Linear(width, width)
            self.latent_codes = nn.Parameter(torch.empty(latents - 1, width))
            self.perceiver = Perceiver(width, heads, depth, mlp_ratio)
            nn.init.trunc_normal_(self.latent_codes, std=0.02)
            code = expand(torch.tensor(values, device="cpu"), wavelengths(*LEVELS, width // 2, "cpu"))
            self.register_buffer("level_codes", code.float(), persistent=False)
        nn.init.trunc_normal_(self.surface_code, std=0.02)
        self.place, self.size, self.lead = (nn.Linear(width, width) for _ in range(3))
        self.time = nn.Linear(width, width) if timed else None
        for name, code in zip(("place_codes", "size_codes"), codes, strict=True):
            self.register_buffer(name, code.float(), persistent=False)

    def forward(
        self, x: torch.Tensor, lead: torch.Tensor, time: torch.Tensor | None = None, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fields of whole patches to tokens.

        Args:
          x: `(batch, channel, row, column)`. lead, time: codes of the step's length and of the time of the year,
            `(batch, width)`. present: `(batch, channel)` of bool, which inputs there are; None: all.
        Returns `(batch, latent level * patch, width)`.
        """
        x = x if present is None else torch.where(present[..., None, None], x, 0)
        y = self.surface(x) + self.surface_code
        y = y + self.surface_norm(self.surface_mlp(y))
        if self.latents > 1:
            y = torch.cat([y, self._read(x, present)], 2)
        y = y + (self.place(self.place_codes) + self.size(self.size_codes))[:, None]
        about = self.lead(lead) if self.time is None else self.lead(lead) + self.time(time)
        return (y + about[:, None, None]).transpose(1, 2).flatten(1, 2)

    def _read(self, x, present):
        """What the latent levels read at every patch, `(batch, patch, latent level, width)`."""
        y = self.levelled(x) + self.level(self.level_codes)
        if present is not None:
            there = self.levelled.levels_of(present)
            there = there | ~there.any(1, keepdim=True)  # of no level at all the empty ones are read
            present = there.expand(len(x), -1).repeat_interleave(y.shape[1], 0)
        read = self.perceiver(self.latent_codes[None], y.flatten(0, 1), present)
        return read.unflatten(0, y.shape[:2])


class Decoder(nn.Module):
    """Latent levels to fields on any levels.

    Args:
      channels: the outputs. patch: cells of a patch in either direction. width: of the tokens. latents: levels of the tokens.
      perceiver: heads, layers and `mlp_ratio`.
    """

    def __init__(
        self, channels: Sequence[Channel], patch: int, width: int, latents: int, perceiver: tuple[int, int, float]
    ):
        super().__init__()
        heads, depth, mlp_ratio = perceiver
        values, surface, levelled = tables = level_tables(channels)
        self.latents, self.surface, self.levelled = latents, None, None
        if surface:
            self.surface = PatchHeads(list(surface), width, patch)
        if levelled:
            self.level = nn.Linear(width, width)
            self.perceiver = Perceiver(width, heads, depth, mlp_ratio)
            self.levelled = PatchHeads(list(levelled), width, patch)
            code = expand(torch.tensor(values, device="cpu"), wavelengths(*LEVELS, width // 2, "cpu"))
            self.register_buffer("level_codes", code.float(), persistent=False)
        self.register_buffer("order", output_order(tables, len(channels)), persistent=False)

    def forward(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        """`(batch, latent level * patch, width)` -> `(batch, channel, row, column)`; `columns`: patches in a row."""
        x = x.unflatten(1, (self.latents, -1)).transpose(1, 2)
        fields = [] if self.surface is None else [self.surface(x[:, :, :1], columns)]
        if self.levelled is not None:
            context = x[:, :, 1:] if self.latents > 1 else x
            read = self.perceiver(self.level(self.level_codes)[None], context.flatten(0, 1))
            fields.append(self.levelled(read.unflatten(0, x.shape[:2]), columns))
        return torch.cat(fields, 1).index_select(1, self.order)

    def last_weights(self) -> list[nn.Parameter]:
        """The weights of all heads."""
        heads = [part for part in (self.surface, self.levelled) if part is not None]
        return [weight for part in heads for weight in part.weights.values()]


def patch_codes(
    grid: Grid, patch: int, more: tuple[tuple[int, int], tuple[int, int]], width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Expansions of the place and of the size of every patch, `(patch, width)` float64 each.

    Args:
      more: rows that fill up the first and the last patches, those beyond the poles or the border of a region again, and
        columns likewise.

    Longitudes are expanded in harmonics of the circle. A patch's size is the root of its area in km.
    """
    latitude, longitude, area = _patched(grid, patch, more)
    size = np.sqrt(4 * np.pi * area) * ERA5.earth_radius / 1e3
    north = expand(torch.from_numpy(latitude), wavelengths(*ANGLES, width // 4, "cpu"))
    east = expand(torch.from_numpy(longitude), harmonics(ANGLES[0], 360.0, width // 4, "cpu"))
    shape = (*area.shape, width // 2)
    sizes = expand(torch.from_numpy(size.ravel()), wavelengths(*SIZES, width // 2, "cpu"))
    return torch.cat([north.expand(shape), east.expand(shape)], -1).flatten(0, 1), sizes


def _patched(grid: Grid, patch: int, more) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latitude and longitude in the middle of every patch, and its share of the sphere, `(row, column)` or so broadcast."""

    def cells(values):
        """`(row, cell, column, cell)` of patches."""
        return values.reshape(values.shape[0] // patch, patch, values.shape[1] // patch, patch)

    if grid.has_rows:
        mode = "edge" if not grid.is_global() else "reflect" if grid.has_poles else "symmetric"
        rows, columns = (np.pad(np.arange(size), n, mode=mode) for size, n in zip(grid.shape, more, strict=True))
        latitude, longitude = grid.latitude[rows].reshape(-1, patch).mean(1), grid.longitude[columns]
        longitude = longitude.reshape(-1, patch).mean(1) % 360
        return latitude[:, None], longitude[None], cells(grid.cell_area[np.ix_(rows, columns)]).sum((1, 3))
    north, east = (np.radians(np.pad(angle, more, mode="edge")) for angle in grid.mesh())
    directions = np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)
    x, y, z = (cells(part).sum((1, 3)) for part in directions)  # longitudes may jump at Greenwich within a row
    latitude, longitude = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x)) % 360
    return latitude, longitude, cells(np.pad(grid.cell_area, more, mode="edge")).sum((1, 3))
