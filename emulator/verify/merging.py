"""Several datasets of scores as one: over different initial times added up, and of different models side by side."""

import json
import logging

import numpy as np
import xarray as xr

from emulator.verify.assemble import derive
from emulator.verify.audit import merge_audits
from emulator.verify.combined_scenarios import combine_scenarios
from emulator.verify.long_runs import DESCRIBED, climate_differences, described
from emulator.verify.metric import all_statistics, with_interval
from emulator.verify.metrics.ensemble import of_single_forecast
from emulator.verify.sample import BASELINES

log = logging.getLogger(__name__)

NEAR = 1e-9  # relative to the field's spread: sums in another order, not other data
FIXED = (
    "climatology_mean",
    "climatology_std",
    "climatology_extreme",
    "record_mean",
    "members",
    "land_sea_mask",
)
TARP = "sum_tarp"  # the sums that some parts may lack
SAME = ("region", "lead_time", "init_time", "event", "map_lead")
CONVENTIONS = ("grid", "truth", "climatology")
NAMES = ("forecast", "source", "gap_source", "audit_source", "climate_run")
DIFFERENCES = ("climate_difference", "climate_p_value", "climate_significant")
COORDINATES = (
    "forecast",
    "channel",
    "region",
    "lead_time",
    "event",
    "map_channel",
    "map_lead",
    "latitude",
    "longitude",
    "y",
    "x",
)


def is_sum(name) -> bool:
    """Whether a variable is a sum over initial times."""
    counts = {group.sampling.count for group in all_statistics()}
    return str(name).startswith("sum_") or name in counts or name == "gap_count"


def _series() -> set[str]:
    """Names of what is kept at every initial time."""
    return {metric.interval.series for metric in with_interval()}


def merge(parts: list[xr.Dataset]) -> xr.Dataset:
    """Scores over the initial times of all parts, as if they had been made at once.

    Sums are added and everything else derived from them anew; cases to look at are left out, since they are chosen among
    all initial times. Raises `ValueError`, naming the difference, for parts that share an initial time, or that were not
    made of the same forecasts, fields, regions, leads, truth, climatology and conventions, or that lack a sum which another
    has, other than TARP's, which there are where no part's climatology holds times that are verified.
    """
    first, *rest = parts
    for part in rest:
        check_same(first, part)
    times = [time for part in parts for time in part["init_time"].values.tolist()]
    if shared := len(times) - len(set(times)):
        raise ValueError(f"Expected parts without common initial times, got {shared} in two of them")
    shared_by_all = _shared_sums(parts)
    sums = {}
    for name in map(str, first.data_vars):
        if name in shared_by_all:
            sums[name] = _added([part[name] for part in parts])
        elif name in _series() and all(name in part for part in parts):  # older scores have the squared errors alone
            sums[name] = xr.concat([part[name] for part in parts], "init_time").sortby("init_time")
        elif name in FIXED:
            sums[name] = first[name]
    total = derive(xr.Dataset(sums))
    total = xr.merge([total, merge_audits(parts)], compat="no_conflicts", join="outer", combine_attrs="override")
    return total.assign_attrs(_attributes(parts))


def _shared_sums(parts: list[xr.Dataset]) -> set[str]:
    """The sums that all parts have. Raises `ValueError` where some lack a sum that may not be left out."""
    known = [{str(name) for name in part.data_vars if is_sum(name)} for part in parts]
    shared = set.intersection(*known)
    lacking = sorted(set.union(*known) - shared)
    if others := [name for name in lacking if not name.startswith(TARP)]:
        raise ValueError(
            f"Expected the same sums in all scores that are added up, got {_listed(others)} in some of them only; were they "
            "made by different versions? Verify all initial times anew"
        )
    if lacking:
        log.warning(
            "no TARP of all initial times together: some scores come without, since their climatology holds verified times"
        )
    return shared


