"""Aurora's network (Bodnar et al. 2025, Nature 641; arXiv 2405.13063): any variables and levels to latent levels, and back.

Patches of every variable have weights of their own. A Perceiver reads levels into a few latent ones, beside a surface level
of all fields without levels; a U-Net of 3-D Swin blocks works on these; another Perceiver is asked for the output's levels.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

from emulator.networks.conditions import NoiseOptions, noise_count, scalar_count
from emulator.networks.edges import edges_of
from emulator.networks.fourier import expand, harmonics, wavelengths
from emulator.networks.latent_levels import LEADS, YEAR, Decoder, Encoder, patch_codes
from emulator.networks.map_layers import Patches
from emulator.networks.map_network import GridNetwork
from emulator.networks.registry import network
from emulator.networks.signature import Signature
from emulator.networks.swin3d import AdaptiveNorm, Stages, SwinDesign, Tokens, make_stages, run_stages
from emulator.options import Options, option
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid

UNKNOWN = 6.0  # hours of a step of which nobody knows the length
DAY_OF_YEAR = ("sin_day_of_year", "cos_day_of_year")


@dataclasses.dataclass(frozen=True)
class AuroraOptions(Options):
    """Aurora's network: patches of any variables, Perceivers over levels, a 3-D Swin U-Net between them."""

    patch: int = option(2, "cells of a patch, in latitude and in longitude; the paper has 4 at 0.25 degrees", minimum=1)
    embed_dim: int = option(48, "channels of a token in the first stage; they double from stage to stage", minimum=4)
    depths: tuple[int, ...] = option((2, 2, 2), "blocks of the stages on the way down", minimum=1, shortest=2)
    up_depths: tuple[int, ...] = option(
        (2, 2, 2), "blocks on the way up, from the coarsest stage", minimum=1, shortest=2
    )
    heads: tuple[int, ...] = option((3, 6, 12), "attention heads of the stages, from the finest", minimum=1, shortest=2)
    window: tuple[int, ...] = option((2, 6, 12), "tokens of a window: levels, rows, columns", minimum=1, shortest=3)
    latent_levels: int = option(4, "levels inside, the surface among them", minimum=2)
    perceiver_depth: int = option(1, "layers of the Perceivers", minimum=1)
    perceiver_heads: int = option(4, "attention heads of the Perceivers", minimum=1)
    mlp_ratio: float = option(4.0, "hidden width of a perceptron over its width", above=0)
    decoder_mlp_ratio: float = option(2.0, "the same in the decoder's Perceiver", above=0)
    drop_path: float = option(0.0, "probability that the last block of either way is left out", minimum=0, below=1)
    noise: NoiseOptions | None = option(None, "random fields that scale and shift what enters a stage")
    condition: tuple[str, ...] = option((), "scalars that the norms are conditioned on, besides the length of the step")
    checkpointing: bool = option(False, "compute blocks again in the backward pass instead of storing them")
    zero_output: bool = option(False, "the last layers start at zero")

    def __post_init__(self):
        super().__post_init__()
        if len(self.window) != 3:
            raise ValueError(f"Expected levels, rows and columns as window, got {self.window}")
        if self.embed_dim % 4 or self.embed_dim % self.perceiver_heads:
            heads = self.perceiver_heads
            raise ValueError(f"Expected an embed_dim in a multiple of 4 and of {heads} heads, got {self.embed_dim}")


@network("aurora", AuroraOptions, regions=("box", "projected"), bands=True, signature=True)
def build(
    options: AuroraOptions, inputs: int, outputs: int, grid: Grid, space: Space, signature: Signature
) -> "Aurora":
    return Aurora(signature, grid, options, space)


