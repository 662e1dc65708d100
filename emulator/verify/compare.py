"""Scores of several models, each verified on its own, as one dataset of scores over the same sample."""

import json

import numpy as np
import xarray as xr

from emulator.verify.assemble import derive
from emulator.verify.climate_difference import climate_differences
from emulator.verify.merging import PER_INIT, is_sum
from emulator.verify.same_truth import same_truth
from emulator.verify.sample import BASELINES

SAME = ("region", "lead_time", "init_time", "event", "map_lead")
CONVENTIONS = ("grid", "truth", "climatology")
NAMES = ("forecast", "source", "gap_source", "audit_source", "climate_run")
DIFFERENCES = ("climate_difference", "climate_p_value", "climate_significant")
KEPT = ("climatology_mean", "climatology_std", "climatology_extreme", "record_mean", "land_sea_mask")


def combine(models: dict[str, xr.Dataset]) -> xr.Dataset:
    """One dataset of scores with the forecasts of all models under their names, differences taken to the first.

    Fields that not all have are left out, and noted. Raises `ValueError`, naming the difference, for scores on different
    grids, truths, climatologies, initial times, leads, regions or events: those are not comparable.
    """
    (name, first), *rest = models.items()
    for other, scores in rest:
        _check(name, first, other, scores)
    channels = [c for c in first["channel"].values if all(c in m["channel"].values for m in models.values())]
    if not channels:
        raise ValueError(f"Expected a field that all of {', '.join(models)} scored, got none")
    parts = [_prepared(label, scores, channels, label == name) for label, scores in models.items()]
    data = {}
    for variable in dict.fromkeys(str(v) for part in parts for v in part.data_vars):
        held = [part[variable] for part in parts if variable in part]
        axis = next((d for d in NAMES if d in held[0].dims), None)
        if axis is None:
            data[variable] = held[0]
        else:
            data[variable] = xr.concat(held, axis, join="outer", coords="minimal", compat="override")
    total = derive(_ordered(xr.Dataset(data), first))
    total = total.assign(climate_differences(total))
    audits = [v for v in total.data_vars if "audit_source" in total[v].dims]
    total = total.assign({v: total[v].astype(np.float64) for v in audits})
    return total.assign_attrs(_attributes(models, channels))


def _check(name, first, other, scores) -> None:
    where = f"{name} and {other}"
    for axis in SAME:
        ours, theirs = (set(s[axis].values.tolist()) if axis in s.coords else set() for s in (first, scores))
        if ours != theirs:
            raise ValueError(
                f"Expected {where} scored on the same {axis.replace('_', ' ')}s, got {len(ours)} and {len(theirs)}, of which "
                f"{len(ours & theirs)} are shared; verify them together or on the same period"
            )
    one, two = (json.loads(s.attrs.get("sample", "{}")) for s in (first, scores))
    for key in CONVENTIONS:
        if one.get(key) != two.get(key) and not (key == "truth" and same_truth(first, scores)):
            raise ValueError(f"Expected {where} scored with the same {key}, got {one.get(key)!r} and {two.get(key)!r}")
    for key in ("rmse_convention", "acc_convention"):
        if first.attrs.get(key) != scores.attrs.get(key):
            raise ValueError(
                f"Expected {where} scored by the same {key.replace('_', ' ')}, got {first.attrs.get(key)!r} and "
                f"{scores.attrs.get(key)!r}"
            )


def _prepared(label, scores, channels, whole) -> xr.Dataset:
    """Sums, audits and fixed parts of one model under its new names; the baselines and the truth of the first alone."""
    scores = scores.sel(channel=channels)
    if "map_channel" in scores.dims:
        scores = scores.sel(map_channel=[c for c in scores["map_channel"].values if c in channels])
    if "sum_crps" not in scores:  # a single forecast: its distribution is a step
        zero = xr.zeros_like(scores["sum_error"])
        scores = scores.assign(sum_crps=scores["sum_absolute_error"], sum_mean_difference=zero, sum_variance=zero)
        scores["sum_energy_score"] = xr.full_like(zero, np.nan)
    forecasts = [str(f) for f in scores["forecast"].values if f not in BASELINES]
    alone = len(forecasts) == 1
    renamed = {f: label if alone else f"{label} {f}" for f in forecasts}
    kept = [
        v
        for v in map(str, scores.data_vars)
        if is_sum(v)
        or v in (*PER_INIT, "members")
        or "audit_source" in scores[v].dims
        or ("climate_run" in scores[v].dims and not v.startswith(DIFFERENCES))
        or (whole and (v in KEPT or v.startswith("case_") or v.endswith("_units")))
    ]
    if not whole:
        kept = [v for v in kept if any(d in scores[v].dims for d in NAMES)]
    part = scores[kept]
    for axis in NAMES:
        if axis not in part.dims:
            continue
        names = [str(n) for n in part[axis].values]
        if axis == "climate_run":
            runs = {n: label if len(names) == 1 else f"{label} {n}" for n in names}
            part = part.assign_coords({axis: [runs[n] for n in names]})
            continue
        if axis == "audit_source":
            renamed |= {n: f"{n} of {label}" for n in names if n not in renamed and n not in (*BASELINES, "truth")}
        wanted = [n for n in names if n in renamed or whole]
        part = part.sel({axis: wanted}).assign_coords({axis: [renamed.get(n, n) for n in wanted]})
    return part


def _ordered(data: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """Forecasts first, then baselines, then the truth, and coordinates along channels as they were."""
    last = (*BASELINES, "truth")
    for axis in NAMES:
        if axis in data.dims:
            names = [str(n) for n in data[axis].values]
            data = data.sel({axis: [n for n in names if n not in last] + [n for n in last if n in names]})
    known = {n: c for n, c in first.coords.items() if n not in data.coords and c.dims == ("channel",)}
    return data.assign_coords({n: c.sel(channel=data["channel"].values) for n, c in known.items()})


def _attributes(models, channels) -> dict:
    first = next(iter(models.values()))
    result = dict(first.attrs)
    for key in ("config", "run"):
        result[key] = json.dumps({name: json.loads(s.attrs.get(key, "{}")) for name, s in models.items()})
    for key in ("provenance", "dropped_inits", "dropped_leads", "empty_inits", "budgets_skipped", "not_scored"):
        gathered = {}
        for name, scores in models.items():
            forecasts = [str(f) for f in scores["forecast"].values if f not in BASELINES]
            for inner, value in json.loads(scores.attrs.get(key, "{}")).items():
                label = name if [inner] == forecasts else inner if inner == "truth" else f"{name} {inner}"
                gathered[inner if key == "not_scored" else label] = value
        result[key] = json.dumps(gathered)
    left_out = sorted({str(c) for s in models.values() for c in s["channel"].values} - {str(c) for c in channels})
    result["not_compared"] = json.dumps(dict.fromkeys(left_out, "not scored for every model"))
    return result
