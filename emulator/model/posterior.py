"""Distributions of a network's weights, from which the members of an ensemble draw theirs; small files beside a checkpoint.

SWAG (Maddox et al. 2019, arXiv 1902.02476): a Gaussian about the mean of K states of a training, whose covariance is half of
their variances and half of what their last deviations D from the mean have, `D D^T / (K - 1)`. Laplace: a Gaussian about one
layer's weights whose rows are independent, with the same principal axes (Daxberger et al. 2021, of a last layer).
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emulator.model import checkpoint
from emulator.model.checkpoint import CheckpointError
from emulator.model.step import Step

SCHEMA = "weights-1"
WEIGHTS = 7  # the last number of a key tells what random numbers are for (see emulator.model.noise)


class Posterior:
    """A distribution of weights.

    Args:
      kind: "swag" or "laplace". tensors: `PART/NAME`, for swag of the parts `mean`, `variance` and `deviations`
        `(state, *shape)`, for laplace of `mean`, `axes` `(in, axis)` and `std` `(out, axis)`.
      base: hash of the tensors of the checkpoint that it is for.
    """

    def __init__(self, kind: str, tensors: Mapping[str, Tensor], base: str):
        self.kind, self.tensors, self.base = kind, dict(tensors), base

    @classmethod
    def load(cls, path: Path) -> "Posterior":
        """As it was saved. Raises `CheckpointError` for anything else."""
        tensors, saved = checkpoint.load(Path(path))
        if saved.get("schema") != SCHEMA:
            raise CheckpointError(f"Expected a distribution of weights in {path}, got {saved.get('schema', 'none')}")
        return cls(saved["kind"], tensors, saved["base"])

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        checkpoint.save(path, self.tensors, {"schema": SCHEMA, "kind": self.kind, "base": self.base})

    def names(self) -> list[str]:
        """Of the network's parameters that it draws."""
        return sorted(name.removeprefix("mean/") for name in self.tensors if name.startswith("mean/"))

    def draw(self, seed: int, member: int, scale: float = 1.0) -> dict[str, Tensor]:
        """Weights of a member by name: a function of seed and member. `scale`: of the departures from the mean, 0: none."""
        generator, draw = np.random.default_rng((seed, member, WEIGHTS)), {"swag": self._swag, "laplace": self._laplace}
        return {name: mean + scale * away for name, mean, away in draw[self.kind](generator)}

    def _swag(self, generator):
        shared = None
        for name in self.names():
            mean, variance, deviations = (self.tensors[f"{part}/{name}"] for part in ("mean", "variance", "deviations"))
            if shared is None:  # the same combination of deviations for all weights
                shared = _normal(generator, len(deviations)) / (2 * (len(deviations) - 1)) ** 0.5
            own = _normal(generator, *mean.shape) * (variance / 2).sqrt()
            yield name, mean, own + torch.tensordot(shared, deviations, 1)

    def _laplace(self, generator):
        for name in self.names():
            mean, axes, std = (self.tensors[f"{part}/{name}"] for part in ("mean", "axes", "std"))
            yield name, mean, ((_normal(generator, *std.shape) * std) @ axes.T).view_as(mean)


def _normal(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape, np.float32))


def with_drawn_weights(step: Step, posterior: Posterior, seed: int, member: int, scale: float = 1.0) -> Step:
    """A step like another with the weights of a member. Raises `ValueError` for a distribution of another checkpoint."""
    known = step.metadata.get("sha256")
    if known != posterior.base:
        raise ValueError(
            f"Expected weights drawn for the checkpoint {posterior.base[:16]}..., got one with the hash {str(known)[:16]}"
        )
    made = copy.deepcopy(step)
    parameters = dict(made.network.named_parameters())
    with torch.no_grad():
        for name, values in posterior.draw(seed, member, scale).items():
            parameters[name].copy_(values)
    return made
