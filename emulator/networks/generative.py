"""A network that draws what it predicts from a distribution: another one, and an objective of `emulator.generative`.

The other network is given the noisy fields beside its inputs, and by its `condition` where between noise and sample they are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emulator.generative.objectives import Objective, objective
from emulator.networks import registry
from emulator.networks.conditions import NOISE_TIME, NoiseOptions, check_condition, check_noise, noise_time
from emulator.networks.signature import Channel, Signature
from emulator.networks.vectors import wind_pairs
from emulator.planet.grid import Grid

REGRESSION = {"kind": "regression"}  # no objective: the network predicts one value, by any loss


def with_time(
    config: Mapping[str, Any],
    told: str = "the time between noise and sample",
    instead: str | None = "train.objective, which brings its own",
) -> dict[str, Any]:
    """A network's configuration with a time between 0 and 1 among its conditions, by default that between noise and sample.

    `told`: what it is, and `instead`: with what a network has no noise of its own, None where it may; for messages. Raises
    `NetworkError` for a kind that takes no conditions or none but the inputs of a step, and for noise of its own.
    """
    options = registry.options(config)
    able = [name for name, kind in registry.NETWORKS.all().items() if _takes_time(kind)]
    if config["kind"] not in able:
        raise registry.NetworkError(
            f"Expected a network that can be told {told}, one of {', '.join(able)}, got "
            f"{config['kind']!r}, which cannot"
        )
    if instead and getattr(options, "noise", None) is not None:
        raise registry.NetworkError(f"Expected no network.noise with {instead}, got both")
    return {**config, "condition": [*options.condition, NOISE_TIME]}


def _takes_time(kind: registry.Kind) -> bool:
    fields = {field.name for field in dataclasses.fields(kind.options)}
    return "condition" in fields and (kind.more_inputs or not kind.signature)


def noise_of(made: Objective, outputs: int) -> NoiseOptions:
    """The noise of a step with so many outputs: what its sampler takes, and one field more.

    A training takes the first fields alone (`Generative.taught_with`).
    """
    return NoiseOptions((made.length_scale,), made.draws() * outputs + 1)


def winds_of(made: Objective, outputs: Sequence[Channel]) -> list[tuple[int, int]]:
    """Positions in the noise of a step of the components of winds that are drawn as vectors, eastward and northward."""
    pairs = wind_pairs(outputs) if made.winds == "vectors" else []
    starts = range(0, made.draws() * len(outputs), len(outputs))
    return [(start + east, start + north) for start in starts for east, north in pairs]


def build(network: Mapping[str, Any], chosen: Mapping[str, Any], signature: Signature, grid: Grid) -> "Generative":
    """A network of any kind that `with_time` takes, under an objective, freshly initialised. Raises as `registry.build`.

    `signature`: of a step; the network sees its outputs as well, with noise.
    """
    names, outputs = tuple(registry.options(network).condition), len(signature.outputs)
    noisy = [dataclasses.replace(channel, role="noisy") for channel in signature.outputs]
    seen = dataclasses.replace(signature, inputs=(*signature.inputs, *noisy))
    told = registry.build(with_time(network), len(seen.inputs), outputs, grid, signature=seen)
    return Generative(told, outputs, objective(dict(chosen)), names)


class Generative(nn.Module):
    """Samples of what comes, given inputs and noise; in training the error of the network that makes them.

    Args:
      network: `(batch, inputs + outputs, *space)` and a condition to `(batch, outputs, *space)`.
      names: of what it is conditioned on besides the time between noise and sample.
    """

    def __init__(self, network: nn.Module, outputs: int, made: Objective, names: tuple[str, ...] = ()):
        super().__init__()
        self.network, self.outputs, self.objective, self.names = network, outputs, made, names
        self._noise = noise_of(made, outputs).count

    @property
    def taught_with(self) -> int:
        """Fields of noise that `error` takes: one for each output, and one for the level."""
        return self.outputs + 1

    def forward(self, x: Tensor, condition: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """A sample `(batch, outputs, *space)`.

        Args:
          x: `(batch, inputs, *space)`. condition: `(batch, scalar)` where there are names.
          noise: `(batch, field, *space)` of unit variance, as many fields as `noise_of` has; the last is not used.
        """
        check_condition(condition, x, self.names)
        check_noise(noise, x, self._noise)
        fields = noise[:, :-1].unflatten(1, (-1, self.outputs)).transpose(0, 1)
        return self.objective.integrate(self._told(condition), fields, x)

    def error(self, x: Tensor, target: Tensor, noise: Tensor, weights: Tensor, condition: Tensor | None) -> Tensor:
        """The error in training for every sample, `(batch,)`, of a target `(batch, outputs, *space)`, by one call.

        The rest as above, with noise of `taught_with` fields. The last gives the level: at any one place it is a standard
        normal number, since its variance is one everywhere.
        """
        check_noise(noise, x, self.taught_with)
        level = torch.special.ndtr(noise[:, -1].flatten(1)[:, 0])
        told = self._told(condition)
        return self.objective.error(told, target, x, level, noise[:, : self.outputs], weights=weights)

    def _told(self, condition):
        def told(noisy: Tensor, time: Tensor, given: Tensor) -> Tensor:
            scalars = [noise_time(time)] if condition is None else [condition, noise_time(time)]
            return self.network(torch.cat([given, noisy], 1), condition=torch.cat(scalars, 1)).float()

        return told
