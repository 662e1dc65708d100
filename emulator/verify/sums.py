"""Sums over initial times: parts made anywhere, in any order, add up to the same scores."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums of linear statistics of one variable over some initial times.

    Attributes:
      init: positions of the initial times summed here, increasing.
      totals: statistic -> `(forecast, level, region, lead)`, summed over `init`.
      count: `(level, region, lead)`, initial times whose truth was there.
      squared_error: `(init, forecast, level, region, lead)`, kept apart for intervals; NaN without truth.
      power: `(source, level, lead, wavenumber)` summed spectra, the forecasts and then the truth; None without any.
      power_count: `(level, lead)`, initial times in `power`.
      error_map: `(forecast, level, lead, cell)` summed errors at the leads of maps.
      map_count: `(level, lead, cell)`, initial times in `error_map`.
      gaps: `(forecast + 1,)`, cells without a finite forecast where there is truth, and last those without truth.
      extra: statistic -> `(forecast, level, ...)` at the levels of maps, summed over `init`: events, ranks, rain.
      each: statistic -> `(init, forecast, level, region, lead)` at the levels of maps, kept apart as `squared_error` is.
    """

    init: np.ndarray
    totals: dict[str, np.ndarray]
    count: np.ndarray
    squared_error: np.ndarray
    power: np.ndarray | None
    power_count: np.ndarray
    error_map: np.ndarray
    map_count: np.ndarray
    gaps: np.ndarray
    extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    each: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Sums") -> "Sums":
        """The sums over both sets of initial times. Raises `ValueError` when they share one."""
        if shared := np.intersect1d(self.init, other.init).tolist():
            raise ValueError(f"Expected parts without common initial times, got {shared} in both")
        init = np.concatenate([self.init, other.init])
        order = np.argsort(init)
        return Sums(
            init[order],
            {name: total + other.totals[name] for name, total in self.totals.items()},
            self.count + other.count,
            np.concatenate([self.squared_error, other.squared_error])[order],
            None if self.power is None else self.power + other.power,
            self.power_count + other.power_count,
            self.error_map + other.error_map,
            self.map_count + other.map_count,
            self.gaps + other.gaps,
            {name: total + other.extra[name] for name, total in self.extra.items()},
            {name: np.concatenate([values, other.each[name]])[order] for name, values in self.each.items()},
        )


def add_up(parts: list[Sums]) -> Sums:
    """The sum of parts, taken pairwise so that rounding does not grow with their number. Raises `ValueError` for none."""
    if not parts:
        raise ValueError("Expected at least one part to add up, got none")
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)] + (parts[-1:] if len(parts) % 2 else [])
    return parts[0]


def stack_levels(parts: list[Sums]) -> Sums:
    """Sums of different levels of one variable, over the same initial times, as one."""
    if len(parts) == 1:
        return parts[0]

    def joined(name, axis):
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values, axis=axis)

    def named(name, axis=1):
        names = list(dict.fromkeys(key for part in parts for key in getattr(part, name)))
        held = {key: [getattr(part, name)[key] for part in parts if key in getattr(part, name)] for key in names}
        return {key: np.concatenate(values, axis=axis) for key, values in held.items()}

    return Sums(
        parts[0].init,
        named("totals"),
        joined("count", 0),
        joined("squared_error", 2),
        joined("power", 1),
        joined("power_count", 0),
        joined("error_map", 1),
        joined("map_count", 0),
        sum(part.gaps for part in parts),
        named("extra"),
        named("each", 2),
    )
