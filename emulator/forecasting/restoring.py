"""What surface fluxes that answer the forecast surface take from a store: which, how strongly, and the store's surface."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.data.channels import Channels, Layout
from emulator.data.forcing import Forcing
from emulator.forecasting.options import RestoringOptions
from emulator.model.restoring import Answer, Restoring
from emulator.model.stepper import Stepper
from emulator.parallel.host_copies import to_device
from emulator.planet.quantities.registry import quantities
from emulator.store.masks import domain_of
from emulator.store.schema import constants_of, grid_of

_EMPTY = Channels((), ())
BOUNDS = "depth_bounds"


@dataclasses.dataclass(frozen=True)
class RestoredTo:
    """How fluxes answer, and the store's surface."""

    restoring: Restoring
    surface: Forcing

    @property
    def fluxes(self) -> tuple[str, ...]:
        return tuple(answer.flux for answer in self.restoring.answers)

    def at(self, times: Sequence) -> Tensor:
        """The store's surface at the starts of steps, `(time, answer, *space)`; beyond the store that of the season."""
        return self.surface.inputs(times).forcing


def restored_to(
    options: RestoringOptions | None, models: Sequence[Stepper], dataset: xr.Dataset, length: int = 1
) -> RestoredTo | None:
    """What the fluxes of forecasts from a store answer, with steps of so many of its own; None where that is not asked for.

    Args:
      models: that take turns, those of cascades one by one.
    Raises `ValueError` for models without a sea's heat or salt and its flux as forcing, for a store without the thickness of
    its layers, and for a restoring time that is not above a step's length.
    """
    if options is None:
        return None
    known = {flux: q for q in quantities().values() if q.medium == "sea" for flux in q.fluxes if len(q.fluxes) == 1}
    layout, device = models[0].layout, models[0].device
    found = [flux for flux in known if flux in layout.forcing.names and known[flux].state[0] in layout.prognostic.names]
    wanted = list(dict.fromkeys(found if options.fluxes is None else options.fluxes))
    if not wanted or (absent := [flux for flux in wanted if flux not in found]):
        raise ValueError(
            "Expected rollout.restoring of fluxes that are forcing of a network which predicts what they bring, "
            f"{', '.join(found) or 'of which there are none'}, got {', '.join(absent) if wanted else 'none'}"
        )
    if any(model.layout != layout or getattr(model, "horizon", 1) > 1 for model in models):
        raise ValueError(
            "Expected models with the same fields that step by themselves for rollout.restoring, got others"
        )
    moments = dict(zip(layout.forcing.names, layout.moments, strict=True))
    if others := [flux for flux in wanted if moments[flux] != "end"]:
        raise ValueError(
            f"Expected fluxes that are means over a step for rollout.restoring, got other moments of {others[0]}"
        )
    if BOUNDS not in dataset:
        raise ValueError(f"Expected a store with {BOUNDS}, the thickness of layers, for rollout.restoring, got none")
    upper = int(np.argmin(dataset["depth"].values))
    fields = [known[flux].state[0] for flux in wanted]
    surface = dataset.isel(depth=slice(upper, upper + 1))
    channels = Channels.of(surface, fields)
    forcing = Forcing(surface, Layout(_EMPTY, _EMPTY, channels, _EMPTY, ("start",) * len(fields)), length)
    if not options.days * 86400 > forcing.step_seconds:
        raise ValueError(
            f"Expected rollout.restoring.days above the length of a step, {forcing.step_seconds / 86400:g} days, got "
            f"{options.days:g}"
        )
    constants = constants_of(dataset)
    thickness = float(np.abs(np.diff(dataset[BOUNDS].values[upper])).item())
    rate = constants.sea_water_density * thickness / (86400 * options.days)
    exists = domain_of(dataset, fields[0])
    wet = np.ones(grid_of(dataset).shape, bool) if exists is None else exists if exists.ndim == 2 else exists[upper]
    given, states = layout.given.slices, layout.prognostic.slices
    answers = tuple(
        Answer(known[flux], states[field].start + upper, given[flux].start, rate)
        for flux, field in zip(wanted, fields, strict=True)
    )
    wet = to_device(torch.from_numpy(wet.copy()), device)
    return RestoredTo(Restoring(answers, constants, wet), forcing)