class Aurora(GridNetwork):
    """Aurora's network on a global latitude-longitude grid, a box of one, or a map.

    Args:
      signature: what the channels are. Those with levels share tokens of their level, all others those of the surface, but
        for the length of the step and the day of the year, which are encoded by themselves.
      grid: rows that patches do not divide are filled up by what lies beyond the poles; of a region rows and columns by its
        border again.
      options: size and design. space: processes that hold a state together, each a band of rows.
    Raises `ValueError` for longitudes around the globe that patches do not divide, a grid of too few patches, heads that do
    not divide their width, and inputs that all have levels.

    No parameter depends on the grid, on the levels or on their number, and those of a variable have its name.
    """

    def __init__(self, signature: Signature, grid: Grid, options: AuroraOptions | None = None, space: Space = ALONE):
        edges = edges_of(grid)  # refuses grids without rows
        options, (nlat, nlon) = options or AuroraOptions(), grid.shape
        band, width, patch = space.band(nlat), options.embed_dim, options.patch
        super().__init__(len(signature.inputs), len(signature.outputs), (band.stop - band.start, nlon), options)
        self.whole = Patches(grid.shape, patch, edges, turn=False, space=space)
        patches = Tokens.of((1, *(count // patch for count in self.whole.padded)), space)
        self.hours, self.length, self.clock = signature.hours or UNKNOWN, *_times(signature)
        own = {self.length, *(self.clock or ())}
        fields = [None if n in own else channel for n, channel in enumerate(signature.inputs)]
        self.columns, own = patches.shape[2], slice(*(patches.shape[2] * n for n in patches.bounds[space.rank :][:2]))
        codes = [code[own] for code in patch_codes(grid, patch, (self.whole.rows, self.whole.columns), width)]
        reader = options.perceiver_heads, options.perceiver_depth
        latents = options.latent_levels
        self.encoder = Encoder(
            fields, codes, patch, width, latents, (*reader, options.mlp_ratio), self.clock is not None
        )
        latents = self.encoder.latents
        self.lead = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        noise, scalars = noise_count(options.noise), scalar_count(options.condition)
        design = SwinDesign(options.window, width, options.mlp_ratio, noise, options.checkpointing)
        depths = options.depths, options.up_depths
        stages = make_stages(
            width, (latents, *patches.shape[1:]), depths, options.heads, design, options.drop_path, space, edges
        )
        self.down, self.merge, self.split, self.up = stages
        self.decoder = Decoder(signature.outputs, patch, 2 * width, latents, (*reader, options.decoder_mlp_ratio))
        self._initialise()
        self.condition = nn.Linear(scalars, width, bias=False) if scalars else None
        if scalars:  # made last, so that all others start as they would without
            nn.init.zeros_(self.condition.weight)

    def _initialise(self):
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, AdaptiveNorm):
                nn.init.zeros_(module.modulation.weight)
        for weight in self.decoder.last_weights() if self.options.zero_output else []:
            nn.init.zeros_(weight)

    def forward(
        self,
        x: torch.Tensor,
        condition: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(batch, in_channels, nlat, nlon)` -> `(batch, out_channels, nlat, nlon)`.

        Args:
          condition: `(batch, scalar)`, noise: `(batch, field, nlat, nlon)`, where the options ask for them.
          present: `(batch, in_channels)` of bool, which inputs there are; fields that are not, whatever they hold, are left
            out as if the network had been made without them. None: all.
        Raises `ValueError` for other shapes.
        """
        self._check(x, condition, noise)
        if present is not None and tuple(present.shape) != (len(x), self.in_channels):
            raise ValueError(
                f"Expected inputs that are present of shape {(len(x), self.in_channels)}, got {tuple(present.shape)}"
            )
        lead, time = self._lead(x), self._time(x)
        context = self.lead(lead)
        if condition is not None:
            context = context + self.condition(condition.to(lead.dtype))
        y = self._run(self.encoder, self.whole(x), lead, time, present)
        if noise is not None:
            noise = F.avg_pool2d(self.whole(noise), self.options.patch).flatten(2).transpose(1, 2)
            noise = noise.repeat(1, self.encoder.latents, 1)
        stages = Stages(self.down, self.merge, self.split, self.up)
        y = run_stages(stages, y, context, noise)
        return self.whole.off(self._run(self.decoder, y, self.columns)).to(x.dtype).contiguous()

    def _lead(self, x):
        """Expansion of the step's length in hours, `(batch, width)`."""
        hours = x.new_full((len(x),), self.hours)
        if self.length is not None:
            hours = hours * torch.exp2(x[:, self.length, 0, 0])
        return expand(hours, wavelengths(*LEADS, self.options.embed_dim // 2, x.device)).to(x.dtype)

    def _time(self, x):
        """Expansion of the hours since the year began, in harmonics of the year, `(batch, width)`; None where unknown."""
        if self.clock is None:
            return None
        sine, cosine = (x[:, n, 0, 0].double() for n in self.clock)
        hours = torch.atan2(sine, cosine) * (YEAR / (2 * math.pi))
        return expand(hours, harmonics(1.0, YEAR, self.options.embed_dim // 2, x.device)).to(x.dtype)


def _times(signature: Signature) -> tuple[int | None, tuple[int, int] | None]:
    """Positions of the step's length, and of sine and cosine of the day of the year, among the inputs."""
    found = {(channel.role, channel.name): n for n, channel in enumerate(signature.inputs)}
    clock = [found.get(("clock", name)) for name in DAY_OF_YEAR]
    return next(iter(signature.of("length")), None), None if None in clock else tuple(clock)
