"""What budgets of air and of sea water share: cells and their areas, means over them, and the check of a state's fields."""

import torch
from torch import Tensor

from emulator.parallel.space import Space
from emulator.planet.quantities.registry import quantities
from emulator.planet.variables import VARIABLES

SHARED_SUM = 1 << 15  # numbers from which torch splits one sum over its threads
FIELD_TYPES = (torch.float32, torch.float64)

State = dict[str, Tensor]


class Cells:
    """Cells of a globe or a region.

    Attributes:
      area: shares of the whole, float64, `(*space,)`, summing to 1.
      layers: how many there are, and what their coordinate is called.
      processes: those that hold a state together; fields and areas are of this process's rows, means over all.
    """

    area: Tensor
    layers: tuple[int, str]
    processes: Space
    _copies: dict

    @property
    def space(self) -> int:
        """Number of horizontal axes."""
        return self.area.ndim

    def check_state(self, state: State, names) -> None:
        """Raise `ValueError` when one of the `names` is missing, has another shape or is not float32 or float64."""
        (count, kind), space = self.layers, tuple(self.area.shape)
        batch = None
        for name in names:
            if name not in state:
                raise ValueError(f"Expected the field {name}, which the budgets need, got {sorted(state)}")
            field = state[name]
            if field.dtype not in FIELD_TYPES:
                raise ValueError(f"Expected {name} in float32 or float64 (leave autocast first), got {field.dtype}")
            expected = (count, *space) if on_levels(name, field.ndim == self.space + 2) else space
            if tuple(field.shape[1:]) != expected:
                raise ValueError(
                    f"Expected {name} of shape (batch, {', '.join(map(str, expected))}), got {tuple(field.shape)}; the "
                    f"budgets were built for {count} {kind} levels"
                )
            batch = field.shape[0] if batch is None else batch
            if field.shape[0] != batch:
                raise ValueError(f"Expected one batch size, got {batch} and, for {name}, {field.shape[0]}")

    def mean(self, field: Tensor) -> Tensor:
        """Area mean in float64: `(..., *space)` -> `(...)`."""
        # Not a product with a matrix, whose bits would depend on the rest of the batch.
        products = field.flatten(-self.space).to(torch.float64) * self.area_of(field).flatten()
        if products.numel() == products.shape[-1] >= SHARED_SUM:
            # Threads share a sum that is alone, and each of several has one to itself: twice the same keeps the bits.
            return self.processes.total(products.expand(2, *products.shape).sum(-1)[0])
        return self.processes.total(products.sum(-1))

    def share(self, flag: Tensor) -> Tensor:
        """Area share in which a flag is set, the mean over levels: `(batch,)` float64."""
        if flag.ndim == self.space + 2:
            return self.mean(flag.sum(1, dtype=torch.int8 if flag.shape[1] < 128 else torch.int32)) / flag.shape[1]
        return self.mean(flag)

    def existing(self, field: Tensor) -> Tensor:
        """A field with 0 where there is nothing to count; itself where there is something everywhere."""
        return field

    def mean_by_level(self, field: Tensor) -> Tensor:
        """Area means in float64, for broadcasting: `(batch, level, *space)` -> `(batch, level, 1, ...)`, or no level."""
        means = self.mean(field)
        return means.reshape(means.shape + (1,) * self.space)

    def area_of(self, field: Tensor) -> Tensor:
        """`area` on the device of a field, float64 `(*space,)`."""
        return self._copy("area", torch.float64, field.device)

    def spread(self, values: Tensor, levels: bool) -> Tensor:
        """`(batch,)` with the axes of a level or surface field appended, for broadcasting."""
        return values.reshape(values.shape + (1,) * (self.space + levels))

    def _copy(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A constant in the type and on the device of the fields it meets, kept for the next time."""
        key = (name, dtype, device)
        if key not in self._copies:
            self._copies[key] = self._constant(name, dtype).to(device, dtype).contiguous()
        return self._copies[key]

    def _constant(self, name: str, dtype: torch.dtype) -> Tensor:
        """What `_copy` copies; `dtype` is that of the copy."""
        return getattr(self, name)


def on_levels(name: str, otherwise: bool = False) -> bool:
    """Whether a field has levels, by the variable table; outside it what a quantity consists of has, or `otherwise`."""
    if name in VARIABLES:
        return VARIABLES[name].levels
    return otherwise or any(name in quantity.state for quantity in quantities().values())
