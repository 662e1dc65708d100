"""What is scored: one channel for every variable and level that the truth and all forecasts share."""

import dataclasses

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.store.schema import entry
from emulator.verify.align import check_units, common_levels
from emulator.verify.fields import Field, scored_variables, store_of

# Variable, pressure in hPa: what a forecaster looks at first. The nearest level within `NEAR` of it is taken.
HEADLINE = (
    ("geopotential", 500.0),
    ("temperature", 500.0),
    ("u_component_of_wind", 500.0),
    ("v_component_of_wind", 500.0),
    ("specific_humidity", 850.0),
    ("surface_pressure", None),
    ("mean_sea_level_pressure", None),
    ("2m_temperature", None),
    ("mean_total_precipitation_rate", None),
    ("temperature", 850.0),
)
REMEDY = "emulator ingest (kind: forecast for forecasts) makes a store with the table's names and units"
NEAR = 1.25  # ratio of pressures


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredVariable:
    """One variable in the truth and in every forecast.

    Attributes:
      truth: the truth's field; forecasts: forecast name -> field, in order.
      levels: `(level,)` in the truth's coordinate, None without.
      labels, pressures: a name and a nominal pressure in hPa (NaN where it has none) for each level.
      short: a short name where the truth's store or the table has one, else the name.
    """

    name: str
    units: str
    truth: Field
    forecasts: dict[str, Field]
    levels: np.ndarray | None
    labels: tuple[str, ...]
    pressures: tuple[float, ...]
    short: str

    def at_levels(self, index: list[int]) -> "ScoredVariable":
        """The same variable on some of its levels, by position."""
        if self.levels is None:
            return self

        def only(field):
            return dataclasses.replace(field, levels=tuple(field.levels[i] for i in index))

        return dataclasses.replace(
            self,
            truth=only(self.truth),
            forecasts={name: only(field) for name, field in self.forecasts.items()},
            levels=self.levels[index],
            labels=tuple(self.labels[i] for i in index),
            pressures=tuple(self.pressures[i] for i in index),
        )


def scored(
    truth: xr.Dataset,
    forecasts: dict[str, xr.Dataset],
    grid: Grid,
    column: Levels | None,
    variables: list[str] | None = None,
    levels: list[float] | None = None,
) -> tuple[list[ScoredVariable], dict[str, str]]:
    """The variables to score, restricted to `variables` and to the levels nearest to `levels`, and why others are not.

    Raises `ValueError` when a wanted variable is absent, units differ, or nothing is left.
    """
    names_in = {"truth": scored_variables(truth, grid, "time")}
    names_in |= {name: scored_variables(dataset, grid, "lead_time") for name, dataset in forecasts.items()}
    skipped = {}
    everywhere = [name for name in names_in["truth"] if all(name in names for names in names_in.values())]
    for name in sorted(set().union(*names_in.values()) - set(everywhere)):
        skipped[name] = f"not in {', '.join(store for store, names in names_in.items() if name not in names)}"
    for name in variables or []:
        if name not in everywhere:
            raise ValueError(
                f"Expected {name!r} in the truth and in every forecast, got it {skipped.get(name, 'nowhere')}"
            )
    chosen = [name for name in everywhere if not variables or name in variables]
    if not chosen:
        reasons = "; ".join(f"{name} is {why}" for name, why in skipped.items()) or "no fields"
        raise ValueError(f"Expected a variable that the truth and all forecasts share, got none: {reasons}; {REMEDY}")
    return [_variable(name, truth, forecasts, grid, column, levels) for name in chosen], skipped


def _variable(name, truth, forecasts, grid, column, wanted) -> ScoredVariable:
    arrays = {"truth": truth[name]} | {store: dataset[name] for store, dataset in forecasts.items()}
    units, levels = check_units(name, arrays), common_levels(name, arrays)
    if levels is not None and wanted:
        levels = np.unique([levels[np.abs(levels - value).argmin()] for value in wanted])
    places = {
        store: None if levels is None else tuple(int(np.abs(array["level"].values - v).argmin()) for v in levels)
        for store, array in arrays.items()
    }
    fields = {store: Field(array, grid, places[store]) for store, array in arrays.items()}
    fields["truth"] = dataclasses.replace(fields["truth"], store=store_of(truth))
    labels, pressures = [""], [np.nan]
    if levels is not None:
        index = [int(np.abs(truth["level"].values - value).argmin()) for value in levels]
        labels = [column.label(i) if column else f"{truth['level'].values[i]:g} hPa" for i in index]
        pressures = [_pressure(column, i) if column else float(truth["level"].values[i]) for i in index]
    short = _short_name(truth, name)
    return ScoredVariable(name, units, fields.pop("truth"), fields, levels, tuple(labels), tuple(pressures), short)


def _short_name(truth: xr.Dataset, name: str) -> str:
    try:
        return entry(truth, name).short or name
    except ValueError:  # units are compared elsewhere, where stores of other tools may well have none
        return name


def _pressure(column: Levels, index: int) -> float:
    """Pressure of a level in hPa over a surface at 1000 hPa."""
    if column.kind == "pressure":
        return float(column.values[index])
    half = column.half_a + column.half_b * 1e5
    return float(half[index] + half[index + 1]) / 200


def headline_ranks(variable: ScoredVariable) -> dict[int, int]:
    """Positions among the variable's levels that the first page shows -> their rank in `HEADLINE`."""
    result = {}
    for rank, (name, pressure) in enumerate(HEADLINE):
        if name != variable.name:
            continue
        distance = (
            np.abs(np.log(np.asarray(variable.pressures) / pressure)) if pressure and variable.labels != ("",) else None
        )
        if distance is None:
            result.setdefault(0, rank)
        elif distance.min() <= np.log(NEAR):
            result.setdefault(int(distance.argmin()), rank)
    return result


def channel_name(variable: ScoredVariable, index: int) -> str:
    """`temperature 510 hPa (sigma 0.51)`, `surface_pressure`."""
    return f"{variable.name} {variable.labels[index]}".strip()
