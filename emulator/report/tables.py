"""The scores beside the page: long tables as CSV, and what a regression gate needs as JSON."""

import csv
import io
import itertools
import json

import numpy as np

from emulator.planet.calendar import lead_seconds
from emulator.report import budgets
from emulator.report.ensemble_rows import ensemble_curves
from emulator.report.panels.exchange import exchange_rows
from emulator.report.panels.summary import verdict
from emulator.report.view import View
from emulator.verify.metric import registered, with_interval

COMPARISONS = ("difference", "difference_half_width", "p_value", "significant")


def to_csv(view: View) -> str:
    """One row per forecast, channel, region and lead, in the units of the stores; differences in percent."""
    scores, order = view.scores, ("forecast", "channel", "region", "lead_time")
    names = [f"{metric.name}{end}" for metric in registered() for end in ("", "_low", "_high")]
    columns = {
        name: scores[name].transpose(*order).values
        for name in names
        if name in scores and set(scores[name].dims) == set(order)
    }
    for name in COMPARISONS:
        for baseline in map(str, scores["baseline"].values):
            columns[f"{name}_vs_{baseline}"] = scores[name].sel(baseline=baseline).transpose(*order).values
    count = scores["count"].transpose(*order[1:]).values
    buffer, unit = io.StringIO(), "months" if view.unit == "month" else "hours"
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["forecast", "variable", "level", "units", "region", f"lead_{unit}", "initial_times", *columns])
    variables, levels, units = (scores[name].values for name in ("variable", "level_name", "channel_units"))
    forecasts, regions, hours = (
        scores["forecast"].values,
        scores["region"].values,
        [f"{lead * (24 if unit == 'hours' else 1):g}" for lead in view.leads],
    )
    for f, c, r, l in np.ndindex(*next(iter(columns.values())).shape):
        row = [forecasts[f], variables[c], levels[c], units[c], regions[r], hours[l], count[c, r, l]]
        writer.writerow(row + [_text(values[f, c, r, l]) for values in columns.values()])
    return buffer.getvalue()


