"""What a comparison tells of its variants: rows of a table from their scores, their training and their long runs."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.data.channels import Layout
from emulator.model import checkpoint
from emulator.report.budgets import sources, step_rms
from emulator.report.display import lead_label
from emulator.report.view import View
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from pipelines.config import Experiment

RAIN = "mean_total_precipitation_rate"
LEADS = (1, 3, 5, 10)
MM_PER_DAY = 86400.0  # of 1 kg m-2 s-1
DRIZZLE = (0.1, 1.0)  # mm per day
PROCESSOR, MEMBER_STEP = "processor_seconds.txt", "member_step.json"
FAR = 20  # standard deviations from the mean, where no state of the truth lies


def row_of(view: View, name: str, stages: Sequence[Experiment], base: Experiment) -> dict:
    """What is told of a variant, by what it is.

    `stages`: its trainings in their order, the last with forecasts. `base`: whose data all variants share.
    """
    experiment = stages[-1]
    row = {"variant": name, "parameters": _parameters(experiment)} | _training(stages)
    if (told := Path(experiment.directory) / MEMBER_STEP).exists():
        cost = json.loads(told.read_text())
        row["processor time of a member-step [ms]"] = cost["milliseconds"]
        row["memory of a member-step [MiB]"] = cost["mebibytes"]
    row |= _errors(view, name) | _of_ensemble(view, name) | _power(view, name)
    if "budget_relative" in view.scores and name in sources(view):
        for budget in map(str, view.scores["budget"].values):
            row[f"{budget} residual"] = float(np.nanmax(step_rms(view, name, budget)[1:]))
    row |= _rain(experiment)
    days = experiment.rollout.long_run_days
    if days:
        row[f"largest departure in {days} days [std]"] = float(
            _departures(experiment, experiment.rollout.long_run, base).max()
        )
    if (free := free_run_of(experiment)).exists():
        departures = _departures(experiment, free, base)
        last, far = len(departures) - 1, np.flatnonzero(departures >= FAR)
        row[f"the same in {last} days without the envelope"] = float(departures.max())
        row[f"days until {FAR} std without the envelope"] = int(far[0]) if len(far) else f"over {last}"
    return row


def rows_of_baselines(view: View) -> list[dict]:
    return [{"variant": name, **_errors(view, name)} for name in view.baselines]


def free_run_of(experiment: Experiment) -> Path:
    """Where the long run without the envelope is kept."""
    return Path(experiment.rollout.output).with_name("free_run.zarr")


def _training(stages: Sequence[Experiment]) -> dict:
    """Time and memory of all trainings together, updates of each; None for a checkpoint that was there."""
    trained = [stage for stage in stages if stage.train is not None]
    names = "training seconds", "of them processor time", "updates", "updates a second", "peak memory of training [GB]"
    if not trained:
        return dict.fromkeys(names)
    logs = [(Path(stage.train.output) / "timing.jsonl").read_text().splitlines() for stage in trained]
    timing = [[json.loads(line) for line in lines] for lines in logs]
    processor = [(Path(stage.directory) / PROCESSOR).read_text().split() for stage in trained]
    updates = [sum(phase.updates for phase in stage.train.phases) for stage in trained]
    paces = [Path(stage.directory) / "phases.json" for stage in trained]
    rates = [1 / json.loads(kept.read_text())["seconds"][0] for kept in paces if kept.exists()]
    values = (
        round(sum(map(_spent, timing))),
        round(sum(float(seconds) for each in processor for seconds in each)),
        updates if len(updates) > 1 else updates[0],
        rates if len(rates) > 1 else next(iter(rates), None),
        max(entry["peak_memory_gb"] for each in timing for entry in each),
    )
    return dict(zip(names, values, strict=True))


def _parameters(experiment: Experiment) -> int:
    tensors, _ = checkpoint.load(Path(experiment.rollout.checkpoint))
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("network."))


def _errors(view: View, name: str) -> dict:
    """RMSE of the headline channels after `LEADS` days, as far as forecasts go."""
    found, leads = {}, [place for place in map(view.lead_index, LEADS) if place is not None]
    for channel in view.headline:
        rmse = view.get("rmse", name, channel)
        found[f"{view.title(channel)} [{view.units(channel)}]"] = [float(rmse[place]) for place in leads]
    return found


def _of_ensemble(view: View, name: str) -> dict:
    """CRPS of the headline channels, and spread over the error of the ensemble mean, after `LEADS` days."""
    if "crps" not in view.scores or not np.isfinite(view.get("crps", name, view.headline[0])[1:]).any():
        return {}
    found, leads = {}, [place for place in map(view.lead_index, LEADS) if place is not None]
    for channel in view.headline:
        for score, title in (("crps", "CRPS of"), ("spread_skill", "spread over error of")):
            values = view.get(score, name, channel, scaled=score == "crps")
            units = f" [{view.units(channel)}]" * (score == "crps")
            found[f"{title} {view.title(channel)}{units}"] = [float(values[place]) for place in leads]
    return found


def _power(view: View, name: str) -> dict:
    """Power of the smallest features over the truth's at the leads of spectra: mean over the upper third of wavenumbers."""
    if "power_ratio" not in view.scores:
        return {}
    found = {}
    for channel in view.headline:
        ratios = view.scores["power_ratio"].sel(source=name).isel(channel=view.position(channel)).values
        known = np.flatnonzero(np.isfinite(ratios).all(0))
        title = (
            f"power of small {view.title(channel)} at {', '.join(map(lead_label, view.scores['spectrum_lead'].values))}"
        )
        found[title] = [float(value) for value in ratios[:, known[2 * len(known) // 3 :]].mean(1)]
    return found


def _spent(timing: list[dict]) -> float:
    """Seconds over all starts of a training: each start counts from nought."""
    total, last = 0.0, 0.0
    for seconds in (row["seconds"] for row in timing):
        total += seconds - last if seconds > last else seconds
        last = seconds
    return total


def _rain(experiment: Experiment) -> dict:
    """Mean precipitation against the truth at the same times, and the share of area and time with drizzle, days 1 to 5."""
    forecast, truth = open_forecast(experiment.rollout.output), open_analysis(experiment.rollout.store)
    if RAIN not in forecast:
        return {}
    area = grid_of(truth).area
    sums = np.zeros((2, 2))
    leads = forecast["lead_time"].values
    wanted = (leads >= np.timedelta64(24, "h")) & (leads <= np.timedelta64(120, "h"))
    for init in forecast["init_time"].values:
        ours = forecast[RAIN].sel(init_time=init).transpose("lead_time", ...).values[wanted]
        true = truth[RAIN].sel(time=init + leads[wanted]).values
        for row, field in enumerate((ours, true)):
            field = field.astype(np.float64).reshape(-1, *area.shape) * MM_PER_DAY  # times, and members
            drizzle = (field >= DRIZZLE[0]) & (field < DRIZZLE[1])
            sums[row] += [(field.mean(0) * area).sum(), (drizzle.mean(0) * area).sum()]
    (rain, drizzle), (true_rain, true_drizzle) = sums / forecast.sizes["init_time"]
    return {
        "precipitation bias [mm/day]": rain - true_rain,
        "drizzle share": drizzle,
        "drizzle share of the truth": true_drizzle,
    }


def _departures(experiment: Experiment, run: Path, base: Experiment) -> np.ndarray:
    """Largest |x - mean| / std of any field, level and cell on each day of a long run from its start; not finite: inf."""
    saved = checkpoint.describe(Path(experiment.rollout.checkpoint))
    with xr.open_dataset(base.train.statistics) as statistics_:
        run_ = open_forecast(run)
        worst = np.zeros(run_.sizes["lead_time"])
        for name in Layout.from_json(saved["layout"]).prognostic.names:
            values = run_[name].isel(init_time=0).values.astype(np.float64)
            mean, std = (statistics_[name].sel(statistic=kind).values for kind in ("mean", "std"))
            shape = (1, -1, 1, 1) if values.ndim == 4 else (1, 1, 1)
            departure = np.abs((values - mean.reshape(shape)) / std.reshape(shape)).max(axis=(-2, -1))
            if name == "specific_humidity":
                departure = departure[:, 1:]  # almost no water in the top layer: the truth itself reaches 60 there
            worst = np.maximum(worst, np.nan_to_num(departure, nan=np.inf).reshape(len(worst), -1).max(1))
        return worst


def markdown(table: list[dict]) -> str:
    """Variants as columns, what was measured as rows."""
    lines = [
        "| | " + " | ".join(row["variant"] for row in table) + " |",
        "|---|" + "---|" * len(table),
    ]
    for key in dict.fromkeys(key for row in table for key in row if key != "variant"):
        lines.append(f"| {key} | " + " | ".join(_cell(row.get(key)) for row in table) + " |")
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " / ".join(map(_cell, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
