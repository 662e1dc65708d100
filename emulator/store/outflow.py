"""What leaves a domain by its sides: a file of means over steps, one series for each budget, and how it is read.

Gauss's theorem makes the flux through the sides of a domain the area mean of the divergence of vertically integrated
transport, so that one number a step says all that a budget of the whole domain needs. The file is NetCDF. Of an analysis its
series are `(time,)`, each time the end of a step, of forecasts `(init_time, lead_time)`; `time_bounds` or `lead_time_bounds`
have both ends. docs/limited_area.md has the table of its attributes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.calendar import in_seconds, later, valid_times
from emulator.planet.grid import Grid
from emulator.planet.quantities.registry import quantity
from emulator.store.schema import fingerprint

SCHEMA = "outflow/1"
PREFIX = "outflow_"  # of a budget's name, here and among the records of forecasts
SIGN = "positive outward"
CELLS = "domain_cells"  # attribute that tells a domain's cells from others
EXACT = 1e-3  # seconds


def cells_of(domain: Grid) -> str:
    """What tells the cells of a domain from others."""
    angles = (np.broadcast_to(angle, domain.shape) for angle in domain.mesh())
    return fingerprint("cells", *(repr((np.round(angle.ravel(), 4) + 0.0).tolist()) for angle in angles))  # no -0.0


def attributes_of(name: str) -> dict[str, str]:
    """Of the series of a budget."""
    known = quantity(name)
    return {
        "units": known.rate_units,
        "long_name": f"{known.total} that leaves the domain by its sides, per unit of the domain's area",
        "cell_methods": "time: mean area: mean",
        "sign": SIGN,
    }


class Outflow:
    """What leaves a domain by its sides, from a file.

    Args:
      source: the path, or the dataset.
      names: of the budgets. domain: whose sides they are.
      meaning: what energy has to mean in it, where it says; see `emulator.verify.outflow`.
      delay: of forecasts, seconds from their initial time to that of the forecasts that they are for.
    Raises `ValueError` for what is no such file, for a budget that it lacks, and for one of another unit, sign or time cell,
    another domain, or another energy.
    """

    def __init__(
        self,
        source: str | Path | xr.Dataset,
        names: Sequence[str],
        domain: Grid,
        meaning: Mapping[str, object] | None = None,
        delay: float = 0,
    ):
        self.path = "the dataset" if isinstance(source, xr.Dataset) else source
        self.dataset = dataset = source if isinstance(source, xr.Dataset) else _opened(source)
        self.names, self.delay = tuple(names), delay
        self._check(domain, meaning)
        self.of_forecasts = "lead_time" in dataset.dims
        dims = ("init_time", "lead_time") if self.of_forecasts else ("time",)
        series = [dataset[PREFIX + name].transpose(*dims).values for name in self.names]
        self._values = np.stack(series, -1).astype(np.float64)
        bounds = dataset["lead_time_bounds" if self.of_forecasts else "time_bounds"].values
        self._begins, self._ends = bounds[:, 0], bounds[:, 1]
        self._runs: dict[object, tuple] = {}

    @property
    def fingerprint(self) -> str:
        """What tells it from others: what it holds of the budgets, whatever its attributes say."""
        inits = [self.dataset["init_time"].values] if self.of_forecasts else []
        held = (*inits, self._begins, self._ends, self._values)
        return fingerprint(repr(self.names), *(repr(values.tolist()) for values in held))

    def at(self, init, begin, end) -> np.ndarray:
        """Means over a step of a forecast from an initial time, which of an analysis does not matter: `(budget,)` float64.

        Raises `ValueError` for a step that the file lacks, in whole or in part, and for one that is shorter than its means.
        """
        begins, ends, values, origin = self._run(init)
        first, last = (float(in_seconds(np.array([moment - origin]))[0]) for moment in (begin, end))
        step = f"from {begin} to {end}"
        if first < begins[0] - EXACT or last > ends[-1] + EXACT:
            reach = [str(later(np.array([origin]), float(s))[0]) for s in (begins[0], ends[-1])]
            raise ValueError(
                f"Expected what leaves by the domain's sides as far as the forecast, {step}, {self.path} has {reach[0]} to "
                f"{reach[1]}"
            )
        low = max(int(np.searchsorted(begins, first + EXACT)) - 1, 0)
        high = int(np.searchsorted(ends, last - EXACT)) + 1
        begins, ends, values = begins[low:high], ends[low:high], values[low:high]
        gap = ends[0] <= first + EXACT or begins[-1] >= last - EXACT or (abs(begins[1:] - ends[:-1]) > EXACT).any()
        if gap or not np.isfinite(values).all():
            raise ValueError(
                f"Expected what leaves by the domain's sides at every step, {self.path} has none of "
                f"{self._absent(values)} {step}"
            )
        if abs(begins[0] - first) > EXACT or abs(ends[-1] - last) > EXACT:
            hours = (ends - begins).max() / 3600
            raise ValueError(
                f"Expected means over the step {step} of what leaves by the domain's sides, {self.path} has means over "
                f"{hours:g} h that do not begin and end with it"
            )
        weight = (ends - begins) / (last - first)
        return values[0] if len(values) == 1 else weight @ values

    def _absent(self, values: np.ndarray) -> str:
        lacking = [n for n, column in zip(self.names, values.T, strict=True) if not np.isfinite(column).all()]
        return ", ".join(lacking or self.names)

    def _run(self, init) -> tuple:
        """Seconds of begins and ends since an origin, the values, and the origin, of one forecast or of the analysis."""
        key = str(init) if self.of_forecasts else None
        if key not in self._runs:
            begins, ends, values = self._begins, self._ends, self._values
            if self.of_forecasts:
                started = later(np.array([init]), -self.delay) if self.delay else np.array([init])
                at = np.flatnonzero(self.dataset["init_time"].values == started[0])
                if not len(at):
                    inits = self.dataset["init_time"].values
                    if init is None:
                        raise ValueError(
                            "Expected what leaves by the domain's sides over the times of a training, of an analysis, "
                            f"{self.path} is of forecasts"
                        )
                    raise ValueError(
                        f"Expected what leaves by the domain's sides in a forecast from {started[0]}, {self.path} has "
                        f"{len(inits)} from {inits[0]} to {inits[-1]}"
                    )
                values = values[at[0]]
                begins, ends = (valid_times(started, each)[0] for each in (begins, ends))
            self._runs[key] = in_seconds(begins - begins[0]), in_seconds(ends - begins[0]), values, begins[0]
        return self._runs[key]

    def _check(self, domain: Grid, meaning: Mapping[str, object] | None) -> None:
        dataset = self.dataset
        for name in self.names:
            if PREFIX + name not in dataset:
                known = ", ".join(str(n) for n in dataset.data_vars if str(n).startswith(PREFIX)) or "none"
                raise ValueError(f"Expected {PREFIX}{name} in {self.path}, got {known}")
            given, wanted = dataset[PREFIX + name].attrs, attributes_of(name)
            for key in ("units", "sign"):
                if given.get(key) != wanted[key]:
                    raise ValueError(
                        f"Expected {PREFIX}{name} with {key} {wanted[key]!r}, got {given.get(key)!r} in {self.path}"
                    )
            if not str(given.get("cell_methods")).startswith("time: mean"):
                raise ValueError(
                    f"Expected {PREFIX}{name} as means over steps (cell_methods 'time: mean'), got "
                    f"{given.get('cell_methods')!r} in {self.path}"
                )
            form = given.get("form")
            if form is not None and meaning is not None and form != (told := told_form(meaning)):
                raise ValueError(f"Expected {PREFIX}{name} of the energy {told}, got {form} in {self.path}")
        axis = "lead_time" if "lead_time" in dataset.dims else "time"
        if axis not in dataset.dims or f"{axis}_bounds" not in dataset:
            raise ValueError(f"Expected times with {axis}_bounds, the ends of each step, in {self.path}, got none")
        if dataset.attrs.get(CELLS) != (cells := cells_of(domain)):
            raise ValueError(
                f"Expected what leaves by the sides of {domain.describe()} ({CELLS} {cells}), {self.path} is of "
                f"{dataset.attrs.get('domain', 'another domain')} ({CELLS} {dataset.attrs.get(CELLS)})"
            )


def told_form(meaning: Mapping[str, object]) -> str:
    """What energy means, in words."""
    return ", ".join(f"{key} {value}" for key, value in sorted(meaning.items()))


def _opened(path: str | Path) -> xr.Dataset:
    if not Path(path).exists():
        raise ValueError(f"Expected what leaves by the domain's sides at {path}, got nothing there")
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as dataset:
            return dataset.load()
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected NetCDF at {path}, got {type(error).__name__}: {error}") from error
