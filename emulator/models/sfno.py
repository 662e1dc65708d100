"""Spherical Fourier Neural Operator (Bonev et al. 2023), channels last inside.

Fields are `(latitude, longitude, batch, channel)` between the first and the last layer: 1x1 convolutions are plain
linear layers, and batch and channels together are the columns of the spherical transform's products.
"""

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from emulator.spherical import SphericalTransform, latitudes


@dataclasses.dataclass(frozen=True)
class SFNOOptions:
    """Size and design of the network; the defaults learn well on small grids.

    Attributes:
      embed_dim: channels of the hidden state. blocks: number of blocks. scale_factor: coarsening of the inner blocks.
      filter: per-degree channel mixing, "complex" (as published: equivariant about the polar axis), "real" (equivariant
        under every rotation, half the cost), "diagonal" (one complex number per degree and channel) or "low_rank"
        (`rank` shared channel directions, one complex number per degree and direction).
      spectral_layers: mixings per block, with a gate on each degree's power between them.
      mlp_ratio: hidden width of a block's MLP over embed_dim; 0 leaves the MLP out.
      encoder_layers: hidden layers of the encoder and decoder (0 as in torch-harmonics, 1 as in ACE).
      norm: "instance", "area_instance" (area-weighted moments), "layer" (over channels) or "none".
      pre_norm: normalise before the transform as well. activation: GELU between filter and MLP.
      inner_skip, outer_skip: "none", "identity" or "linear", around the filter and around the block.
      big_skip: "concat" (input joins the decoder), "add" (input is added to the output) or "none".
      position: "none", "harmonics" (real harmonics of low degree as inputs) or "learned".
      condition_dim: scalars per sample (lead, time of year, CO2, ...) that scale and shift every block's state.
      mlp_precision: "float32" or "bfloat16" for the linear layers; the transforms stay in float32.
      checkpointing: recompute each block in the backward pass. drop_path: probability at the last block, from 0 at the
        first. zero_output: start with an output of zero (before a skip of "add").
    """

    embed_dim: int = 64
    blocks: int = 4
    scale_factor: int = 1
    filter: Literal["complex", "real", "diagonal", "low_rank"] = "complex"
    rank: int = 16
    spectral_layers: int = 1
    mlp_ratio: float = 2.0
    encoder_layers: int = 1
    norm: Literal["instance", "area_instance", "layer", "none"] = "instance"
    pre_norm: bool = True
    activation: bool = True
    inner_skip: Literal["none", "identity", "linear"] = "linear"
    outer_skip: Literal["none", "identity", "linear"] = "identity"
    big_skip: Literal["concat", "add", "none"] = "concat"
    position: Literal["none", "harmonics", "learned"] = "none"
    condition_dim: int = 0
    mlp_precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    drop_path: float = 0.0
    zero_output: bool = False

    def __post_init__(self):
        for name, allowed in (
            ("filter", ("complex", "real", "diagonal", "low_rank")),
            ("norm", ("instance", "area_instance", "layer", "none")),
            ("inner_skip", ("none", "identity", "linear")),
            ("outer_skip", ("none", "identity", "linear")),
            ("big_skip", ("concat", "add", "none")),
            ("position", ("none", "harmonics", "learned")),
            ("mlp_precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Expected {name} among {allowed}, got {getattr(self, name)!r}")
        for name in ("embed_dim", "blocks", "scale_factor", "rank", "spectral_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1, got {getattr(self, name)}")


class Linear(nn.Linear):
    """1x1 convolution on channels-last fields, in the precision asked for."""

    def __init__(self, inputs, outputs, bias=True, gain=1.0, precision="float32"):
        super().__init__(inputs, outputs, bias=bias)
        self.precision = torch.bfloat16 if precision == "bfloat16" else None
        nn.init.normal_(self.weight, std=math.sqrt(gain / inputs))
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, x):
        if self.precision is None:
            return F.linear(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(self.precision)
        return F.linear(x.to(self.precision), self.weight.to(self.precision), bias)


class MLP(nn.Module):
    """Linear layers with GELU between them: `widths[0]` -> ... -> `widths[-1]` channels."""

    def __init__(self, widths, bias_last=True, gain=1.0, precision="float32"):
        super().__init__()
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        last = len(pairs) - 1
        self.layers = nn.ModuleList(
            Linear(i, o, n < last or bias_last, 2.0 if n < last else gain, precision) for n, (i, o) in enumerate(pairs)
        )

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)


