"""Controls moved along a few directions, what they then amount to, and the gradients of both: a pass over the fields each.

Numbers by element of the batch are arrays of NumPy, float64 in rows that lie in one piece.
"""

import ctypes
from collections.abc import Callable

import numpy as np
from torch import Tensor

from emulator.kernels import library
from emulator.kernels.columns import ColumnIntegrals, whole
from emulator.kernels.compiled import Layout

CONTROLS = ("pressure", "temperature", "vapour", "rain", "evaporation")


def _numbered(names: str, count: int) -> str:
    return " ".join(f"{name}_{n}" for name in names.split() for n in range(count))


_Correction = library.task(
    "correction",
    f"columns {_numbered('x to g_to g_x', Layout.CONTROLS)} {_numbered('flux', Layout.FLUXES)} "
    "g_east g_north heat to_heat totals weights means g_sums slopes sums",
    f"{_numbered('relative bounded', Layout.CONTROLS)} {_numbered('sign', Layout.FLUXES)} start pull",
    f"{_numbered('step g_step', Layout.CONTROLS)} {_numbered('flux_step', Layout.FLUXES)} heat_step",
    library.ENDS,
)


class Correction:
    """One step's predicted fields.

    Args:
      integrals: of the budgets, whose energy has no product of temperature and humidity.
      fields: as for `ColumnIntegrals.sums`, and "rain" and "evaporation", `(batch, *space)`.
      gains: sign and field of the fluxes whose sum is a column's net gain of energy, `Layout.FLUXES` at most.
      modes: of every control, how its variance and its bound are meant: 0, or `SIZED`, `SIGNED`; 0, or `FIRST`, `AFTER`.
      moving: the controls that are wanted.
      heat: the latent heat flux, if it follows evaporation.
      totals: makes sums over the globe of sums over the cells that the fields have here, where others have the rest.
    """

    def __init__(
        self,
        integrals: ColumnIntegrals,
        fields,
        gains,
        modes,
        moving,
        heat: Tensor | None = None,
        totals: Callable[[np.ndarray], np.ndarray] = lambda sums: sums,
    ):
        self._totals = totals
        self.batch, self.space = len(fields["vapour"]), fields["vapour"].shape[2:]
        self.levels = fields["vapour"].shape[1]
        self._columns, whole_fields = integrals.task(
            {k: x for k, x in fields.items() if k not in CONTROLS[3:]}, self.batch
        )
        whole_fields |= {name: whole(fields[name]) for name in CONTROLS[3:] if name in fields}
        gains = [(sign, whole(flux)) for sign, flux in gains]
        self._blocks = -(-self.space.numel() // Layout.BLOCK)
        self._kept = {"fields": whole_fields, "gains": gains}  # what the structure points to
        self._moved = {name: whole_fields[name].new_empty(whole_fields[name].shape) for name in moving}
        values = {"columns": ctypes.addressof(self._columns)}
        for n, name in enumerate(CONTROLS):
            values[f"relative_{n}"], values[f"bounded_{n}"] = modes.get(name, (0, 0))
            if name in whole_fields:
                values |= {f"x_{n}": whole_fields[name].data_ptr(), f"step_{n}": whole_fields[name].stride(0)}
            if name in self._moved:
                values[f"to_{n}"] = self._moved[name].data_ptr()
        for n, (sign, flux) in enumerate(gains):
            values |= {f"sign_{n}": sign, f"flux_{n}": flux.data_ptr(), f"flux_step_{n}": flux.stride(0)}
        if heat is not None:
            heat = self._kept["heat"] = whole(heat)
            self._moved["heat"] = heat.new_empty(heat.shape)
            values |= {"heat": heat.data_ptr(), "heat_step": heat.stride(0)}
            values["to_heat"] = self._moved["heat"].data_ptr()
        self._task = _Correction(**values)

    def _run(self, width: int, **numbers: np.ndarray) -> np.ndarray:
        """Sums of the kernels, `(batch, width)` float64."""
        self._kept |= numbers
        for name, values in numbers.items():
            setattr(self._task, name, values.ctypes.data)
        sums = np.empty((self.batch, self._blocks, width))
        self._task.sums = sums.ctypes.data
        library.call("emulator_correction", self._task)
        return self._totals(np.add.reduce(sums, axis=1)) if width else sums

    def start(self, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sums of the fields as predicted but for their bounds: a `trial` at totals of zero, of which nothing is kept.

        The others need what it finds.
        """
        slopes = self._kept["slopes"] = self._kept["fields"]["vapour"].new_empty(self.batch, 3, *self.space)
        self._task.slopes, self._task.start = slopes.data_ptr(), True
        sums = self.trial(totals, weights)
        self._task.start = False
        return sums

    def trial(self, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Move the controls, which `take` then gives, and give the sums of structures.h, `(batch, sum)`.

        `totals`: `(batch, TOTALS)`; `weights`: `(batch, sum)`, variances in the places of the sums of sizes.
        """
        return self._run(Layout.MEASURED + 4 * self.levels, totals=totals, weights=weights)

    def take(self) -> dict[str, Tensor]:
        """The controls, and "heat", as the last trial moved them; there is no trial after this one."""
        moved, self._moved = self._moved, {}
        for n in range(Layout.CONTROLS):
            setattr(self._task, f"to_{n}", None)
        self._task.to_heat = None
        return moved

    def pull(self, gradients: dict[str, Tensor]) -> np.ndarray:
        """Sums of the gradients of the controls that `take` gave: `(batch, PULLED + 2 levels)`."""
        for n in range(Layout.CONTROLS):
            setattr(self._task, f"g_to_{n}", None)
        for name, gradient in gradients.items():
            n = CONTROLS.index(name)
            gradient = self._kept[f"g_to_{n}"] = whole(gradient)
            setattr(self._task, f"g_to_{n}", gradient.data_ptr())
            setattr(self._task, f"g_step_{n}", gradient.stride(0))
        self._task.pull, self._task.g_sums = True, None
        return self._run(Layout.PULLED + 2 * self.levels)

    def push(self, g_sums: np.ndarray, means: np.ndarray, wanted) -> dict[str, Tensor]:
        """Gradients of the `wanted` fields: of `pull`'s gradients and of those of five sums, after `pull`.

        `g_sums`: `(batch, 5)`, of air, water, energy, precipitation and evaporation; `means`: `(batch, 3 + 2 levels)`, of
        the mean sizes of pressure, precipitation, evaporation, temperature and humidity.
        """
        fields = self._kept["fields"]
        results = {name: fields[name].new_empty(fields[name].shape) for name in wanted}
        for name, result in results.items():
            key = f"g_x_{CONTROLS.index(name)}" if name in CONTROLS else f"g_{name}"
            setattr(self._task, key, result.data_ptr())
        self._run(0, g_sums=g_sums, means=means)
        return results
