"""Linear and nonlinear maps of spherical-harmonic coefficients, degree by degree.

Coefficients are `(count, batch, channel)` in the order of `emulator.sphere.tables`: in every block and for every
degree the rows of one degree lie together, real parts before imaginary parts, so that mixing channels is one
degree-batched matrix product.
"""

import math

import torch
from torch import nn
from torch.utils.flop_counter import register_flop_formula

from emulator.kernels import transform as native
from emulator.kernels.library import alone, empty
from emulator.parallel.space import ALONE, Space
from emulator.sphere.tables import Plan

FILTERS = ("complex", "real", "diagonal", "low_rank")


def _pieces(plan):
    """(position, degrees, rows, first degree) of every run of degrees l = first, first + 2, ... stored together."""
    position = 0
    for block in plan.blocks:
        for q in (0, 1):
            if block.degrees[q]:
                yield position, block.degrees[q], block.rows, block.start + q
            position += block.degrees[q] * block.rows


def _rotate(g):
    """Real and imaginary products' gradients from those of the coefficients: (re, im) -> ((re, im), (im, -re))."""
    real, imag = g.chunk(2, 1)
    out = g.new_empty(*g.shape[:-1], 2, g.shape[-1])
    top, bottom = out.chunk(2, 1)
    top[..., 0, :], top[..., 1, :], bottom[..., 0, :] = real, imag, imag
    torch.neg(real, out=bottom[..., 1, :])
    return out.flatten(-2)


def mix(c, weight, plan, half):
    """`(count, batch, C)` times `(l, C, C')`, or `(l, C, 2, C')` for real and imaginary weights."""
    plan = Plan(*plan)
    batch, width = c.shape[1], weight.shape[-1]
    if native.mixes(c, weight, half):
        out = empty(plan.count, batch, width)
        native.mixing(c.contiguous(), weight.contiguous(), out, plan.bounds, half)
        return out
    out = c.new_empty(plan.count, batch, width)
    values, weight = (c.bfloat16(), weight.bfloat16()) if half else (c, weight)
    for position, degrees, rows, first in _pieces(plan):
        size = degrees * rows
        matrix = weight[first::2]
        part = values[position : position + size].view(degrees, rows * batch, -1)
        target = out[position : position + size].view(degrees, rows * batch, width)
        if weight.ndim == 3:
            if half:
                target.copy_(torch.bmm(part, matrix))
            else:
                torch.bmm(part, matrix, out=target)
            continue
        product = torch.bmm(part, matrix.flatten(2)).unflatten(2, (2, width))
        (real, imag), (out_real, out_imag) = product.chunk(2, 1), target.chunk(2, 1)
        torch.sub(real[:, :, 0], imag[:, :, 1], out=out_real)
        torch.add(real[:, :, 1], imag[:, :, 0], out=out_imag)
    return out


