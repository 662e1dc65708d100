"""What every budget needs to know: cell areas, levels, constants, orography and the length of a step.

Fields are tensors in SI units: level fields `(batch, level, *space)`, surface fields `(batch, *space)`, `*space` being
`(latitude, longitude)` or `(cell,)`. Column sums are formed in the fields' own precision, and of differences wherever
two large numbers would cancel; sums over the sphere are always float64. Constants follow the fields' device.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from emulator.conservation.cells import Cells, State
from emulator.kernels import columns as native
from emulator.kernels import library
from emulator.parallel.space import ALONE, Space
from emulator.planet.constants import Constants
from emulator.planet.vertical import Levels

AREA_TOLERANCE = 1e-9


class VerticalGeometry:
    """Layers and column integrals of an `Atmosphere`, which has the levels, the constants and `coefficients`."""

    def surface_pressure(self, state: State) -> Tensor | None:
        return state["surface_pressure"] if self.has_surface_pressure else None

    def interfaces(self, pressure: Tensor | None, like: Tensor) -> Tensor:
        """Interface pressures, Pa, `(batch or 1, level + 1, *space or 1)`; on pressure levels cut at the surface."""
        half = self.coefficients("half_a", like)
        if pressure is None:
            return half
        if self.levels.kind != "pressure":
            return half + self.coefficients("half_b", like) * pressure.unsqueeze(1)
        ground = pressure.unsqueeze(1).clamp(min=float(self.levels.half_a[0]))
        upper = torch.minimum(half[:, :-1], ground)
        return torch.cat([upper, ground], dim=1)

    def thickness(self, pressure: Tensor | None, like: Tensor) -> Tensor:
        """Layer thickness in pressure, Pa, `(batch or 1, level, *space or 1)`."""
        if pressure is not None and self.levels.kind != "pressure":
            scaled = self.coefficients("layer_b", like) * pressure.unsqueeze(1)
            return scaled if self.levels.kind == "sigma" else scaled + self.coefficients("layer_a", like)
        return _steps_of(self.interfaces(pressure, like))

    def growth(self, pressure: Tensor | None, like: Tensor) -> Tensor:
        """Derivative of `thickness` by surface pressure, 1, `(batch or 1, level, *space or 1)`."""
        if self.levels.kind != "pressure":
            return self.coefficients("layer_b", like)
        if pressure is None:
            return torch.zeros_like(self.coefficients("layer_b", like))
        return _steps_of(self.interface_growth(pressure, like))

    def interface_growth(self, pressure: Tensor, like: Tensor) -> Tensor:
        """Derivative of `interfaces` by surface pressure, 1, `(batch or 1, level + 1, *space or 1)`."""
        if self.levels.kind != "pressure":
            return self.coefficients("half_b", like)
        half = self.coefficients("half_a", like)
        ground = pressure.unsqueeze(1)
        cut = torch.cat([half[:, 1:-1] > ground, torch.ones_like(ground, dtype=torch.bool)], dim=1)
        above_top = ground > half[:, :1]
        inner = (cut & above_top).to(like.dtype)
        return torch.cat([torch.zeros_like(inner[:, :1]), inner], dim=1)

    def thickness_change(self, before: Tensor | None, after: Tensor | None, like: Tensor) -> Tensor | None:
        """Change of `thickness` in Pa, formed from the change of surface pressure; None where there is none."""
        if after is None:
            return None
        if self.levels.kind != "pressure":
            return self.growth(after, like) * (after - before).unsqueeze(1)
        # Differences of interfaces are exact in floating point where nearby numbers are subtracted.
        return _steps_of(self.interfaces(after, like) - self.interfaces(before, like))

    def integral(self, content: Tensor, pressure: Tensor | None) -> Tensor:
        """Column integral `(1/g) sum_k x_k dp_k` of a specific quantity: `(batch, level, *space)` -> `(batch, *space)`."""
        return (content * self.thickness(pressure, content)).sum(1) / self.constants.gravity

    def integral_change(self, change: Tensor, middle: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        """Change of a column integral from the change of the content and its mean over the step, without cancellation.

        `x1 dp1 - x0 dp0 = (x1 - x0) (dp1 + dp0) / 2 + (x1 + x0) / 2 (dp1 - dp0)` exactly, and the terms on the right
        carry the rounding of the differences alone: `(batch, level, *space)` twice -> `(batch, *space)`.
        """
        if after is None:
            return (change * self.thickness(None, change)).sum(1) / self.constants.gravity
        if self.levels.kind == "pressure":
            thickness = (self.thickness(before, change) + self.thickness(after, change)) / 2
        else:
            thickness = self.thickness(torch.lerp(before, after, 0.5), change)
        moved = self.thickness_change(before, after, change)
        return torch.addcmul(change * thickness, middle, moved).sum(1) / self.constants.gravity

    def column_pressure(self, pressure: Tensor | None, like: Tensor) -> Tensor:
        """Pressure difference between the bottom and the top of the columns, Pa, float64, `(batch or 1, *space or 1)`."""
        half_a, half_b = self.levels.half_a, self.levels.half_b
        if pressure is None:
            return like.new_full((1,) * (self.space + 1), float(half_a[-1] - half_a[0]), dtype=torch.float64)
        exact = pressure.to(torch.float64)
        if self.levels.kind == "pressure":
            return (exact - float(half_a[0])).clamp(min=0)
        return exact * float(half_b[-1] - half_b[0]) + float(half_a[-1] - half_a[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Atmosphere(VerticalGeometry, Cells):
    """The geometry and physics of one model's budgets.

    Attributes:
      area: share of the sphere of every cell, float64, `(*space,)`, summing to 1.
      levels: vertical coordinate, from the top down.
      constants: the constants of the model that made the data.
      geopotential_at_surface: m2 s-2, `(*space,)`, or None, which counts as flat ground.
      step_seconds: length of a step, from the time axis.
      has_surface_pressure: whether states hold `surface_pressure`. Without it, which only pressure levels allow, columns
        run from the first to the last level.
      latitude: of every cell, degrees north, `(*space,)`; only latitude bands ask for it.
      processes: those that hold a state together. All fields, areas too, are then of this process's rows; means are over the
        globe, the same bits on each.
      open_sides: whether it is that of a domain, whose cells' areas are shares of its own, and what leaves by its sides is
        given at every step.
    """

    area: Tensor
    levels: Levels
    constants: Constants
    geopotential_at_surface: Tensor | None
    step_seconds: float
    has_surface_pressure: bool = True
    latitude: Tensor | None = None
    processes: Space = ALONE
    open_sides: bool = False
    _copies: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if self.area.dtype != torch.float64:
            raise ValueError(f"Expected cell areas in float64, got {self.area.dtype}")
        total = float(self.processes.total(self.area.sum()))
        if not abs(total - 1) < AREA_TOLERANCE or not bool((self.area > 0).all()):
            raise ValueError(f"Expected positive cell areas summing to 1, got a sum of {total!r}")
        if not self.step_seconds > 0:
            raise ValueError(f"Expected a positive step in seconds, got {self.step_seconds!r}")
        if not self.has_surface_pressure and self.levels.kind != "pressure":
            raise ValueError(
                f"Expected surface_pressure among the variables: {self.levels.kind} levels have no columns without it"
            )
        for name in ("geopotential_at_surface", "latitude"):
            field = getattr(self, name)
            if field is not None and field.shape != self.area.shape:
                raise ValueError(
                    f"Expected {name} of the grid's shape {tuple(self.area.shape)}, got {tuple(field.shape)}"
                )

    @property
    def layers(self) -> tuple[int, str]:
        return len(self.levels), self.levels.kind

    def cut(self, processes: Space) -> "Atmosphere":
        """What this process has of a whole globe's atmosphere."""
        if processes.size == 1:
            return self
        fields = {name: getattr(self, name) for name in ("area", "geopotential_at_surface", "latitude")}
        own = {name: field if field is None else processes.cut(field) for name, field in fields.items()}
        return dataclasses.replace(self, **own, processes=processes)

    def mean_square(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean of `(x - y)^2` over the sphere and the levels, if any: `(batch,)` float64, without gradients."""
        levels = x.shape[1] if x.ndim == self.space + 2 else 1
        if library.takes(x, y):
            return self.processes.total(native.departure(x, y, self.area_of(x), levels))
        squares = self.mean((x.detach() - y.detach()) ** 2)
        return squares.mean(1) if squares.ndim > 1 else squares

    def mean_by_level(self, field: Tensor) -> Tensor:
        if field.ndim != self.space + 2 or not library.takes(field):
            return super().mean_by_level(field)
        means = self.processes.total(_LevelMeans.apply(field, self))
        return means.reshape(means.shape + (1,) * self.space)

    def mean_by_layer(self, field: Tensor | None, state: State, where: Tensor | None, like: Tensor) -> Tensor:
        """Area means of `x_k dp_k`, or of `dp_k` alone, over the cells in which `where` is not negative, if it is given.

        `(batch, level, *space)` of the shape of `like` -> `(batch, level)` float64, without gradients.
        """
        pressure = self.surface_pressure(state)
        if library.takes(field, pressure, where, like):
            return self.processes.total(self.column_integrals().by_layer(field, pressure, len(like), where))
        layers = self.thickness(pressure, like)
        layers = layers if field is None else layers * field
        return self.mean((layers if where is None else layers * (where >= 0)).expand_as(like))

    def totals(self, sums: np.ndarray) -> np.ndarray:
        """Sums over the globe of what compiled kernels have summed over this process's rows, float64."""
        return sums if self.processes.size == 1 else self.processes.total(torch.from_numpy(sums)).numpy()

    def unit_layers(self) -> native.ColumnIntegrals:
        """Layers of thickness 1 for compiled means, level by level."""
        if "unit layers" not in self._copies:
            half = np.arange(len(self.levels) + 1.0)
            area = self.area.cpu().numpy().ravel()
            self._copies["unit layers"] = native.ColumnIntegrals((half, 0 * half), False, area, None, (0, 0, 0, 1))
        return self._copies["unit layers"]

    def column_integrals(self, heat_capacity=0.0, latent_heat=0.0, moist=0.0) -> native.ColumnIntegrals:
        """The atmosphere for compiled column integrals of `cp T + L q + s q T`, made once for each."""
        key = (heat_capacity, latent_heat, moist)
        if key not in self._copies:
            orography = self.geopotential_at_surface
            self._copies[key] = native.ColumnIntegrals(
                (self.levels.half_a, self.levels.half_b),
                self.levels.kind == "pressure" and self.has_surface_pressure,
                self.area.cpu().numpy().ravel(),
                None if orography is None else orography.cpu().numpy().ravel(),
                (heat_capacity, latent_heat, moist, 1 / self.constants.gravity),
            )
        return self._copies[key]

    def coefficients(self, name: str, like: Tensor) -> Tensor:
        """Coefficients of the interfaces ("half_a", "half_b") or of the layers between ("layer_a", "layer_b").

        `(1, level + 1 or level, 1, ...)` of the type and device of `like`, made once for each.
        """
        return self._copy(name, like.dtype, like.device)

    def orography(self, like: Tensor) -> Tensor | None:
        """`geopotential_at_surface` in the type and on the device of `like`."""
        if self.geopotential_at_surface is None:
            return None
        return self._copy("geopotential_at_surface", like.dtype, like.device)

    def _constant(self, name: str, dtype: torch.dtype) -> Tensor:
        if hasattr(self, name):
            return getattr(self, name)
        values = getattr(self.levels, name.replace("layer", "half"))
        values = np.diff(values) if name.startswith("layer") else values
        return torch.as_tensor(values, dtype=dtype).reshape(1, -1, *(1,) * self.space)


class _LevelMeans(torch.autograd.Function):
    """Area means of a level field, `(batch, level)` float64, in one pass."""

    @staticmethod
    def forward(ctx, field, atmosphere):
        ctx.atmosphere, ctx.shape = atmosphere, field.shape
        return atmosphere.unit_layers().by_layer(field, None, len(field))

    @staticmethod
    def backward(ctx, g):
        area = ctx.atmosphere.area.to(torch.float32).flatten()
        return (g.to(torch.float32).unsqueeze(-1) * area).reshape(ctx.shape), None


def _steps_of(field: Tensor) -> Tensor:
    return field[:, 1:] - field[:, :-1]
