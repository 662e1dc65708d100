"""Lorenz-96: 40 variables on a ring that stand for a latitude circle of the atmosphere (Lorenz 1996), as a test bed."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.window import Observed

COUNT, FORCING, STEP = 40, 8.0, 0.05  # chaotic, with errors that double in 0.42 time units


def tendency(x: Tensor) -> Tensor:
    """`dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F` along the last axis."""
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + FORCING


def step(x: Tensor) -> Tensor:
    """One step by the classical Runge-Kutta method; states `(batch, 1, 1, 40)`."""
    one = tendency(x)
    two = tendency(x + STEP / 2 * one)
    three = tendency(x + STEP / 2 * two)
    return x + STEP / 6 * (one + 2 * two + 2 * three + tendency(x + STEP * three))


def forecast(x: Tensor, times: int) -> list[Tensor]:
    """States at so many times, the first being `x`."""
    states = [x]
    for _ in range(times - 1):
        states.append(step(states[-1]))
    return states


def nature(steps: int, seed: int = 0) -> Tensor:
    """A run on the attractor, `(time, 1, 1, 40)` float64."""
    x = torch.from_numpy(FORCING + np.random.default_rng(seed).standard_normal((1, 1, 1, COUNT)))
    return torch.cat(forecast(forecast(x, 500)[-1], steps))


@dataclasses.dataclass(frozen=True)
class Ring:
    """Cells in distances of one cell, counted as kilometres."""

    level: np.ndarray = dataclasses.field(default_factory=lambda: np.full(1, np.nan))

    def distance(self, latitude, longitude) -> Tensor:
        apart = np.abs(np.arange(COUNT)[:, None] - longitude[None])
        return torch.from_numpy(np.minimum(apart, COUNT - apart).astype(np.float64))


def everywhere(truth: Tensor, generator: np.random.Generator, error: float = 1.0) -> Observed:
    """Every variable of one time observed with errors of that size."""
    value = truth.flatten() + error * torch.from_numpy(generator.standard_normal(COUNT))
    place = np.arange(COUNT, dtype=np.float64)
    sigma = torch.full((COUNT,), error, dtype=torch.float64)
    return Observed(lambda state: state.flatten(1), value, sigma, 0 * place, place, np.full(COUNT, np.nan))


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A covariance by its dense root, `(40, 40)`."""

    root: Tensor

    @property
    def size(self) -> int:
        return self.root.shape[1]

    def __call__(self, control: Tensor) -> Tensor:
        return (control @ self.root.mT).view(-1, 1, 1, len(self.root))

    @property
    def whole(self) -> Tensor:
        return self.root @ self.root.mT


def climatological(scale: float) -> Dense:
    """The covariance of states of a long run, homogeneous along the ring, times a factor of the deviations."""
    states = nature(4000, seed=7).flatten(1)
    moved = states - states.mean()
    row = torch.stack([(moved * moved.roll(k, 1)).mean() for k in range(COUNT)])
    whole = torch.stack([row.roll(k) for k in range(COUNT)])
    values, vectors = torch.linalg.eigh(whole)
    return Dense(scale * vectors * values.clamp(min=0).sqrt())