class Norm(nn.Module):
    """Normalisation with a learned scale and shift per channel, and further ones from the condition."""

    def __init__(self, kind, channels, rows, condition_dim, eps=1e-6):
        super().__init__()
        self.kind, self.eps = kind, eps
        self.register_buffer("rows", rows, persistent=False)  # share of the sphere per cell, (lat, 1, 1, 1)
        if kind != "none":
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.film = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x, condition=None):
        if self.kind == "instance":
            variance, mean = torch.var_mean(x, (0, 1), correction=0)
            x = (x - mean) * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias
        elif self.kind == "area_instance":
            mean = (x * self.rows).sum((0, 1))
            x = x - mean
            variance = (x * x * self.rows).sum((0, 1))
            x = x * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias
        elif self.kind == "layer":
            x = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        if self.film is not None:
            scale, shift = self.film(condition).chunk(2, -1)
            x = x * (1 + scale) + shift
        return x


class SpectralFilter(nn.Module):
    """Mixing of channels degree by degree: `(l, m, 2, batch, channel)` -> the same."""

    def __init__(self, lmax, channels, options, gain):
        super().__init__()
        self.kind = options.filter
        std = math.sqrt(gain / channels)
        scale = torch.full((lmax,), std)
        scale[0] *= math.sqrt(2.0)
        if self.kind == "complex":
            self.weight = nn.Parameter(torch.randn(lmax, channels, 2, channels) * scale.view(-1, 1, 1, 1))
        elif self.kind == "real":
            self.weight = nn.Parameter(torch.randn(lmax, channels, channels) * scale.view(-1, 1, 1))
        elif self.kind == "diagonal":
            self.weight = nn.Parameter(torch.randn(lmax, 2, channels) * (scale * math.sqrt(channels)).view(-1, 1, 1))
        else:
            self.weight = nn.Parameter(torch.randn(lmax, 2, options.rank) * (scale / std).view(-1, 1, 1))
            self.inward = nn.Parameter(torch.randn(channels, options.rank) * std)
            self.outward = nn.Parameter(torch.randn(options.rank, channels) * math.sqrt(1 / options.rank))

    def forward(self, c):
        lmax, mmax, _, batch, channels = c.shape
        if self.kind == "real":
            return torch.bmm(c.reshape(lmax, -1, channels), self.weight).view(c.shape)
        if self.kind == "complex":
            y = torch.bmm(c.reshape(lmax, -1, channels), self.weight.flatten(2))
            y = y.view(lmax, mmax, 2, batch, 2, channels)
            return torch.stack([y[:, :, 0, :, 0] - y[:, :, 1, :, 1], y[:, :, 0, :, 1] + y[:, :, 1, :, 0]], 2)
        if self.kind == "low_rank":
            c = c @ self.inward
        real, imag = self.weight[:, None, 0, None], self.weight[:, None, 1, None]
        c = torch.stack([c[:, :, 0] * real - c[:, :, 1] * imag, c[:, :, 0] * imag + c[:, :, 1] * real], 2)
        return c @ self.outward if self.kind == "low_rank" else c


