"""Column integrals of several contents in one pass over the fields, and what else a correction does to whole fields."""

import ctypes
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulator.native import library

BLOCK = 128  # cells whose sums kernels.c keeps apart
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
)
_Dither = library.task(
    "dither", "x increment pattern to", "everywhere", "batch levels cells x_step increment_step increment_level"
)
CONTROLS = ("pressure", "temperature", "vapour", "rain", "evaporation")
_SUMS = 28  # of a trial, see kernels.c
_each = range(len(CONTROLS))
_Trial = library.task(
    "trial",
    " ".join(
        (
            "columns",
            *(f"{name}_{n}" for name in ("x", "pattern", "to", "variance") for n in _each),
            "totals slopes sums",
        )
    ),
    " ".join(f"{name}_{n}" for name in ("relative", "bounded") for n in _each),
    " ".join(f"step_{n}" for n in _each),
)
_Departure = library.task("departure", "x y area sums", "levels", "batch cells x_step y_step")


def serves(*fields: Tensor | None) -> bool:
    """Whether the compiled kernels take these fields; a library from before there were some does not."""
    return library.takes(*(x for x in fields if x is not None)) and hasattr(library.LIBRARY, "emulator_trial")


class Plan:
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

    def task(self, fields: dict[str, Tensor | None], batch: int, **more) -> tuple[object, dict[str, Tensor]]:
        """The structure of kernels.c, and the fields that it points to, which must outlive it."""
        fields = {name: whole(x) for name, x in fields.items() if x is not None}
        steps = {f"{name}_step": x.stride(0) for name, x in fields.items()}
        pointers = {name: x.data_ptr() for name, x in fields.items()}
        return _Columns(**self._shared, **pointers, **steps, batch=batch, **more), fields

    def _run(self, fields: dict[str, Tensor | None], batch: int, **more) -> None:
        task, fields = self.task(fields, batch, **more)
        library.call("emulator_columns", task)

    def sums(self, fields: dict[str, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Means of air, water and energy, `(batch, 3)` float64, and by cell their derivatives by surface pressure.

        `fields` by the names of kernels.c, level fields `(batch, level, *space)`; the derivatives are `(batch, 3, cell)`.
        """
        vapour = fields["vapour"]
        batch, cells = len(vapour), self._shared["cells"]
        sums = torch.empty(batch, -(-cells // BLOCK), 3, dtype=torch.float64)
        slopes = vapour.new_empty(batch, 3, cells)
        self._run(fields, batch, sums=sums.data_ptr(), slopes=slopes.data_ptr())
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


class Control(NamedTuple):
    """A field that multipliers move: as predicted, its variance `(batch, level)` float64, and the pattern of its rounding.

    `relative`: the variance is that per unit of the value's size; `bounded`: what is negative counts as 0.
    """

    field: Tensor
    variance: Tensor
    pattern: Tensor
    relative: bool
    bounded: bool


class Trials:
    """Controls for given multipliers, and what follows for the budgets, in one pass.

    Args:
      plan: of the budgets, whose energy has no product of temperature and humidity.
      fields: those of `Plan.sums`, for what is no control.
      controls: by the names of `CONTROLS`.
      slopes: derivatives by surface pressure of the linearisation, `(batch, 3, cell)`.
    """

    def __init__(self, plan: Plan, fields, controls: dict[str, Control], slopes: Tensor):
        batch, _, cells = slopes.shape
        self._columns, self._kept = plan.task(fields, batch)
        self._controls = {name: control._replace(field=whole(control.field)) for name, control in controls.items()}
        self._slopes, self._shape = slopes, (batch, -(-cells // BLOCK), _SUMS)
        values = {"columns": ctypes.addressof(self._columns), "slopes": slopes.data_ptr()}
        for name, control in self._controls.items():
            n = CONTROLS.index(name)
            values |= {f"relative_{n}": control.relative, f"bounded_{n}": control.bounded}
            values |= {f"x_{n}": control.field.data_ptr(), f"step_{n}": control.field.stride(0)}
            values |= {f"pattern_{n}": control.pattern.data_ptr(), f"variance_{n}": control.variance.data_ptr()}
        self._values = values

    def __call__(self, totals: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The controls before their bounds, and the sums of kernels.c, `(batch, sum)` float64.

        `totals`: `(batch, 5 + 3)` float64, what is added to each of `CONTROLS` per unit of variance, and to pressure along
        its derivatives of air, water and energy.
        """
        moved = {name: control.field.new_empty(control.field.shape) for name, control in self._controls.items()}
        sums = torch.empty(self._shape, dtype=torch.float64)
        pointers = {f"to_{CONTROLS.index(name)}": field.data_ptr() for name, field in moved.items()}
        task = _Trial(**self._values, **pointers, totals=totals.data_ptr(), sums=sums.data_ptr())
        library.call("emulator_trial", task)
        return moved, sums.sum(1)


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
