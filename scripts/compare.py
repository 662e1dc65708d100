"""Train variants of one experiment on the same data, verify them against one another, and print a table.

    python scripts/compare.py conf/compare/conservation.yaml [--minutes M] [dotted.name=value ...]

The file names an experiment, whose data and statistics all variants share (they are made when they are not there), and
what each variant changes. Overrides apply to every variant. Every variant is trained, rolled out and scored like an
experiment of its own under `directory/NAME`; `directory/report/report.html` compares them. With `--minutes` the numbers
of updates are scaled, before a variant starts, so that its training takes that long at its own measured speed. A stopped
comparison goes on where it was.
"""

import argparse
import json
import logging
import re
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.report.panels.conservation import sources, step_rms
from emulator.report.view import View
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from emulator.verify.assemble import open_scores
from pipelines import load
from pipelines.config import Experiment, ReportConfig, TrainConfig, VerifyConfig
from pipelines.report import report
from pipelines.run import run
from pipelines.train import train
from pipelines.verify import verify
from pipelines.yaml_files import read_yaml

RAIN = "mean_total_precipitation_rate"
LEADS = (1, 3, 5)
MM_PER_DAY = 86400.0  # of 1 kg m-2 s-1
DRIZZLE = (0.1, 1.0)  # mm per day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--minutes", type=float, help="training time of each variant")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    plan = read_yaml(options.config)
    source = options.config.parent / plan["experiment"]
    directory = Path(plan["directory"])
    base = load.load_experiment(source)
    _make_data(base)
    rows = {}
    for name, changes in plan["variants"].items():
        place = directory / re.sub(r"\W+", "-", name)
        experiment = _variant(base, source, changes, options.overrides, place)
        if options.minutes:
            experiment = _timed(experiment, options.minutes * 60, place)
        run(experiment)
        rows[name] = experiment
    view = _score(base, rows, directory)
    table = [_row(view, name, experiment) for name, experiment in rows.items()]
    table += [{"variant": name, **_errors(view, name)} for name in view.baselines]
    print(_markdown(table))
    (directory / "table.json").write_text(json.dumps(table, indent=1))


def _make_data(base: Experiment) -> None:
    if not (Path(base.train.store).exists() and Path(base.train.statistics).exists()):
        run(base.model_copy(update=dict.fromkeys(("train", "rollout", "verify", "report"))))


def _variant(base: Experiment, source: Path, changes: dict, overrides: list[str], place: Path) -> Experiment:
    """The experiment with a variant's changes, on the base's data, in a directory of its own."""
    dotted = [*_dotted(changes), *overrides, f"directory={json.dumps(str(place))}"]
    found = load.load_experiment(source, dotted)
    train_config = found.train.model_copy(update={"store": base.train.store, "statistics": base.train.statistics})
    rollout = found.rollout.model_copy(update={"store": base.train.store, "uncorrected_inits": 0})
    return Experiment(directory=place, train=train_config, rollout=rollout)


def _dotted(changes: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in changes.items():
        inner = isinstance(value, dict) and not (prefix + key == "train.network" and "kind" in value)  # another network
        found += _dotted(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}={json.dumps(value)}"]
    return found


def _timed(experiment: Experiment, seconds: float, place: Path) -> Experiment:
    """The variant with its phases scaled to a training time; the choice is kept beside its results."""
    kept = place / "phases.json"
    config = experiment.train
    if kept.exists():
        updates = json.loads(kept.read_text())
    else:
        spent = sum(phase.updates * _seconds_per_update(config, i) for i, phase in enumerate(config.phases))
        updates = [max(1, round(phase.updates * seconds / spent)) for phase in config.phases]
        place.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(updates))
    phases = [phase.model_copy(update={"updates": n}) for phase, n in zip(config.phases, updates, strict=True)]
    return experiment.model_copy(update={"train": config.model_copy(update={"phases": phases})})


def _seconds_per_update(config: TrainConfig, index: int, trials: int = 6) -> float:
    phase = config.phases[index].model_copy(update={"updates": trials + 2})
    with tempfile.TemporaryDirectory() as folder:
        train(config.model_copy(update={"phases": [phase], "output": Path(folder), "log_every": 1}))
        at = [json.loads(line)["seconds"] for line in (Path(folder) / "timing.jsonl").read_text().splitlines()]
    return statistics.median(np.diff(at)[1:])


