"""The gate for continuous integration: is a model significantly worse than the one before it?"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from emulator.verify.metric import Metric, with_interval
from emulator.verify.significance import false_discovery, mean_interval

BUDGET_FACTOR, BUDGET_FLOOR = 10.0, 1e-7  # a residual is worse when it grows tenfold, above what rounding leaves


@dataclasses.dataclass(frozen=True)
class Finding:
    """One score against the baseline's.

    Attributes:
      what: score, field, region and lead; change: in percent, of the RMSE, an ensemble's CRPS or a residual.
      p_value: of no difference, NaN for budgets; verdict: "better", "worse", "same" or "missing".
    """

    what: str
    change: float
    p_value: float
    verdict: str

    def line(self) -> str:
        sure = f", p = {self.p_value:.2g}" if np.isfinite(self.p_value) else ""
        return f"{self.verdict:8}{self.change:+9.2f} %  {self.what}{sure}"


def read(path: Path) -> dict:
    """The content of a `scores.json`. Raises `ValueError` for a file that the report did not write."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Expected scores at {path}, got: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected JSON at {path}, got: {error}") from None
    if not isinstance(content, dict) or "series" not in content:
        raise ValueError(f"Expected scores.json of a report, with 'series', at {path}; got none there")
    return content


def judge(scores: dict, baseline: dict, rate: float = 0.05, tolerance: float = 0.0) -> list[Finding]:
    """Every score of the baseline against the same score now, the worst first.

    Squared errors, and an ensemble's CRPS, are paired by initial time (Student's t with the inflation of Geer 2016); `rate`
    is the false discovery rate over all of them. A significant growth of the score by more than `tolerance` percent is
    "worse". Raises `ValueError`, naming the difference, when the two were not scored on the same sample.
    """
    for key in ("sample", "init_times"):
        if scores.get(key) != baseline.get(key):
            ours, theirs = _short(scores.get(key)), _short(baseline.get(key))
            raise ValueError(
                f"Expected scores of the same {key.replace('_', ' ')} as the baseline's {theirs}, got {ours}"
            )
    if len(scores["init_times"]) < 4:
        raise ValueError(f"Expected at least 4 initial times to judge, got {len(scores['init_times'])}")
    names, before = (list(dict.fromkeys(e["forecast"] for e in content["series"])) for content in (scores, baseline))
    alone = len(names) == len(before) == 1
    if lost := [name for name in before if name not in names and not alone]:
        raise ValueError(
            f"Expected the baseline's forecasts {', '.join(before)} among the scores, got {', '.join(names)}, without "
            f"{', '.join(lost)}; forecasts are found by their names under forecasts of verify"
        )
    now = _by_place(scores, alone)
    rows = []
    for place, old in _by_place(baseline, alone).items():
        if not np.isfinite(old).all():
            continue
        new = now.get(place)
        if new is None or not np.isfinite(new).all():
            rows.append((place, np.nan, np.nan))
            continue
        _, _, p_value = mean_interval((new - old)[:, None])
        ratio = new.mean() / old.mean() if old.mean() > 0 else 1.0
        rows.append((place, 100 * ((np.sqrt(ratio) if place[0].interval.root else ratio) - 1), float(p_value[0])))
    sure = false_discovery(np.array([row[2] for row in rows]), rate)
    findings = [_finding(row, bool(s), tolerance) for row, s in zip(rows, sure, strict=True)]
    findings += _budgets(scores, baseline)
    order = {"missing": 0, "worse": 1, "better": 2, "same": 3}
    return sorted(findings, key=lambda f: (order[f.verdict], -abs(f.change) if np.isfinite(f.change) else 0))


def _finding(row, sure, tolerance) -> Finding:
    place, change, p_value = row
    metric, forecast, channel, region, lead = place
    what = f"{metric.title} of {channel}, {region}, day {lead:g}" + (f" ({forecast})" if forecast else "")
    if not np.isfinite(change):
        return Finding(what, change, p_value, "missing")
    worse = (change > 0) == (metric.better == "lower")
    verdict = "same" if not sure or abs(change) <= tolerance else "worse" if worse else "better"
    return Finding(what, change, p_value, verdict)


def _by_place(content, alone: bool) -> dict[tuple[Metric, str, str, str, float], np.ndarray]:
    """Values at every initial time by metric, forecast, channel, region and lead; where both are alone without its name."""
    return {
        (metric, "" if alone else e["forecast"], e["channel"], e["region"], e["lead_days"]): np.array(
            [np.nan if v is None else v for v in e[metric.interval.statistic]], np.float64
        )
        for metric in with_interval()
        for e in content["series"]
        if metric.interval.differences and metric.interval.statistic in e
    }


def _budgets(scores, baseline) -> list[Finding]:
    def residuals(content):
        sources = [b["source"] for b in content.get("budgets", [])]
        return {
            b["budget"]: b["relative_residual_per_step_rms"]
            for b in content.get("budgets", [])
            if b["source"] == sources[0] and b["relative_residual_per_step_rms"] is not None
        }

    now, findings = residuals(scores), []
    for budget, old in residuals(baseline).items():
        new = now.get(budget)
        what = f"residual of {budget.replace('_', ' ')} per step"
        if new is None:
            findings.append(Finding(what, np.nan, np.nan, "missing"))
            continue
        worse = new > BUDGET_FLOOR and new > BUDGET_FACTOR * old
        change = 100 * (new / old - 1) if old > 0 else 0.0
        findings.append(Finding(what, change, np.nan, "worse" if worse else "same"))
    return findings


def _short(value) -> str:
    if isinstance(value, list):
        return f"{value[0]} to {value[-1]} ({len(value)})" if value else "none"
    return repr(value)
