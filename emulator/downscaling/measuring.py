"""Means, spreads and spectra that a downscaling is trained with, measured over its period."""

import math

import torch
from torch import Tensor, nn

from emulator.data.normalisation import Normalizer
from emulator.data.samples import evenly
from emulator.downscaling.downscaler import Downscaler, Scales
from emulator.downscaling.pairs import Pairs

CPU = torch.device("cpu")
BLOCK = 8  # pairs at a time
ROUNDS, DRAWS, CELLS = 4, 32, 96 * 192  # to find the spectra of noise; fewer draws of more cells, down to 2
MOST = 4.0  # times the power wanted at a degree: where the coarse means hold nearly all, more would leak to others


def measured(
    pairs: Pairs,
    static: Tensor,
    count: int,
    degrees: int = 0,
    mean: Downscaler | None = None,
    device: torch.device = CPU,
) -> Scales:
    """Scales over so many pairs, evenly over the period, each cell weighted by its area.

    The residual is what the truth adds to the field of `mean`, or to interpolation: of every channel its own, so that what
    samples are drawn of has unit spread in all of them. `degrees`: of its spectra, which noise is then given; 0 for none.
    `device`: which the noise is fitted on and left on.
    """
    chosen = evenly(pairs.some_starts(), count)
    area, sums, power = torch.as_tensor(pairs.grid.area), {}, 0.0
    scales = Scales.blank(pairs.plan, 0, pairs.grid, degrees)
    blank = _without_network(pairs, scales, mean)
    for first in range(0, len(chosen), BLOCK):
        batch = pairs.batch(chosen[first : first + BLOCK])
        given, truth = batch.forcing[:, 0], batch.diagnostic[:, 0]
        residual = truth - blank.centre(given, batch.clock[:, 0], batch.coarse)[0].flatten(1, 2)
        for name, field in (("given", given), ("made", truth), ("residual", residual)):
            powers = torch.stack([(field.double() ** n * area).sum((-2, -1)).sum(0) for n in (1, 2)]) / len(chosen)
            sums[name] = sums.get(name, 0) + powers
        if degrees:
            power = power + scales.noise.measured(residual).sum(0)
    spread = {name: (square - mean**2).clamp(min=0).sqrt() for name, (mean, square) in sums.items()}
    residual = torch.where(spread["residual"] > 0, spread["residual"], 1.0).float()
    scales = Scales(*(Normalizer(sums[n][0], spread[n]) for n in ("given", "made")), residual, static, scales.noise)
    if degrees:
        total = power.sum(-1, keepdim=True)  # 0 of a channel that interpolation leaves nothing of: then no noise either
        fit_noise(_without_network(pairs, scales).to(device), (power / torch.where(total > 0, total, 1.0)).to(device))
    return scales


def _without_network(pairs: Pairs, scales: Scales, mean: Downscaler | None = None) -> Downscaler:
    return Downscaler(nn.Identity(), pairs.plan, pairs.grid, pairs.coarse.grid, scales, mean=mean)


def fit_noise(step: Downscaler, wanted: Tensor) -> None:
    """Set the spectra from which noise is drawn so that it has a power by degree and beyond, `(made channel, degree + 1)`.

    What is drawn loses the means of coarse cells (`Downscaler.left_open`) and with them power, most at the degrees that these
    cells resolve. Which share is left is measured, of the same draws, and the spectra are raised by what lacks, a few times:
    where the coarse means take nothing they stay exact. `step` and `wanted` are on one device.
    """
    noise, draws = step.initial_noise, min(DRAWS, max(2, DRAWS * CELLS // math.prod(step.grid.shape)))
    noise.power = wanted
    for _ in range(ROUNDS):
        generator, whole, left = torch.Generator(wanted.device).manual_seed(0), 0.0, 0.0
        for _ in range(draws):
            fields = noise(1, generator, wanted.device)
            whole, left = whole + noise.measured(fields)[0], left + noise.measured(step.left_open(fields))[0]
        noise.power = wanted * torch.where(left > 0, whole / left, 1.0).clamp(max=MOST)
