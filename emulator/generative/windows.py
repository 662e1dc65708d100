"""Options of DYffusion (Cachay et al. 2023; on the sphere Cachay et al. 2024), in which several steps make a window.

A window has `horizon` steps. An interpolator tells the state at a step inside it from those at both ends, a forecaster the
state at the end from that at any step; the two are trained one after the other, each as `train.objective` of a training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from emulator.options import Options, option

INTERPOLATOR, DYFFUSION = "dyffusion_interpolator", "dyffusion"


@dataclasses.dataclass(frozen=True)
class InterpolatorOptions(Options):
    """The state between two that are `horizon` steps apart, by a network with dropout or noise."""

    kind: Literal["dyffusion_interpolator"] = option(INTERPOLATOR)
    horizon: int = option(6, "steps of a window", minimum=2)


@dataclasses.dataclass(frozen=True)
class DYffusionOptions(Options):
    """Forecasts with an interpolator that was trained before; horizon and network are then its, which nobody has to give."""

    interpolator: str = option(about="its checkpoint")
    kind: Literal["dyffusion"] = option(DYFFUSION)
    horizon: int = option(0, "steps of a window, as the interpolator was trained", minimum=0)
    pairing: float = option(
        0.0,
        "correlation of the noise of a step's two interpolations, of an interpolator with noise; the less, the farther apart "
        "members are",
        minimum=0,
        maximum=1,
    )
    network: dict[str, Any] = option({}, "the interpolator's")
    sha256: str = option("", "of the interpolator's tensors")


def windowed(objective: Mapping[str, Any]) -> InterpolatorOptions | DYffusionOptions | None:
    """The options of an objective of windows; None for any other. Raises `ValueError` for options that they do not have."""
    kinds = {INTERPOLATOR: InterpolatorOptions, DYFFUSION: DYffusionOptions}
    made = kinds.get(objective.get("kind"))
    return made and made.of(objective)


def horizon_of(objective: Mapping[str, Any]) -> int:
    """Steps of the windows of an objective; 1 for one of single steps, and where an interpolator was not asked yet."""
    found = windowed(objective)
    return max(1, found.horizon) if found else 1
