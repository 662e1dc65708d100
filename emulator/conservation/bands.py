"""Budgets closed band by band: for each budget that has the divergence of its transport as a field.

A band exchanges mass with its neighbours, so its budget closes only with the transport: water has it where the data hold
the vertically integrated moisture divergence D. The band's residual is the mean over it of `columns + dt (D - <D>)`, whose
sum over all bands is the global residual. Budgets without such a field are closed over the globe.
"""

import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.budgets import Budget


class Bands:
    """Constraints of a projection with latitude bands.

    Args:
      edges: latitudes between the bands, degrees north, increasing.
      atmosphere: with the latitude of every cell.
      budgets: those that are closed, and `variables`: names of all fields of the states.

    Raises `ValueError` where no budget has the divergence of its transport among the variables, or a band no cell.

    Attributes:
      masks: cells of each constraint, float64, `(constraint, *space)`: a band's, or all.
      owner: index of the budget that each constraint belongs to.
    """

    def __init__(self, edges: tuple[float, ...], atmosphere: Atmosphere, budgets: list[Budget], variables):
        if atmosphere.latitude is None:
            raise ValueError("Expected the latitude of every cell to close budgets in latitude bands, got none")
        self.atmosphere, self.budgets = atmosphere, budgets
        latitude = atmosphere.latitude.to(torch.float64).contiguous()
        numbers = torch.bucketize(latitude, torch.tensor(edges, dtype=torch.float64))
        separate = torch.stack([numbers == number for number in range(len(edges) + 1)]).to(torch.float64)
        if not bool(atmosphere.processes.highest(separate.flatten(1).amax(1)).all()):
            raise ValueError(f"Expected cells of the grid in every latitude band, got the edges {list(edges)}")
        whole = torch.ones_like(separate[:1])
        masks, self.owner, self.divergences = [], [], []
        for index, budget in enumerate(budgets):
            name = getattr(budget, "divergence", None)
            name = name if name in variables else None
            masks.append(whole if name is None else separate)
            self.owner += [index] * len(masks[-1])
            self.divergences.append(name)
        if not any(self.divergences):
            raise ValueError(
                "Expected the divergence of a budget's transport among the variables to close latitude bands "
                f"({fluxes.DIVERGENCE} for the budget water), got none"
            )
        self.masks = torch.cat(masks)
        self._copies: dict[tuple[str, torch.device], Tensor] = {}
        self.shares = atmosphere.processes.total((self.masks * atmosphere.area).flatten(1).sum(1))
        self.owners = torch.tensor(self.owner)

    def _on(self, like: Tensor, name: str = "masks") -> Tensor:
        """The masks or another tensor on the device of `like`, copied once."""
        key = name, like.device
        if key not in self._copies:
            self._copies[key] = getattr(self, name).to(like.device)
        return self._copies[key]

    def scales(self, scales: Tensor) -> Tensor:
        """Amounts that the constraints' residuals are compared with: `(batch, budget)` -> `(batch, constraint)`."""
        return scales.index_select(1, self._on(scales, "owners")) * self._on(scales, "shares")

    def fields(self, multipliers: Tensor) -> Tensor:
        """The budgets' multipliers in every cell: `(batch, constraint)` -> `(batch, budget, *space)`."""
        counts = [self.owner.count(index) for index in range(len(self.budgets))]  # a budget's constraints lie together
        parts = zip(multipliers.split(counts, 1), self._on(multipliers).split(counts), strict=True)
        return torch.stack([torch.tensordot(own, masks, dims=1) for own, masks in parts], dim=1)

    def expand(self, gradients: Tensor, levels: bool) -> Tensor:
        """Budgets' derivatives as the constraints': `(batch, budget, [level,] *space)` -> `(batch, constraint, ...)`."""
        masks = self._on(gradients)
        return gradients.index_select(1, self._on(gradients, "owners")) * (masks.unsqueeze(1) if levels else masks)

    def residuals(self, values: list[Tensor], state0: State, state1: State) -> Tensor:
        """Residuals of all constraints, `(batch, constraint)`, from the budgets' global ones, `(batch,)` each."""
        result = []
        air, masks = self.atmosphere, self._on(values[0])
        for index, (budget, name) in enumerate(zip(self.budgets, self.divergences, strict=True)):
            if name is None:
                result.append(values[index])
                continue
            divergence = state1[name].to(torch.float64)
            divergence = divergence - air.spread(air.mean(divergence), False)
            columns = budget.columns(state0, state1) + air.step_seconds * divergence
            result += [
                air.mean(columns * mask) for mask, owner in zip(masks, self.owner, strict=True) if owner == index
            ]
        return torch.stack(result, dim=1)
