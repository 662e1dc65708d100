"""Whether forecasts are still finite: said once, of the first field that has no value left."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from emulator.planet.calendar import lead_text

log = logging.getLogger(__name__)


class Finite:
    """Looks at states as they arrive, and warns once.

    A state that has left all bounds soon has no finite value in any cell: one of each field is looked at, and all of them
    where that one has no value. Single missing values are what verification counts.

    Args:
      space: number of dimensions of space, the last ones of every field.
      members: whether fields have an axis of members, the third.
    """

    def __init__(self, space: int, members: bool):
        self._space, self._members, self._told = space, members, False

    def see(
        self,
        fields: Mapping[str, np.ndarray],
        outside: Mapping[str, np.ndarray | None],
        inits: Sequence,
        leads: Sequence,
    ) -> None:
        """Of fields `(time, lead, [member,] [level,] *space)` from initial times at leads.

        `outside`: by the names of the fields that are looked at where each does not exist, `(level or 1, *space)`, or None.
        The state at lead 0 is the analysis, and is left alone.
        """
        for name, nowhere in outside.items():
            if self._told:
                return
            if name in fields and fields[name].size:
                self._look(name, fields[name], nowhere, inits, leads)

    def _look(self, name: str, field: np.ndarray, outside, inits, leads) -> None:
        cells = field.reshape(*field.shape[: -self._space], -1)
        nowhere = None if outside is None else outside.reshape(len(outside), -1)
        one = 0 if nowhere is None else int(np.argmin(nowhere.sum(axis=0)))
        for at in np.argwhere(~np.isfinite(cells[..., one])):
            level = at[-1] if nowhere is not None and len(nowhere) > 1 else 0
            if leads[at[1]] == 0 * leads[at[1]] or (nowhere is not None and nowhere[level].all()):
                continue
            if not np.isfinite(cells[tuple(at)]).any():
                member = f" of member {at[2] + 1}" if self._members else ""
                log.warning(
                    "the forecast from %s is no longer finite: %s%s has no value at a lead of %s; it is written on to its "
                    "end, and other forecasts and fields that are lost are not told of",
                    str(inits[at[0]])[:16],
                    name,
                    member,
                    lead_text(leads[at[1]]),
                )
                self._told = True
                return