def check_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Raises `ValueError` unless two datasets of scores differ in their initial times alone."""
    for name in COORDINATES:
        if (name in one.coords) != (name in other.coords):
            raise ValueError(f"Expected scores with the same coordinates, got {name} in one of them only")
        if name in one.coords and not _alike(one[name].values, other[name].values):
            raise ValueError(
                f"Expected scores of the same {name}, got {_listed(one[name].values)} and {_listed(other[name].values)}"
            )
    ours, theirs = (json.loads(scores.attrs.get("sample", "{}")) for scores in (one, other))
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key) and not (key == "truth" and same_truth(one, other)):
            raise ValueError(f"Expected scores of the same {key}, got {ours.get(key)!r} and {theirs.get(key)!r}")


def _added(arrays: list[xr.DataArray]) -> xr.DataArray:
    """Pairwise, so that rounding does not grow with the number of parts; an axis that some parts lack counts as 0."""
    while len(arrays) > 1:
        pairs = zip(arrays[::2], arrays[1::2], strict=False)
        arrays = [a + b for a, b in pairs] + (arrays[-1:] if len(arrays) % 2 else [])
    return arrays[0]


def _alike(one, other) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, equal_nan=True))
    return bool(np.array_equal(one, other))


def _listed(values) -> str:
    values = [str(v) for v in np.atleast_1d(values)]
    return ", ".join(values[:4]) + (f", ... ({len(values)})" if len(values) > 4 else "")


def _attributes(parts) -> dict:
    """The last part's, with what is counted over initial times added up and the period of all."""
    result = dict(parts[-1].attrs)  # of a truth that has grown the latest state
    if "missing_truth" in result:
        result["missing_truth"] = int(sum(int(part.attrs.get("missing_truth", 0)) for part in parts))
    if "climatology_overlap" in result:
        result["climatology_overlap"] = int(any(int(part.attrs.get("climatology_overlap", 0)) for part in parts))
    periods = [part.attrs["valid_period"].split(" to ") for part in parts if "valid_period" in part.attrs]
    if periods:
        result["valid_period"] = f"{min(p[0] for p in periods)} to {max(p[1] for p in periods)}"
    return result


