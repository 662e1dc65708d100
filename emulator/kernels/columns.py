"""Column integrals of several contents in one pass over the fields, and what else a correction does to whole fields."""

import numpy as np
import torch
from torch import Tensor

from emulator.kernels import library
from emulator.kernels.compiled import Layout

BLOCK = Layout.BLOCK  # cells whose sums are kept apart
_WINDS = ("east", "north")
_FIELDS = ("pressure", "temperature", *_WINDS, "vapour", "liquid", "ice")
_GRADIENTS = ("pressure", "temperature", *_WINDS, "vapour", "condensed")

_Columns = library.task(
    "columns",
    " ".join(
        (*_FIELDS, "half_a half_b area orography numbers sums slopes g_sums g_slopes", *(f"g_{x}" for x in _GRADIENTS))
    ),
    "levels cut by_layer",
    " ".join(("batch cells", *(f"{x}_step" for x in _FIELDS))),
    library.ENDS,
)
_Dither = library.task(
    "dither", "x increment pattern to", "everywhere", "batch levels cells x_step increment_step increment_level"
)
_Departure = library.task("departure", "x y area sums", "levels", "batch cells x_step y_step", library.ENDS)


class ColumnIntegrals:
    """What column integrals need of a planet and its budgets.

    Args:
      half: coefficients of the interfaces in Pa and 1, `(level + 1,)` each.
      cut: whether layers end at the ground, as on pressure levels below a surface pressure.
      area: shares of the sphere, `(cell,)`; orography: surface geopotential in m2 s-2, `(cell,)`, or None.
      numbers: cp, L and s of the energy per kilogram `cp T + L q + s q T + (u^2 + v^2) / 2`, and 1 / gravity.
    """

    def __init__(self, half, cut: bool, area, orography, numbers):
        orography = np.zeros(len(area)) if orography is None else orography
        arrays = (*half, area, orography, numbers)
        self._arrays = [np.ascontiguousarray(values, np.float64) for values in arrays]
        names = ("half_a", "half_b", "area", "orography", "numbers")
        self._shared = {name: values.ctypes.data for name, values in zip(names, self._arrays, strict=True)}
        self._shared |= {"levels": len(half[0]) - 1, "cut": cut, "cells": len(area)}

    def __reduce__(self):
        """Copies, and what is sent to another process, have arrays of their own to point to."""
        half_a, half_b, *others = self._arrays
        return ColumnIntegrals, ((half_a, half_b), bool(self._shared["cut"]), *others)

    def task(self, fields: dict[str, Tensor | None], batch: int, **more) -> tuple[object, dict[str, Tensor]]:
        """The structure of kernels.c, and the fields that it points to, which must outlive it."""
        fields = {name: whole(x) for name, x in fields.items() if x is not None}
        steps = {f"{name}_step": x.stride(0) for name, x in fields.items()}
        pointers = {name: x.data_ptr() for name, x in fields.items()}
        return _Columns(**self._shared, **pointers, **steps, batch=batch, **more), fields

    def _run(self, fields: dict[str, Tensor | None], batch: int, **more) -> None:
        task, fields = self.task(fields, batch, **more)
        library.call("emulator_columns", task)

    def sums(self, fields: dict[str, Tensor | None], derivatives: bool = True) -> tuple[Tensor, Tensor | None]:
        """Means of air, water and energy, `(batch, 3)` float64, and by cell their derivatives by surface pressure.

        `fields` by the names of kernels.c, level fields `(batch, level, *space)`; the derivatives, if they are asked for,
        are `(batch, 3, cell)`.
        """
        vapour = fields["vapour"]
        batch, cells = len(vapour), self._shared["cells"]
        sums = torch.empty(batch, -(-cells // BLOCK), 3, dtype=torch.float64)
        slopes = vapour.new_empty(batch, 3, cells) if derivatives else None
        self._run(fields, batch, sums=sums.data_ptr(), slopes=slopes.data_ptr() if derivatives else None)
        return sums.sum(1), slopes

    def gradients(self, fields, g_sums: Tensor, g_slopes: Tensor | None, needed) -> dict[str, Tensor]:
        """Gradients of the `needed` fields for those of what `sums` gives; liquid and ice have the one of "condensed"."""
        batch, *shape = fields["vapour"].shape
        surface = (batch, *shape[1:])
        results = {x: fields["vapour"].new_empty(surface if x == "pressure" else (batch, *shape)) for x in needed}
        g_sums = g_sums.contiguous()
        g_slopes = None if g_slopes is None else g_slopes.contiguous()
        pointers = {f"g_{name}": x.data_ptr() for name, x in results.items()}
        if g_slopes is not None:
            pointers["g_slopes"] = g_slopes.data_ptr()
        self._run(fields, batch, g_sums=g_sums.data_ptr(), **pointers)
        return results

    def by_layer(
        self, field: Tensor | None, pressure: Tensor | None, batch: int, where: Tensor | None = None
    ) -> Tensor:
        """Means of a field, or of 1, times the thickness of its layers in Pa: `(batch, level)` float64.

        Of the cells in which `where`, if given, is not negative.
        """
        blocks = -(-self._shared["cells"] // BLOCK)
        sums = torch.empty(batch, blocks, self._shared["levels"], dtype=torch.float64)
        self._run({"vapour": field, "pressure": pressure, "ice": where}, batch, sums=sums.data_ptr(), by_layer=True)
        return sums.sum(1)


def whole(field: Tensor) -> Tensor:
    """The field, each of whose batch elements lies in one piece."""
    return field if field.is_contiguous() or field[:1].is_contiguous() else field.contiguous()


def dither(field: Tensor, increment: Tensor, pattern: Tensor) -> Tensor:
    """`field + (increment + unit * pattern)`, the unit being the field's power of two; the increment broadcasts."""
    field, increment = whole(field), increment.expand_as(field)
    rows = (len(field), field.shape[1] if field.ndim > 2 else 1)
    everywhere = not any(increment.stride()[min(2, field.ndim - 1) :])  # in a row of cells
    if not everywhere:
        increment = whole(increment)
    cells = field.shape[1:].numel() // rows[1]
    to = field.new_empty(field.shape)
    task = _Dither(
        *(tensor.data_ptr() for tensor in (field, increment, pattern, to)),
        everywhere=everywhere,
        batch=rows[0],
        levels=rows[1],
        cells=cells,
        x_step=field.stride(0),
        increment_step=increment.stride(0),
        increment_level=increment.stride(1) if everywhere else cells,
    )
    library.call("emulator_dither", task)
    return to


def departure(x: Tensor, y: Tensor, area: Tensor, levels: int) -> Tensor:
    """Mean square of `x - y` over the sphere and the levels: `(batch,)` float64. Areas are float64."""
    x, y = whole(x), whole(y)
    batch, cells = len(x), area.numel()
    sums = torch.empty(batch, -(-cells // BLOCK), dtype=torch.float64)
    pointers = (tensor.data_ptr() for tensor in (x, y, area, sums))
    steps = {"x_step": x.stride(0), "y_step": y.stride(0)}
    library.call("emulator_departure", _Departure(*pointers, levels=levels, batch=batch, cells=cells, **steps))
    return sums.sum(1) / levels
