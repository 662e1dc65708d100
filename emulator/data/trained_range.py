"""The range that training has seen of what a step is given from outside, and what of a forecast goes beyond it.

The limits are those of the statistics, by variable and level. They go into the checkpoint, so that a forecast needs no
statistics, and every field is compared as it is read: no data is passed over for it.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from emulator.data.normalisation import open_statistics

log = logging.getLogger(__name__)
SLACK = 0.01  # of the range: a field may go so far beyond it before that is said
ROUNDING = 1e-5  # of the largest size: what never varied in training has no range


def trained_limits(statistics: xr.Dataset, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Lowest and highest value of variables, `[[level], [level]]` each, from statistics, as a checkpoint keeps them."""
    rows = {name: [statistics[name].sel(statistic=s).values for s in ("minimum", "maximum")] for name in names}
    return {name: [np.atleast_1d(row).tolist() for row in pair] for name, pair in rows.items()}


class TrainedRange:
    """What is given, compared with what was seen in training.

    Args:
      limits: as `trained_limits` has them; variables without limits are not compared.

    Attributes:
      beyond: variable -> `{"trained": [lowest, highest], "given": [lowest, highest]}` of those that went beyond, over all
        that was compared so far.
    """

    def __init__(self, limits: Mapping[str, Sequence[Sequence[float]]]):
        self._limits = {name: np.asarray(pair, np.float64) for name, pair in limits.items()}
        self.beyond: dict[str, dict[str, list[float]]] = {}

    @classmethod
    def of_checkpoint(cls, saved: Mapping | None, names: Sequence[str]) -> "TrainedRange":
        """From what a checkpoint says of itself; one of older versions names its statistics, which may be there."""
        limits = (saved or {}).get("forcing_range")
        if limits is None and saved:
            try:
                statistics = open_statistics(saved["config"]["statistics"])
                limits = trained_limits(statistics, [name for name in names if name in statistics])
            except (KeyError, OSError, ValueError):
                log.debug("the checkpoint does not tell the range of its forcing")
        return cls(limits or {})

    def see(self, name: str, values, when: object = "") -> None:
        """Compares values `(level or 1, ...)` in the store's units; what is missing is left out.

        The first time that a variable goes beyond its range is warned of, with the time `when`.
        """
        if (limits := self._limits.get(name)) is None:
            return
        fields = np.asarray(values).reshape(limits.shape[1], -1)
        known = fields if np.isfinite(fields).all() else np.ma.masked_invalid(fields)
        lowest, highest = (np.ma.filled(f(axis=1).astype(np.float64), np.nan) for f in (known.min, known.max))
        slack = SLACK * (limits[1] - limits[0]) + ROUNDING * np.abs(limits).max(axis=0)
        if not ((lowest < limits[0] - slack) | (highest > limits[1] + slack)).any():
            return
        given, trained = [_least(lowest), -_least(-highest)], [float(limits[0].min()), float(limits[1].max())]
        if name not in self.beyond:
            log.warning(
                "%s goes beyond what the network was trained on (%g to %g): %g to %g at %s",
                name,
                *trained,
                *given,
                when,
            )
        self._extend({name: {"trained": trained, "given": given}})

    def recall(self, beyond: Mapping[str, Mapping[str, list[float]]]) -> None:
        """Adds what another process, or an earlier start, has found."""
        self._extend(beyond)

    def _extend(self, beyond: Mapping) -> None:
        for name, found in beyond.items():
            own = self.beyond.get(name, found)["given"]
            low, high = min(own[0], found["given"][0]), max(own[1], found["given"][1])
            self.beyond[name] = {"trained": list(found["trained"]), "given": [low, high]}


def _least(values: np.ndarray) -> float:
    return float(np.nanmin(values))