def to_json(view: View) -> str:
    """Verdict, headline scores, budgets and provenance; missing numbers are null."""
    leads = view.table_leads()
    headline = [
        {
            "forecast": name,
            "channel": channel,
            "units": str(view.scores["channel_units"].values[view.position(channel)]),
            **_lead(view, lead),
            "rmse": _value(view.get("rmse", name, channel, scaled=False)[lead]),
            "rmse_interval": [
                _value(view.get(k, name, channel, scaled=False)[lead]) for k in ("rmse_low", "rmse_high")
            ],
            "acc": _value(view.get("acc", name, channel, scaled=False)[lead]),
            "bias": _value(view.get("bias", name, channel, scaled=False)[lead]),
            **{
                f"percent_vs_{baseline}": _value(view.against("difference", baseline, name, channel)[lead])
                for baseline in view.baselines
            },
            "useful_until_day": _value(view.useful_until(name, channel)[0]),
        }
        for name in view.forecasts or view.baselines[:1]
        for channel in view.headline
        for lead in leads
    ]
    content = {
        "verdict": " ".join(verdict(view)),
        "initial_times": int(view.scores.sizes["init_time"]),
        "headline": headline,
        "sample": _sample(view),
        "init_times": [str(time) for time in view.scores["init_time"].values],
        "series": _series(view),
        "budgets": _budgets(view) if budgets.has_budgets(view) else [],
        "exchange": [
            {"source": source, "what": name} | {k: v if isinstance(v, str) else _value(v) for k, v in found.items()}
            for source, name, found in exchange_rows(view)
        ],
        "ensemble": ensemble_curves(view),
        "climate": climate_rows(view),
        "scenarios": scenario_rows(view),
        "climatology": view.scores.attrs.get("climatology"),
        "provenance": view.note("provenance"),
        "config": view.note("config"),
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _lead(view, lead: int) -> dict[str, float]:
    """The lead in days; where leads are months also in those, of which the days are nominal."""
    days = float(lead_seconds(view.scores["lead_time"].values[lead]) / 86400)
    return {"lead_days": days} | ({"lead_months": float(view.leads[lead])} if view.unit == "month" else {})


def _sample(view) -> dict:
    """What two scores must share to be compared."""
    sample = view.note("sample")
    return {key: sample.get(key) for key in ("grid", "truth", "climatology")}


def _series(view) -> list[dict]:
    """What differences are judged by, at every initial time: headline channels, leads of the tables, all regions."""
    return [
        {
            "forecast": name,
            "channel": channel,
            "region": region,
            **_lead(view, lead),
            **_judged(view, name, channel, region, lead),
        }
        for name in view.forecasts or view.baselines[:1]
        for channel in view.headline
        for region in view.regions
        for lead in view.table_leads()
    ]


def _judged(view, forecast, channel, region, lead) -> dict:
    """Statistic -> its values at every initial time; those at the channels of maps for ensembles alone."""
    values = {}
    for interval in (metric.interval for metric in with_interval() if metric.interval.differences):
        axis, known = interval.dims[1], view.scores.get(interval.series)
        if known is None or channel not in known[axis] or not (interval.everywhere or view.members(forecast) > 1):
            continue
        place = {"forecast": forecast, axis: channel, "region": region}
        each = known.sel(place).isel(lead_time=lead).transpose("init_time").values
        values[interval.statistic] = [_value(value) for value in each]
    return values


def _budgets(view):
    return [
        {
            "source": source,
            "budget": budget,
            "relative_residual_per_step_rms": _value(budgets.overall(view, source, budget)),
            "residual_mean": _value(budgets.mean_residual(view, source, budget)),
            "residual_units": str(view.scores["budget_units"].sel(budget=budget).values),
        }
        for source in budgets.sources(view)
        for budget in map(str, view.scores["budget"].values)
    ]


def rows_to_csv(rows: list[dict]) -> str:
    """Rows of the same keys, which become the header; missing numbers are empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return buffer.getvalue()


def climate_rows(view: View) -> list[dict]:
    """Scores of the long runs, those by years too: a row for each run and field, in the units of the stores.

    Of scores of run and reference the latter's is called `reference_<score>`.
    """
    scores, along = view.scores, {"climate_run", "climate_channel"}
    if "climate_sample" not in scores:
        return []
    numbers = {str(name): scores[name] for name in scores.data_vars if scores[name].dtype.kind in "fiub"}
    single = {name.removeprefix("climate_"): array for name, array in numbers.items() if set(array.dims) == along}
    for name, array in numbers.items():
        if set(array.dims) == along | {"climate_record"}:
            score = name.removeprefix("climate_")
            single[score] = array.sel(climate_record="run")
            single[f"reference_{score}"] = array.sel(climate_record="truth")
    return [
        {"run": run, "channel": channel, "sample": str(scores["climate_sample"].sel(climate_run=run).values)}
        | {name: _value(float(array.sel(climate_run=run, climate_channel=channel))) for name, array in single.items()}
        for run in map(str, scores["climate_run"].values)
        for channel in map(str, scores["climate_channel"].values)
    ]


def scenario_rows(view: View) -> list[dict]:
    """Scores of the held-out scenarios: a row for each of them, each source and each field."""
    scores, dims = view.scores, ("scenario", "scenario_source", "scenario_channel")
    named = {str(name): scores[name] for name in scores.data_vars if set(scores[name].dims) == set(dims)}
    places = [[str(name) for name in scores[dim].values] for dim in dims] if named else [[]]
    return [
        dict(zip(("scenario", "source", "channel"), place, strict=True))
        | {
            name.removeprefix("scenario_"): _value(float(array.sel(dict(zip(dims, place, strict=True)))))
            for name, array in named.items()
        }
        for place in itertools.product(*places)
    ]


def _value(number):
    return float(number) if np.isfinite(number) else None


def _text(value):
    return "" if not np.isfinite(value) else f"{value:.8g}"
