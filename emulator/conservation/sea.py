"""What budgets of a sea need to know: cells, the mass of water in each, constants and the length of a step.

Water lies in cells of constant volume and of one density (Boussinesq), so that contents are linear in the fields. A mean is
one over the sea's surface. The vertical coordinate is mass from the surface down, which is a pressure but for gravity: what
is written for layers of air, the projection too, holds for layers of water.

Fields are as an atmosphere's, `(batch, level, *space)`; what they are in land and in the sea floor does not count, and no
correction changes it.
"""

import base64
import dataclasses

import numpy as np
import torch
from torch import Tensor

from emulator.conservation.cells import Cells, State
from emulator.parallel.space import ALONE, Space
from emulator.planet.constants import Constants

AREA_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Sea(Cells):
    """The geometry and physics of one ocean's budgets.

    Attributes:
      area: share of the sea's surface of every cell, float64, `(*space,)`, summing to 1, and 0 on land.
      depths: thickness of the layers from the surface down, m, float64, `(level,)`.
      wet: which cells hold water, bool, `(level, *space)`; those of the first layer are the surface.
      constants: the constants of the model that made the data.
      step_seconds: length of a step, from the time axis.
      processes: those that hold a state together, as of an `Atmosphere`.
    """

    area: Tensor
    depths: Tensor
    wet: Tensor
    constants: Constants
    step_seconds: float
    processes: Space = ALONE
    has_surface_pressure = open_sides = False
    _copies: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if tuple(self.wet.shape) != (len(self.depths), *self.area.shape):
            raise ValueError(
                f"Expected the sea's cells as {(len(self.depths), *self.area.shape)}, got {tuple(self.wet.shape)}"
            )
        if not bool((self.depths > 0).all()):
            raise ValueError(f"Expected layers of positive thickness, got {self.depths.tolist()} m")
        total = float(self.processes.total(self.area.sum()))
        if (
            not abs(total - 1) < AREA_TOLERANCE
            or bool((self.area < 0).any())
            or bool((self.area > 0)[~self.wet[0]].any())
        ):
            raise ValueError(f"Expected shares of the sea's surface that sum to 1, and none on land, got {total!r}")
        if bool((self.wet & ~self.wet[0]).any()):
            raise ValueError("Expected sea at the surface above all water, got land above some")
        if not self.step_seconds > 0:
            raise ValueError(f"Expected a positive step in seconds, got {self.step_seconds!r}")

    @classmethod
    def of(
        cls, cells: np.ndarray, thickness: np.ndarray, wet: np.ndarray, constants: Constants, seconds: float
    ) -> "Sea":
        """From the areas of all cells `(*space,)`, in any unit, and the rest as arrays. Raises `ValueError` for no sea."""
        area = torch.from_numpy(np.where(wet[0], cells, 0.0))
        if not float(area.sum()) > 0:
            raise ValueError("Expected water at the surface, got none")
        depths = torch.as_tensor(np.asarray(thickness, np.float64))
        return cls(area / area.sum(), depths, torch.from_numpy(np.array(wet, bool)), constants, seconds)

    def to_json(self) -> dict:
        """What a checkpoint keeps besides the grid, the constants and the step; of a sea that is whole."""
        packed = np.packbits(self.wet.numpy()).tobytes()
        return {"thickness": self.depths.tolist(), "wet": base64.b64encode(packed).decode()}

    @classmethod
    def from_json(cls, values: dict, cells: np.ndarray, constants: Constants, seconds: float) -> "Sea":
        """The sea of a checkpoint, on a grid with some areas `(*space,)`."""
        shape = (len(values["thickness"]), *cells.shape)
        bits = np.frombuffer(base64.b64decode(values["wet"]), np.uint8)
        wet = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        return cls.of(cells, values["thickness"], wet, constants, seconds)

    @property
    def layers(self) -> tuple[int, str]:
        return len(self.depths), "depth"

    def cut(self, processes: Space) -> "Sea":
        """What this process has of a whole sea."""
        if processes.size == 1:
            return self
        own = {name: processes.cut(getattr(self, name)) for name in ("area", "wet")}
        return dataclasses.replace(self, **own, processes=processes)

    def surface_pressure(self, state: State) -> None:
        """None: no field tells how much water there is."""

    def existing(self, field: Tensor) -> Tensor:
        """A field `(batch, [level,] *space)`, 0 in land and sea floor, whatever it is there."""
        wet = self._copy("wet", torch.bool, field.device)
        return torch.where(wet if field.ndim == self.space + 2 else wet[0], field, 0.0)

    def thickness(self, pressure: None, like: Tensor) -> Tensor:
        """Weight of a layer of water, Pa, 0 where there is none: `(1, level, *space)`."""
        return self._copy("weights", like.dtype, like.device)

    def integral(self, content: Tensor, pressure: None) -> Tensor:
        """`rho sum_k x_k h_k` of an amount per kilogram: `(batch, level, *space)` -> `(batch, *space)`."""
        return (content * self.thickness(None, content)).sum(1) / self.constants.gravity

    def integral_change(self, change: Tensor, middle: Tensor, before: None, after: None) -> Tensor:
        """The same of the change of a content; there is as much water at the end of a step as at its start."""
        return self.integral(change, None)

    def mean_square(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean of `(x - y)^2` over the water, or the surface: `(batch,)` float64, without gradients."""
        squares = (x.detach() - y.detach()).to(torch.float64) ** 2
        if x.ndim == self.space + 1:
            return self.mean(squares)
        return self.mean(self.integral(squares, None)) / self.mean(self.integral(torch.ones_like(squares[:1]), None))

    def mean_by_layer(self, field: Tensor | None, state: State, where: Tensor | None, like: Tensor) -> Tensor:
        """Means over the surface of `x_k dp_k`, or of `dp_k` alone, as of an `Atmosphere`: `(batch, level)` float64."""
        layers = self.thickness(None, like)
        layers = layers if field is None else layers * field
        return self.mean((layers if where is None else layers * (where >= 0)).expand_as(like))

    def _constant(self, name: str, dtype: torch.dtype) -> Tensor:
        if name != "weights":
            return getattr(self, name)
        column = self.constants.gravity * self.constants.sea_water_density * self.depths
        return (column.view(-1, *(1,) * self.space) * self.wet).unsqueeze(0)