def same_truth(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether the truth's global means over the climatology's record, and persistence's errors, are the same in both.

    A store to which later times were appended has another fingerprint and the same past. `record_mean` is compared at every
    time of the record, and `squared_error` of persistence at the initial times that both hold; channels that only one has
    do not count. False where there is nothing to compare.
    """
    shared = np.intersect1d(one["channel"].values, other["channel"].values)
    if "record_mean" not in one or "record_mean" not in other or not len(shared):
        return False
    first, second = one.sel(channel=shared), other.sel(channel=shared)
    if not np.array_equal(first["record_time"].values, second["record_time"].values):
        return False
    spread = np.maximum(first["climatology_std"].values, 1e-300)
    means = [part["record_mean"].transpose("record_time", "channel").values / spread for part in (first, second)]
    inits = np.intersect1d(first["init_time"].values, second["init_time"].values)
    errors = [
        part["squared_error"].sel(forecast="persistence", init_time=inits).transpose("init_time", "channel", ...).values
        for part in (first, second)
    ]
    return _near(*means) and (errors[0].shape == errors[1].shape and _near(*errors))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=NEAR, atol=NEAR, equal_nan=True))


def combine(models: dict[str, xr.Dataset]) -> xr.Dataset:
    """One dataset of scores with the forecasts of all models under their names, differences taken to the first.

    Fields that not all have are left out, and noted. Raises `ValueError`, naming the difference, for scores on different
    grids, truths, climatologies, initial times, leads, regions, events or scenarios' truths: those are not comparable.
    """
    (name, first), *rest = models.items()
    for other, scores in rest:
        _check_comparable(name, first, other, scores)
    channels = [c for c in first["channel"].values if all(c in m["channel"].values for m in models.values())]
    if not channels:
        raise ValueError(f"Expected a field that all of {', '.join(models)} scored, got none")
    parts = [_prepared(label, scores, channels, label == name) for label, scores in models.items()]
    data = {}
    for variable in dict.fromkeys(str(v) for part in parts for v in part.data_vars):
        arrays = [part[variable] for part in parts if variable in part]
        axis = next((d for d in NAMES if d in arrays[0].dims), None)
        if axis is None:
            data[variable] = arrays[0]
        else:
            data[variable] = xr.concat(arrays, axis, join="outer", coords="minimal", compat="override")
    total = derive(_ordered(xr.Dataset(data), first))
    total = described(total.assign(climate_differences(total)), models.values())
    audits = [v for v in total.data_vars if "audit_source" in total[v].dims]
    total = total.assign({v: total[v].astype(np.float64) for v in audits})
    total = total.merge(combine_scenarios(models))
    return total.assign_attrs(_gathered(models, channels))


def _check_comparable(name, first, other, scores) -> None:
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
    domains = [json.loads(s.attrs.get("domains", "{}")) for s in (first, scores)]
    for channel in np.intersect1d(first["channel"].values, scores["channel"].values):
        ours, theirs = (known.get(str(channel), {}) for known in domains)
        if ours.get("where") != theirs.get("where"):
            shares = " and ".join(f"{100 * known.get('share', 1):.4g} %" for known in (ours, theirs))
            raise ValueError(f"Expected {where} scored in the same cells, got {channel} on {shares} of the area")
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
    scores = of_single_forecast(scores)
    forecasts = [str(f) for f in scores["forecast"].values if f not in BASELINES]
    stepped = _stepped(scores)
    renamed = {f: label if [f] == stepped else f"{label} {f}" for f in forecasts}
    kept = [
        v
        for v in map(str, scores.data_vars)
        if is_sum(v)
        or v in _series() | {"members"}
        or "audit_source" in scores[v].dims
        or ("climate_run" in scores[v].dims and not v.startswith(DIFFERENCES))
        or (whole and (v in (*FIXED, "land_sea_mask") or v.startswith("case_") or v.endswith("_units")))
    ]
    if not whole:
        kept = [v for v in kept if any(d in scores[v].dims for d in NAMES)]
    part = scores[kept].drop_vars(DESCRIBED, errors="ignore")
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


def _stepped(scores) -> list[str]:
    """Forecasts that are neither baselines nor held analyses."""
    others = {*BASELINES, *json.loads(scores.attrs.get("held", "[]"))}
    return [str(name) for name in scores["forecast"].values if name not in others]


def _ordered(data: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """Forecasts first, then baselines, then the truth, and coordinates along channels as they were."""
    last = (*BASELINES, "truth")
    for axis in NAMES:
        if axis in data.dims:
            names = [str(n) for n in data[axis].values]
            data = data.sel({axis: [n for n in names if n not in last] + [n for n in last if n in names]})
    known = {n: c for n, c in first.coords.items() if n not in data.coords and c.dims == ("channel",)}
    return data.assign_coords({n: c.sel(channel=data["channel"].values) for n, c in known.items()})


def _gathered(models, channels) -> dict:
    first = next(iter(models.values()))
    result = dict(first.attrs)
    for key in ("config", "run"):
        result[key] = json.dumps({name: json.loads(s.attrs.get(key, "{}")) for name, s in models.items()})
    for key in ("provenance", "dropped_inits", "dropped_leads", "empty_inits", "budgets_skipped", "not_scored"):
        gathered = {}
        for name, scores in models.items():
            forecasts = _stepped(scores)
            for inner, value in json.loads(scores.attrs.get(key, "{}")).items():
                label = name if [inner] == forecasts else inner if inner == "truth" else f"{name} {inner}"
                gathered[inner if key == "not_scored" else label] = value
        result[key] = json.dumps(gathered)
    runs = {
        name if len(known) == 1 else f"{name} {run}": about
        for name, s in models.items()
        for known in (json.loads(s.attrs.get("long_run_provenance", "{}")),)
        for run, about in known.items()
    }
    result |= {"long_run_provenance": json.dumps(runs)} if runs else {}
    held = [f"{name} {inner}" for name, s in models.items() for inner in json.loads(s.attrs.get("held", "[]"))]
    result |= {"held": json.dumps(held)} if held else {}
    left_out = sorted({str(c) for s in models.values() for c in s["channel"].values} - {str(c) for c in channels})
    result["not_compared"] = json.dumps(dict.fromkeys(left_out, "not scored for every model"))
    return result
