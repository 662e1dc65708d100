"""Models that make data from nothing. A file in this folder may be one, which registers itself under the file's name.

To add one, write `NAME.py` that ends in `MODELS.register("NAME", Embedded(Settings, build))`; nothing else has to know it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.registry import Registry

TIME_BOUNDS = "time_bounds"  # among the fields of a day: where their means begin and end, `(time, 2)`


@dataclasses.dataclass(frozen=True, eq=False)
class Depths:
    """Levels of an ocean from its surface down.

    Attributes:
      values: m, `(depth,)`, increasing. bounds: of the cells, m, `(depth, 2)`.
    """

    values: np.ndarray
    bounds: np.ndarray


class EmbeddedModel(Protocol):
    """A built model: `state = model.initial_state()`, then `state, fields = model.advance_day(state)` day by day.

    It may have `cell_methods`, CF's by name of a field, where these are not the variable table's; `domains` of fields that do
    not exist everywhere, by name, as `emulator.store.masks` has them; and `closed`, whether nothing passes a region's sides.

    Attributes:
      title: of its files; provenance: "model", "versions" and whatever else defines the numbers, for their attributes;
        "scenario", where there is one, becomes part of their `source`, which a store keeps.
      grid, levels, constants: of the fields. static: fields that do not change, `([vertical,] latitude, longitude)`.
    """

    title: str
    provenance: dict[str, Any]
    grid: Grid
    levels: Levels | Depths
    constants: Constants
    static: dict[str, np.ndarray]

    def initial_state(self) -> Any: ...

    def advance_day(self, state: Any) -> tuple[Any, dict[str, np.ndarray]]:
        """The state after a day, and canonical fields `(time, [vertical,] latitude, longitude)` at the day's output times; a
        forcing that is one number for the whole planet is `(time,)`.

        A model whose means are longer than a day gives no fields but on the days with which one ends, and then with
        `TIME_BOUNDS`; the field is at the end of the mean, and its state carries the sums.
        """

    def save_state(self, state: Any, path: Path) -> None: ...

    def load_state(self, path: Path) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Embedded:
    """One model.

    Attributes:
      settings: a frozen dataclass of all that defines a simulation, with `start` (a date) and `step_hours` (the spacing of
        the output, and what means are over); raises `ValueError` for settings that cannot be.
      build: from settings to the model. Raises `ImportError` where an extra is not installed.
      check: of settings and a number of days, before the model is built: raises `ValueError` where files that the settings
        name cannot be read, or do not last so long.
      needs, extra: the package that it imports, and the extra of ours that installs it; "" for none.
      ends: whether fields come with a day, by settings and its number after the start; None: with every day.
    """

    settings: type
    build: Callable[[Any], EmbeddedModel]
    check: Callable[[Any, int], None] = lambda settings, days: None
    needs: str = ""
    extra: str = ""
    ends: Callable[[Any, int], bool] | None = None


MODELS: Registry[Embedded] = Registry("embedded model", __name__)
