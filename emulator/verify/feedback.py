"""Feedback of a cycle of analyses: how far observations lie from the background and from the analysis, by what observed them.

Feedback is Parquet, one file an analysis in a folder: every observation with its equivalents before and after. Statistics are
sums over rows, so that they add up over analyses. Consistency is that of Desroziers et al. (2005, QJRMS 131, 3385-3396): with
d_b = y - H(x_b) and d_a = y - H(x_a), of an analysis whose error covariances are right, E[d_a d_b] is the variance of the
observations' errors and E[(d_b - d_a) d_b] that of the background's.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.files.column_table import read_columns

SCHEMA = "feedback-1"
# Columns beside those of the observations: the analysis' time, equivalents before and after, the standard deviation of the
# background's members and where among how many of them the observation lies (NaN without), and why it was not used.
ADDED = ("analysis_time", "background", "analysis", "background_spread", "rank", "members", "rejected")
NEEDED = ("system", "variable", "level", "value", "error", *ADDED)
NO_EQUIVALENT = "no equivalent"  # of a row that was used and has no background or analysis
SUMS = ("count", "b", "a", "bb", "aa", "ab", "error", "spread", "spread_count")


def feedback_scores(path) -> xr.Dataset:
    """Statistics of a folder of feedback, or of one file, as scores.

    `feedback_kind` is a system, variable and level (rounded to two digits, as soundings have any), with the coordinates
    `feedback_system`, `feedback_variable` and `feedback_level`; `feedback_time` the analyses. Of `(feedback_kind,)`: `count`,
    `background_mean`, `background_std`, `analysis_mean`, `analysis_std` (of observation minus equivalent), `sigma_o`,
    `sigma_b` (estimated) and `sigma_o_used`, `sigma_b_used` (told, and of the members), each with `feedback_` before it; of
    `(feedback_time, feedback_kind)` the same means and deviations with `_by_time`; of `(feedback_kind, feedback_reason)`
    `feedback_rejected`; of `(feedback_kind, feedback_rank)` `feedback_rank_count`, where there are members. A lone value has
    no deviation. Raises `ValueError` in one sentence where nothing lies at the path or a file is no feedback.
    """
    tables = (read_columns(file, SCHEMA, NEEDED) for file in _files(path))
    parts = [_sums(columns) for columns in tables if len(columns["value"])]  # an analysis may have had no observations
    if not parts:
        raise ValueError(f"Expected feedback with observations at {path}, got none in any file")
    kinds = sorted({kind for _, sums, rejected, _ in parts for kind in {*sums, *rejected}}, key=_sorted)
    times = np.array(sorted({time for time, *_ in parts}), "datetime64[ns]")
    total = np.zeros((len(times), len(kinds), len(SUMS)))
    reasons = sorted({reason for *_, rejected, _ in parts for one in rejected.values() for reason in one})
    refused = np.zeros((len(kinds), len(reasons)), np.int64)
    ranks = _ranks(parts, kinds)
    for time, sums, rejected, _ in parts:
        at = int(np.searchsorted(times, time))
        for kind, values in sums.items():
            total[at, kinds.index(kind)] += values
        for kind, one in rejected.items():
            for reason, count in one.items():
                refused[kinds.index(kind), reasons.index(reason)] += count
    whole, by_time = _statistics(total.sum(axis=0)), _statistics(total)
    over = ("feedback_time", "feedback_kind")
    data = {f"feedback_{name}": (over[1:], values) for name, values in whole.items()}
    told = ("count", "background_mean", "background_std", "analysis_mean", "analysis_std")
    data |= {f"feedback_{name}_by_time": (over, by_time[name]) for name in told}
    if reasons:
        data["feedback_rejected"] = ((over[1], "feedback_reason"), refused)
    if ranks is not None:
        data["feedback_rank_count"] = ((over[1], "feedback_rank"), ranks)
    names = dict(zip(("system", "variable", "level"), zip(*kinds, strict=True), strict=True))
    names["level"] = [np.nan if level is None else level for level in names["level"]]
    coordinates = {f"feedback_{name}": (over[1], np.array(values)) for name, values in names.items()}
    coordinates |= {"feedback_time": times} | ({"feedback_reason": reasons} if reasons else {})
    return xr.Dataset(data, coordinates)


def reduction(scores: xr.Dataset, base: str, denied: Sequence[str]) -> xr.DataArray:
    """Share by which observing systems lower the error, from forecasts of cycles that were denied them.

    `(forecast, channel, lead_time)`: 1 - RMSE of `base` over that of each of `denied`, of the first region; what is negative
    was better without. Raises `ValueError` for a name that the scores have not.
    """
    known = [str(name) for name in scores["forecast"].values]
    if absent := [name for name in (base, *denied) if name not in known]:
        raise ValueError(f"Expected forecasts among {', '.join(known)}, got {', '.join(absent)}")
    rmse = scores["rmse"].isel(region=0).transpose("forecast", "channel", "lead_time")
    share = 1 - rmse.sel(forecast=base, drop=True) / rmse.sel(forecast=list(denied))
    return share.transpose("forecast", "channel", "lead_time")


def _files(path) -> list[Path]:
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise ValueError(f"Expected feedback of analyses at {path}, got none")
    return files


def _sums(columns: dict[str, np.ndarray]):
    """Time of the analysis, sums by kind, rejected rows by kind and reason, and ranks by kind, of one file."""
    kind = [(s, v, _rounded(l)) for s, v, l in zip(*(columns[n].tolist() for n in NEEDED[:3]), strict=True)]
    names = sorted(set(kind), key=_sorted)
    number = np.array([{name: n for n, name in enumerate(names)}[each] for each in kind], np.int64)
    b, a = columns["value"] - columns["background"], columns["value"] - columns["analysis"]
    refusal = np.where((columns["rejected"] == "") & ~np.isfinite(b + a), NO_EQUIVALENT, columns["rejected"])
    used, spread = refusal == "", columns["background_spread"]
    told = np.isfinite(spread)
    terms = (np.ones(len(b)), b, a, b * b, a * a, a * b, columns["error"] ** 2, np.where(told, spread, 0) ** 2, told)
    sums, rejected, ranks = {}, {}, {}
    for n, name in enumerate(names):
        here = used & (number == n)
        if here.any():
            sums[name] = np.array([term[here].sum() for term in terms])
            ranked = here & np.isfinite(columns["rank"])
            if ranked.any():
                most = int(columns["members"][ranked].max())
                ranks[name] = np.bincount(columns["rank"][ranked].astype(np.int64), minlength=most + 1)
        refused = refusal[~used & (number == n)]
        if len(refused):
            reason, count = np.unique(refused, return_counts=True)
            rejected[name] = dict(zip(reason.tolist(), count.tolist(), strict=True))
    return columns["analysis_time"][0], sums, rejected, ranks


def _ranks(parts, kinds) -> np.ndarray | None:
    """Counts `(kind, rank)` over all files; None without members, or where their number changed."""
    found = [(kind, counts) for *_, ranks in parts for kind, counts in ranks.items()]
    if len({len(counts) for _, counts in found}) != 1:
        return None
    result = np.zeros((len(kinds), len(found[0][1])), np.int64)
    for kind, counts in found:
        result[kinds.index(kind)] += counts
    return result


def _statistics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Means, deviations and consistency of sums `(..., kind, SUMS)`, each `(..., kind)`."""
    count, b, a, bb, aa, ab, error, spread, told = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_b, mean_a = b / count, a / count
        of_b, of_a, both = bb / count - mean_b**2, aa / count - mean_a**2, ab / count - mean_a * mean_b
        unbiased = np.where(count > 1, count / (count - 1), np.nan)

        def deviation(variance):
            return np.sqrt(np.where(variance > 0, variance, np.where(np.isnan(variance), np.nan, 0.0)) * unbiased)

        return {
            "count": count.astype(np.int64),
            "background_mean": mean_b,
            "background_std": deviation(of_b),
            "analysis_mean": mean_a,
            "analysis_std": deviation(of_a),
            "sigma_o": deviation(both),
            "sigma_b": deviation(of_b - both),
            "sigma_o_used": np.sqrt(error / count),
            "sigma_b_used": np.sqrt(spread / told),
        }


def _rounded(level: float) -> float | None:
    return float(f"{level:.2g}") if np.isfinite(level) else None


def _sorted(kind: tuple) -> tuple:
    system, variable, level = kind
    return system, variable, -np.inf if level is None else level
