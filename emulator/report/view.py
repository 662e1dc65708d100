"""The scores as the page asks for them: plain arrays by forecast, channel, region and lead."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.planet.variables import known
from emulator.report.display import channel_title, days, unit_and_factor

BASELINES = ("persistence", "climatology")
NO_TRUTH, NOT_FINITE = "no truth", "not finite"

TABLE_MONTHS = (1, 3, 6, 12)  # leads of the tables, where leads are months


class View:
    """Reading glasses over a dataset of scores (docs/verification.md).

    Attributes:
      forecasts: names without the baselines and without held analyses, which are in `held`; main: the first of them, or
        persistence where there are none.
      headline: channels of the first page, in order; leads: in days, or in calendar months; unit: "day" or "month".
      map_lead_days: lead of the maps; long_run: forecasts whose first initial time is one long run, None without;
        training: metrics.jsonl of the training, None without.
    """

    def __init__(
        self,
        scores: xr.Dataset,
        map_lead_days: float = 3.0,
        long_run: xr.Dataset | None = None,
        training: Path | None = None,
    ):
        self.scores, self.map_lead_days, self.long_run, self.training = scores, map_lead_days, long_run, training
        names = [str(name) for name in scores["forecast"].values]
        self.held = [str(name) for name in self.note("held")]
        self.forecasts = [name for name in names if name not in (*BASELINES, *self.held)]
        self.baselines = [name for name in names if name in BASELINES]
        self.main = self.forecasts[0] if self.forecasts else "persistence"
        self.regions = [str(name) for name in scores["region"].values]
        self.leads = days(scores["lead_time"].values)
        self.unit = "month" if scores["lead_time"].dtype.kind in "iu" else "day"
        rank = scores["headline_rank"].values
        chosen = np.argsort(np.where(rank < 0, 10**6, rank), kind="stable")[: int((rank >= 0).sum())]
        if not len(chosen):
            chosen = np.arange(min(6, scores.sizes["channel"]))
        self.headline = [str(scores["channel"].values[index]) for index in chosen]
        self._index = {str(name): index for index, name in enumerate(scores["channel"].values)}
        self._fields = _described(scores, "climate_") | _described(scores, "")

    @property
    def lines(self) -> list[str]:
        """Forecasts, held analyses and baselines in the order in which they are drawn."""
        return [*self.forecasts, *self.held, *self.baselines]

    def get(self, name: str, forecast: str, channel: str, region: str | None = None, scaled: bool = True) -> np.ndarray:
        """A score against lead, `(lead,)`, in the unit of the page where `scaled`."""
        array = self.scores[name].sel(forecast=forecast, region=region or self.regions[0])
        values = array.isel(channel=self._index[channel]).values
        return values * self.factor(channel) if scaled else values

    def interval(self, score: str, forecast: str, channel: str) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a score's 95 % interval against lead, as `get`; NaN where the scores hold none for the channel."""
        ends = [self.scores.get(f"{score}_{end}") for end in ("low", "high")]
        axis = next((axis for axis in ("channel", "map_channel") if ends[0] is not None and axis in ends[0].dims), None)
        if axis is None or channel not in ends[0][axis].values:
            return (np.full(len(self.leads), np.nan),) * 2
        factor = 1.0 if score == "acc" else self.factor(channel)
        place = {"forecast": forecast, "region": self.regions[0], axis: channel}
        return tuple(end.sel(place).values * factor for end in ends)

    def against(self, name: str, baseline: str, forecast: str, channel: str, region: str | None = None) -> np.ndarray:
        """`difference`, `difference_half_width`, `p_value` or `significant` against a baseline, `(lead,)`; of the CRPS as
        `crps_difference`, ..., at the channels of maps."""
        array = self.scores[name].sel(forecast=forecast, baseline=baseline, region=region or self.regions[0])
        if "map_channel" in array.dims:  # of the CRPS
            return array.reindex(map_channel=[channel]).transpose("map_channel", "lead_time").values[0]
        return array.isel(channel=self._index[channel]).values

    def title(self, channel: str) -> str:
        """Of a field of the forecasts or of the long runs, as `variable`, `units` and `factor`."""
        return channel_title(*self._fields[channel][:2])

    def describes(self, channel: str) -> bool:
        """Whether the scores tell what a field is: older ones do not of one that long runs alone have."""
        return channel in self._fields

    def variable(self, channel: str) -> str:
        return self._fields[channel][0]

    def units(self, channel: str) -> str:
        return unit_and_factor(self._fields[channel][2])[0]

    def factor(self, channel: str) -> float:
        return unit_and_factor(self._fields[channel][2])[1]

    def stored_units(self, variable: str) -> str:
        """Of a variable as stores have it: that of its scores, or the table's; empty where neither has any."""
        scored = np.flatnonzero(self.scores["variable"].values == variable)
        units = str(self.scores["channel_units"].values[scored[0]]) if len(scored) else ""
        return units or (table.units if (table := known(variable)) else "")

    def position(self, channel: str) -> int:
        return self._index[channel]

    def note(self, name: str):
        """A JSON attribute of the scores; an empty dictionary where it is absent."""
        return json.loads(self.scores.attrs.get(name, "{}"))

    def lead_index(self, wanted_days: float, tolerance: float = 0.01) -> int | None:
        """Position of a lead, None where no lead is within `tolerance` days of it."""
        nearest = int(np.abs(self.leads - wanted_days).argmin())
        return nearest if abs(self.leads[nearest] - wanted_days) <= tolerance else None

    def table_leads(self, wanted=(1, 3, 5, 10)) -> list[int]:
        """Positions of the leads of the tables; where less than two of the wanted are held the last lead too."""
        wanted = TABLE_MONTHS if self.unit == "month" else wanted
        places = [index for index in map(self.lead_index, wanted) if index is not None]
        last = len(self.leads) - 1
        return places if len(places) > 1 or last in places else [*places, last]

    def truth_count(self, channel: str) -> np.ndarray:
        """At how many initial times the truth has the field, `(lead,)`."""
        count = self.scores["count"].sel(region=self.regions[0]).transpose("channel", "lead_time")
        return count.values[self._index[channel]]

    def has_truth(self) -> np.ndarray:
        """Whether the truth has any headline field, `(lead,)`: beyond its end there is nothing to judge."""
        return np.any([self.truth_count(channel) > 0 for channel in self.headline], axis=0)

    def missing(self, forecast: str, channel: str) -> list[str]:
        """Why a forecast has no RMSE, by lead: `no truth`, `not finite`, or nothing where it has one."""
        known = np.isfinite(self.get("rmse", forecast, channel))
        pairs = zip(known, self.truth_count(channel) > 0, strict=True)
        return ["" if ours else NOT_FINITE if truth else NO_TRUTH for ours, truth in pairs]

    def judged_lead(self, wanted=(3, 1, 5, 10), with_truth: bool = True) -> int:
        """Position of the first of the wanted leads that has a truth; the last lead that has one where none has.

        `with_truth` False: as if the truth had all of them.
        """
        known = self.has_truth() if with_truth else np.ones(len(self.leads), bool)
        places = [index for index in map(self.lead_index, wanted) if index is not None and known[index]]
        return places[0] if places else int(np.flatnonzero(known)[-1]) if known.any() else len(self.leads) - 1

    def nearest_lead(self, wanted_days: float) -> int:
        """Position of the lead nearest to `wanted_days` among those that have a truth."""
        known = self.has_truth()
        return int(np.where(known | ~known.any(), np.abs(self.leads - wanted_days), np.inf).argmin())

    def useful_until(self, forecast: str, channel: str, score: str = "rmse") -> tuple[float, bool]:
        """Days (or months) until the RMSE, or the CRPS, reaches climatology's, and whether it does within the forecast.

        Linear between leads. Without a crossing the last lead is given; NaN where the scores are missing.
        """
        return self._until(*(self.get(score, name, channel) for name in (forecast, "climatology")))

    def days_gained(
        self, forecast: str, reference: str, channel: str, lead: int, score: str = "rmse"
    ) -> tuple[float, bool]:
        """How many days (or months) later the forecast has the error that the reference has at a lead, by position.

        Negative where it has it earlier. Where the forecast ends before, its last lead counts, and False is returned.
        """
        theirs = self.get(score, reference, channel)
        level = np.where(np.isfinite(theirs), theirs[lead], np.nan)
        day, reached = self._until(self.get(score, forecast, channel), level)
        return day - float(self.leads[lead]), reached

    def _until(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, bool]:
        """Days until an error `(lead,)` reaches another, and whether it does.

        Where the other is missing there is no truth to tell; where ours alone is missing the forecast has failed.
        """
        known = np.isfinite(theirs)
        ours, theirs, leads = ours[known], theirs[known], self.leads[known]
        if not known.any() or not np.isfinite(ours[0]):
            return float("nan"), False
        excess = np.where(np.isfinite(ours), ours - theirs, np.inf)
        above = np.flatnonzero(excess >= 0)
        if not len(above):
            return float(leads[-1]), False
        first = int(above[0])
        if first == 0:
            return 0.0, True
        before, after = excess[first - 1], excess[first]
        share = 0.0 if np.isinf(after) else -before / (after - before)
        return float(leads[first - 1] + share * (leads[first] - leads[first - 1])), True

    def ensembles(self) -> list[str]:
        """Names of the forecasts with members."""
        if "spread_skill" not in self.scores:
            return []
        return [name for name in self.forecasts if self.members(name) > 1]

    def members(self, forecast: str) -> int:
        return int(self.scores["members"].sel(forecast=forecast))

    def mapped(self, most: int) -> list[str]:
        """Headline channels that have what is kept for the channels of maps."""
        known = set(map(str, self.scores["map_channel"].values))
        return [channel for channel in self.headline if channel in known][:most]


def _described(scores: xr.Dataset, kind: str) -> dict[str, tuple[str, str, str]]:
    """Channel -> variable, level and units as stored; of the forecasts (`kind` empty) or of long runs (`climate_`).

    Nothing where scores do not tell: older ones of long runs, whose fields are all those of forecasts.
    """
    names = [f"{kind}{name}" for name in ("channel", "variable", "level_name", "channel_units")]
    if not set(names) <= set(scores.variables):
        return {}
    channels, *told = ([str(value) for value in scores[name].values] for name in names)
    found = dict(zip(channels, zip(*told, strict=True), strict=True))
    return {channel: known for channel, known in found.items() if known[0]}