class DegreeGate(nn.Module):
    """Nonlinearity between spectral layers: each degree is scaled by a function of its power, which no rotation changes."""

    def __init__(self, lmax, channels):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(lmax, channels)), nn.Parameter(torch.zeros(lmax, channels))

    def forward(self, c):
        degrees = 2 * torch.arange(c.shape[0], device=c.device, dtype=c.dtype) + 1
        power = 2 * c.square().sum((1, 2)) - c[:, 0].square().sum(1)  # (l, batch, channel)
        level = torch.log1p(power / degrees.view(-1, 1, 1))
        gate = 2 * torch.sigmoid(self.scale[:, None] * (level - math.log(2.0)) + self.shift[:, None])
        return c * gate[:, None, None]


class Block(nn.Module):
    """Transform, mixing by degree, inverse transform; then an MLP; with skips around both."""

    def __init__(self, forward_transform, inverse_transform, rows, options, drop_path):
        super().__init__()
        width, gain = options.embed_dim, 2.0 if options.inner_skip == "none" else 1.0
        self.analysis, self.synthesis = forward_transform, inverse_transform
        self.resample = forward_transform.shape != inverse_transform.shape
        self.drop_path = drop_path
        self.activation = options.activation
        if options.pre_norm:
            self.pre_norm = Norm(options.norm, width, rows[0], options.condition_dim)
        lmax = inverse_transform.lmax
        self.filters = nn.ModuleList(SpectralFilter(lmax, width, options, gain) for _ in range(options.spectral_layers))
        self.gates = nn.ModuleList(DegreeGate(lmax, width) for _ in range(options.spectral_layers - 1))
        self.norm = Norm(options.norm, width, rows[1], options.condition_dim)
        self.inner_skip = _skip(options.inner_skip, options)
        self.outer_skip = _skip(options.outer_skip, options)
        self.mlp = None
        if options.mlp_ratio:
            hidden = int(width * options.mlp_ratio)
            self.mlp = MLP((width, hidden, width), bias_last=False, precision=options.mlp_precision)

    def forward(self, x, condition=None):
        if hasattr(self, "pre_norm"):
            x = self.pre_norm(x, condition)
        c = self.analysis.analysis(x)
        residual = self.synthesis.synthesis(c) if self.resample else x
        c = self.filters[0](c)
        for gate, mixing in zip(self.gates, self.filters[1:], strict=True):
            c = mixing(gate(c))
        x = self.synthesis.synthesis(c)
        if self.inner_skip is not None and not self.activation:
            x = self.norm(x, condition) + self.inner_skip(residual)
        else:
            if self.inner_skip is not None:
                x = x + self.inner_skip(residual)
            x = self.norm(F.gelu(x) if self.activation else x, condition)
        if self.mlp is not None:
            x = self.mlp(x)
        if self.training and self.drop_path:
            keep = torch.rand(x.shape[2], 1, device=x.device) >= self.drop_path
            x = x * (keep / (1 - self.drop_path))
        return x if self.outer_skip is None else x + self.outer_skip(residual)


def _skip(kind, options):
    if kind == "none":
        return None
    if kind == "identity":
        return nn.Identity()
    return Linear(options.embed_dim, options.embed_dim, precision=options.mlp_precision)


