"""Layers of tangent vectors beside scalars: which channels are components of one, and what commutes with rotations.

Vectors are `(cell, batch, 2 * vector)`, first all eastward, then all northward components. Their spheroidal and toroidal
coefficients lie alike. A rotation of the sphere turns the two components of a place by an angle of that place. So vectors are
mixed by complex numbers (with u + i v for a vector), scalars are made of inner products, and scalars scale vectors.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from emulator.kernels import vectors as native
from emulator.kernels.kept import made_of
from emulator.kernels.library import alone, takes
from emulator.networks.channel_axes import SHARED, UNITLESS, Entry
from emulator.networks.layers import apply_linear, full
from emulator.networks.signature import Channel
from emulator.parallel.space import ALONE, Space
from emulator.sphere.tables import Plan, coefficient_order

PAIRS = (("u_component_of", "v_component_of"), ("eastward", "northward"), ("zonal", "meridional"))


def is_component(name: str) -> bool:
    """Whether a variable is a component of a vector, as its name tells."""
    return any(word in name for pair in PAIRS for word in pair)


def wind_pairs(channels: Sequence[Channel]) -> list[tuple[int, int]]:
    """Positions of the eastward and the northward component of every vector, as the variables' names tell them.

    Both are of the same level, time and role.
    """
    places = {(c.name, c.level, c.time, c.role): n for n, c in enumerate(channels)}
    found = []
    for (name, *rest), n in places.items():
        partners = [name.replace(east, north) for east, north in PAIRS if east in name]
        found += [(n, places[partner, *rest]) for partner in partners if (partner, *rest) in places]
    return found


def scalars_of(channels: Sequence[Channel]) -> list[Entry]:
    """Channels that are no component of a vector."""
    vectors = {n for pair in wind_pairs(channels) for n in pair}
    return [Entry(channel, n) for n, channel in enumerate(channels) if n not in vectors]


def vectors_of(channels: Sequence[Channel], components: bool) -> list[Entry]:
    """Every vector as if it were a channel; whether scales of its components see to its units."""
    pairs = [(channels[east], channels[north].name) for east, north in wind_pairs(channels)]
    position = UNITLESS if components else SHARED
    return [Entry(dataclasses.replace(east, name=f"{east.name} and {north}"), position) for east, north in pairs]


def components_of(channels: Sequence[Channel]) -> list[Entry]:
    """The components of all vectors, first all eastward, then all northward."""
    return [Entry(channels[n], n) for side in zip(*wind_pairs(channels), strict=True) for n in side]


class Sorting(nn.Module):
    """Channels parted into scalars and vectors, and joined again; `(batch, channel, *space)`."""

    def __init__(self, channels: Sequence[Channel]):
        super().__init__()
        pairs = wind_pairs(channels)
        vectors = [n for side in zip(*pairs, strict=True) for n in side]
        scalars = [n for n in range(len(channels)) if n not in set(vectors)]
        self.scalars, self.vectors = len(scalars), len(pairs)
        order = scalars + vectors
        self._parts = _runs(scalars), _runs(vectors)
        self._back = _runs(sorted(range(len(order)), key=order.__getitem__))

    def part(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scalars `(batch, scalar, *space)` and vectors `(batch, 2 * vector, *space)`, either of which may be empty."""
        return tuple(joined([x[:, :0], *(x[:, run] for run in runs)], 1) for runs in self._parts)

    def join(self, scalars: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Inverse of `part`."""
        x = joined([scalars, vectors], 1)
        return x if len(self._back) == 1 else joined([x[:, run] for run in self._back], 1)


def _runs(order):
    """Slices of successive numbers: gradients of slices need no scattering."""
    starts = [n for n, at in enumerate(order) if n == 0 or at != order[n - 1] + 1]
    bounds = itertools.pairwise([*starts, len(order)])
    return [slice(order[a], order[a] + b - a) for a, b in bounds]


def joined(parts: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """`torch.cat`."""
    if alone(*parts) and all(native.in_pieces(part, axis) for part in parts):
        return native.joined(parts, axis)
    return torch.cat(list(parts), axis)


def parted(x: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many of the last axis's numbers, and the others."""
    parts = x[..., :first], x[..., first:]
    return tuple(joined([part], x.ndim - 1) for part in parts) if alone(x) else parts


class VectorLinear(nn.Module):
    """Vectors mixed by complex weights, cell by cell: `(cell, batch, 2 * inputs)` -> `(cell, batch, 2 * outputs)`."""

    def __init__(self, inputs: int, outputs: int, precision: str = "float32"):
        super().__init__()
        self.precision = precision
        self.weight = nn.Parameter(torch.randn(2, outputs, inputs) * math.sqrt(0.5 / inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return full(apply_linear(x, made_of(self.weight, _as_matrix), None, self.precision))


def _as_matrix(weight):
    real, imag = weight
    return torch.cat([torch.cat([real, -imag], 1), torch.cat([imag, real], 1)], 0)


class Components(nn.Module):
    """A scale and an offset of every component, which start as one and zero.

    Data are normalised channel by channel: the mean of a component and its own spread make of a vector field something that
    no rotation knows. This is what can undo it.
    """

    def __init__(self, vectors: int):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(2 * vectors)), nn.Parameter(torch.zeros(2 * vectors))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if alone(x, self.scale):
            return apply_linear(x, made_of(self.scale, torch.diag), self.offset, "float32")
        return torch.addcmul(self.offset, x, self.scale)


class _Along(torch.autograd.Function):
    """`along`, with its gradients in few passes."""

    @staticmethod
    def forward(ctx, x, other):
        x, other = (vectors.unflatten(-1, (2, -1)) for vectors in (x, other))
        shrink = torch.rsqrt(1 + other.square().sum(-2))
        product = (x * other).sum(-2)
        ctx.save_for_backward(x, other, product, shrink)
        return product * shrink

    @staticmethod
    def backward(ctx, g):
        x, other, product, shrink = ctx.saved_tensors
        g = (g * shrink)[..., None, :]
        by_other = torch.addcmul(x * g, other, g * (product * shrink.square())[..., None, :], value=-1)
        return (other * g).flatten(-2), by_other.flatten(-2)


class _CompiledAlong(torch.autograd.Function):
    """`along` of float32 in the processor's memory, contiguous."""

    @staticmethod
    def forward(ctx, x, other):
        ctx.save_for_backward(x, other)
        return native.along(x, other)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return native.along_backward(*ctx.saved_tensors, g.contiguous())


def along(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The component of every vector along another one, `(..., vector)`; below a length of 1 it fades out smoothly."""
    if alone(x, other) and x.is_contiguous() and other.is_contiguous():
        return native.along(x, other)
    if takes(x, other):
        return _CompiledAlong.apply(x.contiguous(), other.contiguous())
    return _Along.apply(x, other)


def lengths(x: torch.Tensor) -> torch.Tensor:
    """Every vector along itself, `(..., vector)`: its length, which below 1 fades out smoothly."""
    if alone(x) and x.is_contiguous():
        return native.along(x, x)
    square = x.unflatten(-1, (2, -1)).square().sum(-2)
    return square * torch.rsqrt(1 + square)


class _CompiledGate(torch.autograd.Function):
    """`gated` of float32 in the processor's memory, contiguous."""

    @staticmethod
    def forward(ctx, s, w, made, turned):
        ctx.save_for_backward(made, turned)
        return native.gate(s, w, made, turned)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_s, g_w):
        return g_s, g_w, *native.gate_backward(g_s.contiguous(), g_w.contiguous(), *ctx.saved_tensors)


def gated(
    s: torch.Tensor, w: torch.Tensor, made: torch.Tensor, turned: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scalars `(..., scalar)` plus their change, and vectors plus others times twice the logistic function of a scalar.

    `made`: `(..., scalar + vector)`, the change and those scalars; `w` and `turned`: `(..., 2 * vector)`.
    """
    given = s, w, made, turned
    if alone(*given) and all(tensor.is_contiguous() for tensor in given):
        return native.gate(*given)
    if takes(*given):
        return _CompiledGate.apply(*(tensor.contiguous() for tensor in given))
    change, gate = made.split([s.shape[-1], made.shape[-1] - s.shape[-1]], -1)
    parts = (vectors.unflatten(-1, (2, -1)) for vectors in (w, turned))
    return s + change, torch.addcmul(*parts, 2 * torch.sigmoid(gate)[..., None, :]).flatten(-2)


class _CompiledNorm(torch.autograd.Function):
    """`SpectralNorm` of float32 in the processor's memory, contiguous; `scale`: `(batch or 1, scalars + vectors)`."""

    @staticmethod
    def forward(ctx, a, b, shares, scale, space):
        if space.size == 1:
            made, factors, rstd = native.spectral_norm(a, b, shares, scale, EPSILON)
        else:
            mean = _shared_mean(space.total(native.spectral_sums(a, b, shares)), a.shape[-1])
            rstd = torch.rsqrt(mean + EPSILON)
            factors = _of_components(scale * rstd, a.shape[-1])
            made = native.spectral_scaled(a, b, shares, factors)
        ctx.save_for_backward(a, b, shares, scale, rstd, factors)
        ctx.space = space
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        a, b, shares, scale, rstd, factors = ctx.saved_tensors
        g, scalars = g.contiguous(), a.shape[-1]
        own = native.spectral_sums(a, b, shares, g)
        # a square's derivative is 2, the inverse root's -1/2, and a vector's mean is half the sum of its parts'
        slopes = -_shared_mean(ctx.space.total(own), scalars) * scale * rstd**3
        g_a, g_b = native.spectral_gradient(a, b, shares, g, factors, _of_components(slopes, scalars))
        of_weight = _shared_mean(own, scalars) * rstd
        of_weight[:, scalars:] *= 2
        return g_a, g_b, None, of_weight.sum_to_size(scale.shape), None


def _shared_mean(sums, scalars):
    """`(batch, scalars + 2 * vectors)` -> `(batch, scalars + vectors)`: both parts of a vector have the mean of theirs."""
    first, spheroidal, toroidal = sums.split([scalars, *[(sums.shape[-1] - scalars) // 2] * 2], -1)
    return torch.cat([first, (spheroidal + toroidal) / 2], -1)


def _of_components(scale, scalars):
    """`(batch, scalars + vectors)` -> `(batch, scalars + 2 * vectors)`."""
    return torch.cat([scale, scale[:, scalars:]], -1)


EPSILON = 1e-6  # added to mean squares


class SpectralNorm(nn.Module):
    """Coefficients over their root mean square, times a parameter and by a condition.

    Squares over the sphere are sums of squared coefficients (Parseval), so cells count by their area on every grid, and every
    rotation commutes with the norm. Those of both components of a vector are taken together.

    Args:
      plan: the transform's. condition_dim: length of the condition, 0 for none. Its effect starts at zero.
      space: the processes that hold the state together.
    """

    def __init__(self, plan: Plan, scalars: int, vectors: int, condition_dim: int = 0, space: Space = ALONE):
        super().__init__()
        self.space = space
        stored = coefficient_order(plan)[0] // 2
        degree, order = stored // plan.lmax, stored % plan.lmax
        shares = (2 - (order == 0).float()) * (degree >= order) / (4 * math.pi)
        self.register_buffer("shares", shares[:, None, None], persistent=False)
        self.weight = nn.Parameter(torch.ones(scalars + vectors))
        self.modulation = from_condition(condition_dim, scalars + vectors)

    def forward(self, a: torch.Tensor, b: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """`(count, batch, scalars)` and `(count, batch, 2 * vectors)` beside one another, normalised."""
        plain = self.modulation is None and self.space.size == 1
        if plain and alone(a, b, self.weight) and a.is_contiguous() and b.is_contiguous():
            return native.spectral_norm(a, b, self.shares, self.weight[None], EPSILON)[0]
        scale, scalars = self.weight[None], a.shape[-1]
        if self.modulation is not None:
            scale = scale * (1 + full(self.modulation(condition)))
        if takes(a, b, scale):
            return _CompiledNorm.apply(a.contiguous(), b.contiguous(), self.shares, scale.contiguous(), self.space)
        c = torch.cat([a, b], -1)
        power = self.space.total((c.square() * self.shares).sum(0))  # (batch, channel)
        return c * _of_components(scale * torch.rsqrt(_shared_mean(power, scalars) + EPSILON), scalars)


def from_condition(condition_dim: int, channels: int) -> nn.Linear | None:
    """A linear map of a condition that starts at zero; None without a condition."""
    if not condition_dim:
        return None
    layer = nn.Linear(condition_dim, channels)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
