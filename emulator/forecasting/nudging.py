"""What the spectral nudging of a limited area's forecasts takes from driving data: which variables, and their states."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.data.border import same_levels
from emulator.data.boundary import Boundary
from emulator.data.driving_fields import DrivingFields
from emulator.forecasting.options import DrivingOptions, NudgingOptions
from emulator.model.nudging import Nudging, share_of
from emulator.model.stepper import Stepper
from emulator.networks.vectors import is_component
from emulator.store.schema import levels_at

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NudgedBy:
    """How states are nudged, and the driving data over the domain, of its shape."""

    nudging: Nudging
    fields: DrivingFields
    shape: tuple[int, ...]

    def at(self, inits: Sequence, moments: Sequence) -> Tensor:
        """The driving states at moments of forecasts from initial times, `(moment, nudged channel, *space)`."""
        states = [self.fields.at(init, moment) for init, moment in zip(inits, moments, strict=True)]
        return torch.from_numpy(np.stack(states)).unflatten(2, self.shape)


def nudged_by(
    options: DrivingOptions | None, models: Sequence[Stepper], boundary: Boundary | None, seconds: float, init
) -> NudgedBy | None:
    """What nudges the forecasts of a limited area, with steps of so many seconds; None where that is not asked for.

    Args:
      models: that take turns, those of cascades one by one. init: the first initial time, whose driving state is read.
    Raises `ValueError` as `nudged_variables` does, for fields that do not exist everywhere, closed budgets, driving data that
    lack values inside the domain, and a length that the domain has no waves of.
    """
    if options is None or options.nudging is None or boundary is None:
        return None
    for number, model in enumerate(models, 1):
        if getattr(model, "exists", None) is not None:
            of = f" of model {number}" if len(models) > 1 else ""
            raise ValueError(f"Expected fields that exist everywhere for rollout.boundary.nudging, got masked ones{of}")
        if getattr(model, "scheme", None) is not None:
            raise ValueError(
                "Expected no nudging with conservation, whose closed budgets it would open again, got both"
            )
    asked, model, frame = options.nudging, models[0], boundary.frame
    names, own = nudged_variables(asked, model, boundary), model.layout.prognostic
    if others := [name for name in boundary.channels.names if name in own.names and name not in names]:
        log.info("nudging draws %s and leaves %s", ", ".join(names), ", ".join(others))
    channels = [n for name in names for n in range(own.slices[name].start, own.slices[name].stop)]
    how = 1e3 * asked.length_km, share_of(asked.hours, seconds), frame.interior
    nudging = Nudging(frame.domain, channels, *how).to(model.device)
    fields = boundary.over_domain(names)
    fields.at(init, init)
    return NudgedBy(nudging, fields, frame.domain.shape)


def nudged_variables(asked: NudgingOptions, model: Stepper, boundary: Boundary) -> list[str]:
    """The variables that are nudged: those asked for, or those of the boundary that the state has on the same levels.

    Raises `ValueError` for one asked for that the state or the boundary lacks, or has on other levels, for none at all, and
    for winds that nobody asked for on another map than that of the driving data, since they may be along its x and y.
    """
    own, at = model.layout.prognostic.names, model.layout.at
    known = [name for name in boundary.channels.names if name in own]
    wanted = list(asked.variables or known)
    if not wanted or (absent := [name for name in wanted if name not in known]):
        raise ValueError(
            "Expected rollout.boundary.nudging of variables of both the state and its boundary, "
            f"{', '.join(known) or 'of which there are none'}, got {', '.join(absent) if wanted else 'none'}"
        )
    winds = [name for name in wanted if is_component(name)]
    if winds and not asked.variables and boundary.frame.domain.mapping != boundary.grid.mapping:
        raise ValueError(
            "Expected rollout.boundary.nudging.variables for winds on another map than that of the driving data, since they "
            f"may be along its x and y: all that are to be nudged, {', '.join(winds)} only if they are along east and north "
            "in both stores"
        )
    levels = dict(zip(own, model.layout.prognostic.levels, strict=True))
    given = dict(zip(boundary.channels.names, boundary.channels.levels, strict=True))

    def is_alike(name: str) -> bool:
        places = levels_at(boundary.dataset, name), at.get(name) or ()
        return levels[name] == given[name] and same_levels(*places)

    others = [name for name in wanted if not is_alike(name)]
    if others and (asked.variables or len(others) == len(wanted)):
        raise ValueError(
            f"Expected driving data on the levels of the state for rollout.boundary.nudging, {boundary.name} has other ones "
            f"of {', '.join(others)}"
        )
    return [name for name in wanted if name not in others]
