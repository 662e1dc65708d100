"""Surface fluxes that answer the surface which a forecast of an ocean has, in place of prescribed ones that do not.

Fluxes of a store belong to the surface that the store has. A forecast whose surface has become warmer would lose more heat
than that, and is given the same, so that nothing holds its surface where it was. Restoring (Haney 1971, J. Phys. Oceanogr. 1,
241) gives it the store's flux and what the departure of its surface from the store's at the start of the step adds:

    F = F_store + m_1 (c(store) - c(forecast)) / tau

with the content c of the uppermost layer per kilogram, heat or salt, its mass m_1 per area and a time tau. Under the true
surface F is the true flux. Network, conservation scheme and audit all have F.
"""

import dataclasses

import torch
from torch import Tensor

from emulator.model.stepper import Stepper, StepResult, Wrapped, newest
from emulator.planet.constants import Constants
from emulator.planet.quantities.registry import Quantity


@dataclasses.dataclass(frozen=True)
class Answer:
    """How one flux answers.

    Attributes:
      quantity: of the sea, whose content and flux these are. at: the uppermost level's channel of the state.
      given: the flux's channel of the forcing. rate: mass of the uppermost layer over the restoring time, kg m-2 s-1.
    """

    quantity: Quantity
    at: int
    given: int
    rate: float

    @property
    def field(self) -> str:
        return self.quantity.state[0]

    @property
    def flux(self) -> str:
        return next(iter(self.quantity.fluxes))


@dataclasses.dataclass(frozen=True)
class Restoring:
    """Fluxes by the departure of the surface.

    Attributes:
      answers: of every flux. constants: of the data. wet: where there is water at the surface, bool, `(*space,)`.
    """

    answers: tuple[Answer, ...]
    constants: Constants
    wet: Tensor

    def __call__(self, state: Tensor, forcing: Tensor, surface: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The forcing with fluxes that answer, and these by name.

        Args:
          state: at the start of the step, `(batch, channel, *space)`. forcing: of the step, `(batch, channel, *space)`.
          surface: the store's at the start of the step, `(batch, answer, *space)`; where it is missing nothing answers.
        """
        forcing, fluxes = forcing.clone(), {}
        for answer, wanted in zip(self.answers, surface.unbind(1), strict=True):
            content = [self._content(answer, field) for field in (wanted, state[:, answer.at])]
            added = answer.rate * (content[0] - content[1])
            forcing[:, answer.given] += torch.where(self.wet & wanted.isfinite(), added, 0.0).to(forcing.dtype)
            fluxes[answer.flux] = torch.where(self.wet, forcing[:, answer.given], torch.nan)
        return forcing, fluxes

    def _content(self, answer: Answer, field: Tensor) -> Tensor:
        return answer.quantity.content({answer.field: field.double()}, self.constants)


class Restored(Wrapped):
    """A stepper whose surface fluxes answer its surface; its results have them as `beside`."""

    def __init__(self, stepper: Stepper, restoring: Restoring):
        super().__init__(stepper)
        self.restoring = restoring

    def __call__(
        self,
        state: Tensor,
        forcing: Tensor,
        clock: Tensor,
        anchor=None,
        noise: Tensor | None = None,
        *,
        surface: Tensor,
        **more,
    ) -> StepResult:
        """A step; `surface`: what the store has at its start, `(batch, answer, *space)`."""
        forcing, fluxes = self.restoring(newest(state, self.layout), forcing, surface)
        result = self.stepper(state, forcing, clock, anchor, noise, **more)
        return dataclasses.replace(result, beside=result.beside | fluxes)
