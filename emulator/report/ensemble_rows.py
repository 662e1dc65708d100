"""Scores of an ensemble at the channels of maps, which the table of all channels has no room for: rows and curves."""

import numpy as np

from emulator.report.view import View
from emulator.verify.metric import registered

OF_ALL_CHANNELS = ("crps", "energy_score", "spread", "spread_skill")
CURVES = {"rank_histogram": "rank", "field_rank_histogram": "rank", "tarp_coverage": "rank"}
CURVES |= {"economic_value": "cost_loss", "reliability_bar": "probability_bin"}


def ensemble_rows(view: View) -> list[dict]:
    """A row for every forecast and baseline, channel of maps, region and lead: whatever is one number there, or one for each
    event, as `<score>_below_0.05`. Nothing where no forecast has members."""
    if not view.ensembles():
        return []
    place = ("forecast", "map_channel", "region", "lead_time")
    columns = {}
    for name in (metric.name for metric in registered()):
        if name not in view.scores:
            continue
        array = view.scores[name]
        if name in OF_ALL_CHANNELS:
            array = array.sel(channel=view.scores["map_channel"].values).rename(channel="map_channel")
        if set(array.dims) == set(place):
            columns[name] = array.transpose(*place).values
        elif set(array.dims) == {*place, "event"}:
            for event in view.scores["event"].values:
                kind = f"{'above' if event >= 0.5 else 'below'}_{event:g}"
                columns[f"{name}_{kind}"] = array.sel(event=event).transpose(*place).values
    names = [view.scores[dim].values for dim in place[:3]]
    lead = f"lead_{view.unit}s"
    return [
        {
            "forecast": str(names[0][f]),
            "channel": str(names[1][c]),
            "region": str(names[2][r]),
            lead: float(view.leads[l]),
        }
        | {name: _value(values[f, c, r, l]) for name, values in columns.items()}
        for f, c, r, l in np.ndindex(*(len(values) for values in names), len(view.leads))
    ]


def ensemble_curves(view: View) -> list[dict]:
    """Histograms, coverages and values of the first region at the leads of the tables: along the axis that each names, and by
    event or pre-rank where there are several."""
    rows = []
    for score, axis in CURVES.items():
        if score not in view.scores or not view.ensembles():
            continue
        array = view.scores[score].sel(region=view.regions[0])
        further = next((dim for dim in ("event", "pre_rank") if dim in array.dims), None)
        for name in view.ensembles():
            for channel in map(str, view.scores["map_channel"].values):
                for lead in view.table_leads():
                    at = array.sel(forecast=name, map_channel=channel).isel(lead_time=lead)
                    for which in at[further].values.tolist() if further else [None]:
                        curve = at if which is None else at.sel({further: which})
                        end = view.members(name) + 1 if axis == "rank" else curve.size
                        rows.append(
                            {
                                "score": score,
                                "forecast": name,
                                "channel": channel,
                                f"lead_{view.unit}s": float(view.leads[lead]),
                            }
                            | ({further: which} if further else {})
                            | {axis: _axis(curve, axis)[:end], "values": [_value(v) for v in curve.values[:end]]}
                        )
    return rows


def _axis(curve, axis: str) -> list:
    return list(range(curve.size)) if axis == "rank" else curve[axis].values.tolist()


def _value(number) -> float | None:
    return float(number) if np.isfinite(number) else None