def mix_backward(g, c, weight, plan, half):
    """Gradients of `mix` with respect to the coefficients and the weights."""
    plan = Plan(*plan)
    batch, dtype = c.shape[1], torch.bfloat16 if half else c.dtype
    g_c = c.new_empty(c.shape)
    g_weight = torch.empty_like(weight)
    if native.mixes(c, weight, half):
        native.mixing_backward(g, c.contiguous(), weight.contiguous(), g_c, g_weight, plan.bounds, half)
        return g_c, g_weight
    flat = weight.flatten(2).to(dtype)
    g_values, values = g.to(dtype), c.to(dtype)
    sums = [flat.new_empty(0), flat.new_empty(0)]
    for position, degrees, rows, first in _pieces(plan):
        size = degrees * rows
        part = values[position : position + size].view(degrees, rows * batch, -1)
        g_part = g_values[position : position + size].view(degrees, rows * batch, -1)
        if weight.ndim == 4:
            g_part = _rotate(g_part)
        target = g_c[position : position + size].view(degrees, rows * batch, -1)
        target.copy_(torch.bmm(g_part, flat[first::2].transpose(1, 2)))
        if first < 2:  # the first block of all has every degree
            sums[first] = torch.bmm(part.transpose(1, 2), g_part)
        else:
            if not len(sums[first % 2]):  # of a process without that block
                sums[first % 2] = flat.new_zeros(len(flat[first % 2 :: 2]), *flat.shape[1:])
            sums[first % 2][first // 2 :].baddbmm_(part.transpose(1, 2), g_part)
    for q in (0, 1):
        if len(g_weight[q::2]):
            g_weight[q::2] = sums[q].view(g_weight[q::2].shape) if len(sums[q]) else 0
    return g_c, g_weight


_LIBRARY = torch.library.Library("emulator", "FRAGMENT")
_LIBRARY.define("mix(Tensor c, Tensor weight, int[] plan, bool half) -> Tensor")
_LIBRARY.define("mix_backward(Tensor g, Tensor c, Tensor weight, int[] plan, bool half) -> (Tensor, Tensor)")
_LIBRARY.impl("mix", mix, "CompositeExplicitAutograd")
_LIBRARY.impl("mix_backward", mix_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("emulator::mix")
def _(c, weight, plan, half):
    return c.new_empty(*c.shape[:2], weight.shape[-1])


@torch.library.register_fake("emulator::mix_backward")
def _(g, c, weight, plan, half):
    return torch.empty_like(c), torch.empty_like(weight)


@register_flop_formula(torch.ops.emulator.mix)
def _products(c, weight, plan, half, *, out_shape=None):
    """Operations, on the shapes of the arguments: two for a real weight and four for a complex one."""
    return (4 if len(weight) == 4 else 2) * math.prod(c) * weight[-1]


@register_flop_formula(torch.ops.emulator.mix_backward)
def _products_backward(g, c, weight, plan, half, *, out_shape=None):
    return 2 * _products(c, weight, plan, half)


class Mix(torch.autograd.Function):
    """Channel mixing by degree, with its gradients; see `mix`."""

    @staticmethod
    def forward(ctx, c, weight, plan, half):
        ctx.save_for_backward(c, weight)
        ctx.plan, ctx.half = plan, half
        return torch.ops.emulator.mix(c, weight, plan, half)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return *torch.ops.emulator.mix_backward(g.contiguous(), *ctx.saved_tensors, ctx.plan, ctx.half), None, None


def by_degree(c, plan, function):
    """`function(part, degrees)` on every run of degrees, a slice of l: `part` is `(degree, 2, order, batch, channel)`."""
    results = []
    for position, degrees, rows, first in _pieces(plan):
        part = c[position : position + degrees * rows].view(degrees, 2, rows // 2, *c.shape[1:])
        results.append(function(part, slice(first, None, 2)).reshape(degrees * rows, c.shape[1], -1))
    return torch.cat(results)


def _between(lmax, knots):
    """Shares of the knots' weights in those of all degrees, `(lmax, knots)`: linear from one to the next."""
    if knots > lmax:
        raise ValueError(f"Expected at most as many knots as {lmax} degrees, got {knots}")
    places = torch.arange(lmax) * ((knots - 1) / max(lmax - 1, 1))
    return (1 - (places[:, None] - torch.arange(knots)).abs()).clamp(min=0)


class SpectralFilter(nn.Module):
    """Convolution on the sphere: coefficients of degree l are multiplied by weights of degree l, for every order alike.

    Args:
      plan: the transform's. channels: in and out. gain: variance of the output over that of the input at the start.
      kind: "complex", "real" (commutes with every rotation), "diagonal" (one complex factor per degree and channel) or
        "low_rank" (`rank` directions shared by all degrees, with one complex factor per degree and direction).
      precision: "float32" or "bfloat16", of the products of "complex" and "real".
      knots: of these, degrees with weights of their own, evenly spread; those of others lie between. 0: all have.
    """

    by_degree = (
        "weight",
    )  # along its first axis, which a start from weights of another truncation cuts or goes on with

    def __init__(
        self,
        plan: Plan,
        channels: int,
        kind: str = "complex",
        gain: float = 1.0,
        rank: int = 16,
        precision: str = "float32",
        knots: int = 0,
    ):
        super().__init__()
        if kind not in FILTERS:
            raise ValueError(f"Expected a filter among {FILTERS}, got {kind!r}")
        self.plan, self.kind, self.half = plan, kind, precision == "bfloat16"
        lmax, std = knots or plan.lmax, math.sqrt(gain / channels)
        scale = torch.ones(lmax, 1, 1)
        scale[0] = math.sqrt(2.0)  # the imaginary part of degree 0 has no effect
        if kind == "complex":
            weight = torch.randn(lmax, channels, 2, channels) * std * math.sqrt(0.5) * scale[..., None]
        elif kind == "real":
            weight = torch.randn(lmax, channels, channels) * std
        else:
            size = channels if kind == "diagonal" else rank
            weight = torch.randn(lmax, 2, size) * math.sqrt(0.5) * scale
            weight = weight * math.sqrt(gain) if kind == "diagonal" else weight
        self.weight = nn.Parameter(weight)
        self.register_buffer("between", _between(plan.lmax, knots) if knots else None, persistent=False)
        if kind == "low_rank":
            self.inward = nn.Parameter(torch.randn(channels, rank) * std)
            self.outward = nn.Parameter(torch.randn(rank, channels) * math.sqrt(1 / rank))

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        """`(count, batch, channel)` -> the same."""
        if self.weight.ndim == 4 or self.kind == "real":
            weight = self.weight if self.between is None else torch.einsum("lk,k...->l...", self.between, self.weight)
            if alone(c, weight):
                return mix(c, weight, self.plan, self.half)
            return Mix.apply(c, weight, list(self.plan), self.half)
        if self.kind == "low_rank":
            c = c @ self.inward
        c = by_degree(c, self.plan, self._scale)
        return c @ self.outward if self.kind == "low_rank" else c

    def _scale(self, part, degrees):
        real, imag = self.weight[degrees, :, None, None].unbind(1)
        return torch.stack([part[:, 0] * real - part[:, 1] * imag, part[:, 0] * imag + part[:, 1] * real], 1)

    def extra_repr(self) -> str:
        return f"{self.kind}, {tuple(self.weight.shape)}"


class DegreeGate(nn.Module):
    """Nonlinearity between filters: each degree is scaled by a function of its power, which no rotation changes."""

    by_degree = ("scale", "shift")

    def __init__(self, plan: Plan, channels: int, space: Space = ALONE):
        super().__init__()
        self.plan, self.space = plan, space
        self.scale = nn.Parameter(torch.full((plan.lmax, channels), 0.5))
        self.shift = nn.Parameter(torch.zeros(plan.lmax, channels))
        spans = 2 * torch.arange(plan.lmax, dtype=torch.float32) + 1
        self.register_buffer("spans", spans[:, None, None], persistent=False)

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        """`(count, batch, channel)` -> the same."""
        power = c.new_zeros(self.plan.lmax, *c.shape[1:])
        for position, degrees, rows, first in _pieces(self.plan):
            squares = c[position : position + degrees * rows].view(degrees, 2, rows // 2, *c.shape[1:]).square()
            total = 2 * squares.sum((1, 2))
            if first < 2:
                total = total - squares[:, 0, 0]  # order 0 counts once
            indices = torch.arange(first, self.plan.lmax, 2, device=c.device)
            power = power.index_add(0, indices, total)
        level = torch.log1p(self.space.total(power) / self.spans)
        gate = 2 * torch.sigmoid(self.scale[:, None] * (level - math.log(2.0)) + self.shift[:, None])
        return by_degree(c, self.plan, lambda part, degrees: part * gate[degrees, None, None])