def _score(base: Experiment, rows: dict[str, Experiment], directory: Path) -> View:
    forecasts = {name: experiment.rollout.output for name, experiment in rows.items()}
    common = {"truth": base.train.store, "climatology": base.verify.climatology}
    verify(VerifyConfig(forecasts=forecasts, output=directory / "scores.nc", **common))
    report(ReportConfig(scores=directory / "scores.nc", output=directory / "report", title=directory.name))
    return View(open_scores(directory / "scores.nc"))


def _row(view: View, name: str, experiment: Experiment) -> dict:
    timing = (Path(experiment.train.output) / "timing.jsonl").read_text().splitlines()
    row = {
        "variant": name,
        "training seconds": round(_spent(timing)),
        "updates": sum(phase.updates for phase in experiment.train.phases),
    }
    row |= _errors(view, name)
    if "budget_relative" in view.scores and name in sources(view):
        for budget in map(str, view.scores["budget"].values):
            row[f"{budget} residual"] = float(np.nanmax(step_rms(view, name, budget)[1:]))
    row |= _rain(experiment)
    if experiment.rollout.long_run_days:
        row[f"largest departure in {experiment.rollout.long_run_days} days [std]"] = _departure(experiment)
    return row


def _errors(view: View, name: str) -> dict:
    """RMSE of the headline channels after `LEADS` days."""
    found = {}
    for channel in view.headline:
        rmse = view.get("rmse", name, channel)
        found[f"{view.title(channel)} [{view.units(channel)}]"] = [float(rmse[i]) for i in map(view.lead_index, LEADS)]
    return found


def _spent(timing: list[str]) -> float:
    """Seconds over all starts of a training: each start counts from nought."""
    total, last = 0.0, 0.0
    for seconds in (json.loads(line)["seconds"] for line in timing):
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
        ours = forecast[RAIN].sel(init_time=init).values[wanted]
        true = truth[RAIN].sel(time=init + leads[wanted]).values
        for row, field in enumerate((ours, true)):
            field = field.astype(np.float64) * MM_PER_DAY
            drizzle = (field >= DRIZZLE[0]) & (field < DRIZZLE[1])
            sums[row] += [(field.mean(0) * area).sum(), (drizzle.mean(0) * area).sum()]
    (rain, drizzle), (true_rain, true_drizzle) = sums / forecast.sizes["init_time"]
    return {
        "precipitation bias [mm/day]": rain - true_rain,
        "drizzle share": drizzle,
        "drizzle share of the truth": true_drizzle,
    }


def _departure(experiment: Experiment) -> float:
    """Largest |x - mean| / std of any field, level and day of the long run; NaN when it is not finite."""
    with xr.open_dataset(experiment.train.statistics) as statistics_:
        run_ = open_forecast(experiment.rollout.long_run)
        worst = 0.0
        for name in experiment.train.prognostic or []:
            values = run_[name].isel(init_time=0).values.astype(np.float64)
            mean, std = (statistics_[name].sel(statistic=kind).values for kind in ("mean", "std"))
            shape = (1, -1, 1, 1) if values.ndim == 4 else (1, 1, 1)
            departure = np.abs((values - mean.reshape(shape)) / std.reshape(shape)).max(axis=(0, -2, -1))
            if name == "specific_humidity":
                departure = departure[1:]  # almost no water in the top layer: the truth itself reaches 60 there
            worst = max(worst, float(departure.max())) if np.isfinite(departure).all() else float("nan")
    return worst


def _markdown(table: list[dict]) -> str:
    """Variants as columns, what was measured as rows."""
    lines = [
        "| | " + " | ".join(row["variant"] for row in table) + " |",
        "|---|" + "---|" * len(table),
    ]
    for key in [key for key in table[0] if key != "variant"]:
        lines.append(f"| {key} | " + " | ".join(_cell(row.get(key)) for row in table) + " |")
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " / ".join(f"{entry:.3g}" for entry in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
