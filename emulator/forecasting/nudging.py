"""What the spectral nudging of a limited area's forecasts takes from driving data: which variables, and their states."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from emulator.data.boundary import Boundary
from emulator.forecasting.options import DrivingOptions, NudgingOptions
from emulator.model.nudging import Nudging, share_of
from emulator.model.stepper import Stepper
from emulator.store.schema import levels_at


@dataclasses.dataclass(frozen=True)
class NudgedBy:
    """How states are nudged, and the driving data over the domain."""

    nudging: Nudging
    inner: Boundary

    def at(self, inits: Sequence, moments: Sequence) -> Tensor:
        """The driving states at moments of forecasts from initial times, `(moment, nudged channel, *space)`."""
        return self.inner.at(inits, moments).unflatten(2, self.inner.frame.domain.shape)


def nudged_by(
    options: DrivingOptions | None, model: Stepper, boundary: Boundary | None, seconds: float
) -> NudgedBy | None:
    """What nudges the forecasts of a limited area, with steps of so many seconds; None where that is not asked for.

    Raises `ValueError` for a variable that the state or the boundary lacks, or has on other levels, for fields that do not
    exist everywhere, and for a length that the domain has no waves of.
    """
    if options is None or options.nudging is None or boundary is None:
        return None
    if getattr(model, "exists", None) is not None:
        raise ValueError("Expected fields that exist everywhere for rollout.boundary.nudging, got masked ones")
    asked, own = options.nudging, model.layout.prognostic
    names = _names(asked, model, boundary)
    channels = [n for name in names for n in range(own.slices[name].start, own.slices[name].stop)]
    frame = boundary.frame
    how = 1e3 * asked.length_km, share_of(asked.hours, seconds), frame.interior
    nudging = Nudging(frame.domain, channels, *how).to(model.device)
    return NudgedBy(nudging, boundary.over_domain(names))


def _names(asked: NudgingOptions, model: Stepper, boundary: Boundary) -> list[str]:
    """The variables that are nudged."""
    own, at = model.layout.prognostic.names, model.layout.at
    wanted = asked.variables or [name for name in boundary.channels.names if name in own]
    if absent := [name for name in wanted if name not in own or name not in boundary.channels.names]:
        known = [name for name in own if name in boundary.channels.names]
        raise ValueError(
            "Expected rollout.boundary.nudging of variables of both the state and its boundary, "
            f"{', '.join(known) or 'none'}, got {', '.join(absent)}"
        )
    levels = dict(zip(own, model.layout.prognostic.levels, strict=True))
    given = dict(zip(boundary.channels.names, boundary.channels.levels, strict=True))
    places = {name: (levels_at(boundary.dataset, name), at.get(name, ())) for name in wanted}

    def alike(name: str) -> bool:
        theirs, ours = places[name]
        known = bool(theirs) and bool(ours)
        return levels[name] == given[name] and (not known or np.allclose(theirs, ours, rtol=1e-3))

    if (others := [name for name in wanted if not alike(name)]) and (asked.variables or len(others) == len(wanted)):
        raise ValueError(
            f"Expected driving data on the levels of the state for rollout.boundary.nudging, {boundary.name} has other ones "
            f"of {', '.join(others)}"
        )
    return [name for name in wanted if name not in others]