class SFNO(nn.Module):
    """Spherical Fourier Neural Operator on a Gaussian or equiangular grid.

    Args:
      in_channels, out_channels: channels of the input and output.
      nlat, nlon, grid, poles: the grid, as for `emulator.spherical.SphericalTransform`.
      options: size and design.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nlat: int,
        nlon: int,
        grid: str = "gaussian",
        poles: bool = False,
        options: SFNOOptions | None = None,
    ):
        super().__init__()
        options = options or SFNOOptions()
        self.in_channels, self.out_channels, self.nlat, self.nlon, self.options = (
            in_channels,
            out_channels,
            nlat,
            nlon,
            options,
        )
        transforms = _transforms(nlat, nlon, grid, poles, options.scale_factor)
        shares = [_cell_shares(t) for t in transforms]
        width, precision, last = options.embed_dim, options.mlp_precision, options.blocks - 1
        hidden = [width] * options.encoder_layers
        self.encoder = MLP((in_channels, *hidden, width), bool(hidden), precision=precision)
        decoder_in = width + (in_channels if options.big_skip == "concat" else 0)
        self.decoder = MLP((decoder_in, *hidden, out_channels), bool(hidden), precision=precision)
        if options.zero_output:
            nn.init.zeros_(self.decoder.layers[-1].weight)
        self.residual = None
        if options.big_skip == "add" and in_channels != out_channels:
            self.residual = Linear(in_channels, out_channels, bias=False)
        self.position = _Position(options.position, nlat, nlon, grid, poles, width)
        self.blocks = nn.ModuleList(
            Block(
                transforms[0 if n == 0 else 1],
                transforms[0 if n == last else 1],
                (shares[0 if n == 0 else 1], shares[0 if n == last else 1]),
                options,
                options.drop_path * n / max(last, 1),
            )
            for n in range(options.blocks)
        )

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch, in_channels, nlat, nlon)` -> `(batch, out_channels, nlat, nlon)`.

        `condition`: `(batch, condition_dim)` where the options ask for one. Raises `ValueError` for other shapes.
        """
        self._check(x, condition)
        x = x.permute(2, 3, 0, 1).contiguous()
        h = self.position(self.encoder(x).float())
        for block in self.blocks:
            if self.options.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, condition, use_reentrant=False)
            else:
                h = block(h, condition)
        if self.options.big_skip == "concat":
            h = torch.cat([h, x], -1)
        h = self.decoder(h).float()
        if self.options.big_skip == "add":
            h = h + (x if self.residual is None else self.residual(x))
        return h.permute(2, 3, 0, 1).contiguous()

    def _check(self, x, condition):
        expected = (self.in_channels, self.nlat, self.nlon)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(f"Expected an input of shape {('batch', *expected)}, got {tuple(x.shape)}")
        wanted = (x.shape[0], self.options.condition_dim) if self.options.condition_dim else None
        came = None if condition is None else tuple(condition.shape)
        if came != wanted:
            raise ValueError(f"Expected a condition of shape {wanted}, got {came}")


def _transforms(nlat, nlon, grid, poles, scale_factor):
    """Outer and inner transform with a common truncation; the inner grid is Gaussian and `scale_factor` coarser."""
    inner_nlat, inner_nlon = (nlat - 1) // scale_factor + 1, nlon // scale_factor
    lmax = min(inner_nlat, inner_nlon // 2)
    outer = SphericalTransform(nlat, nlon, grid, poles, lmax)
    if scale_factor == 1:
        return outer, outer
    return outer, SphericalTransform(inner_nlat, inner_nlon, "gaussian", False, lmax)


def _cell_shares(transform):
    """Share of the sphere of each row's cells, `(nlat, 1, 1, 1)`, summing to 1 over the grid."""
    weights = latitudes(transform.nlat, transform.grid, transform.poles)[1]
    return (weights / (weights.sum() * transform.nlon)).float().view(-1, 1, 1, 1)


class _Position(nn.Module):
    """What tells the network where a cell lies, added to the encoded state."""

    def __init__(self, kind, nlat, nlon, grid, poles, channels):
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.field = nn.Parameter(torch.randn(nlat, nlon, 1, channels) * 0.02)
        elif kind == "harmonics":
            degrees = min(math.isqrt(channels - 1) + 1, nlon // 2)
            transform = SphericalTransform(nlat, nlon, grid, poles, degrees)
            coefficients = torch.zeros(degrees, degrees, 2, channels)
            for n in range(min(channels, degrees**2)):
                degree = math.isqrt(n)
                order = n - degree**2 - degree
                coefficients[degree, abs(order), int(order < 0), n] = 1
            field = transform.synthesis(coefficients)
            field = field / field.abs().amax((0, 1)).clamp(min=1e-6)
            self.register_buffer("field", field[:, :, None], persistent=False)

    def forward(self, x):
        return x if self.kind == "none" else x + self.field
