"""Rate of a long rollout with corrections and written output, against the embedded model's own rate on the same cores.

Takes the checkpoint and the store of a run directory (by default the quickstart's), rolls it out from its first initial time
with daily output to Zarr, and counts simulated years a day of wall time, without the first steps. `peer` is the embedded
model (JAX-GCM, T31, 8 levels) on the same number of threads, compiled before it is timed. Then the same rollout without
writing: `ratio` of the case "writing" is computing alone over computing and writing. `--years 10` runs all ten years; peak
memory after a tenth and at the end shows that it does not grow. Then the parts of a step, milliseconds each, and a step of 8
members together against one of a single forecast (`peer`; `ratio` is how many times as long).
"""

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import emulator


def loaded(run: Path):
    from emulator.forecasting.forecaster import Forecaster
    from emulator.model.saved_model import load_model
    from emulator.store.analysis import open_analysis

    if not (run / "analysis.zarr").exists() or not (run / "train" / "checkpoint").exists():
        raise SystemExit(
            f"Expected analysis.zarr and train/checkpoint in {run}; run conf/quickstart.yaml first or give --run"
        )
    dataset = open_analysis(run / "analysis.zarr")
    step = load_model(run / "train" / "checkpoint")
    return Forecaster([step], dataset, 1), step.metadata


def rollout_rate(run, days: int, every: int, path: Path | None) -> tuple[float, float, float]:
    """Simulated years a day of wall time, and peak memory in GiB after a tenth of the run and at its end."""
    from emulator.files.background import BackgroundWriter
    from emulator.forecasting.beyond_training import Note
    from emulator.forecasting.datasets import dataset_of
    from emulator.forecasting.schedule import Schedule
    from emulator.forecasting.writing import _write_block
    from emulator.store.forecast import create_forecast, finish_forecast
    from emulator.store.regions import progress_path

    schedule = Schedule.every(days * every, every)
    inits = [run.dataset["time"].values[-1]]
    leads = np.round(np.array(schedule.numbers) * run.forcing.step_seconds * 1e9).astype("timedelta64[ns]")
    fields = {}
    for _, block in run.blocks(inits, Schedule(schedule.ends[:1])):
        fields |= block.fields()
    if path is not None:
        template = dataset_of(run, {n: f[0] for n, f in fields.items()}, leads)
        create_forecast(path, template, inits, leads, {"fingerprint": "bench"})
        of_sea = Note.begin(progress_path(path), "bench-sea", run.trained_sea)
    at, early, start = 0, 0.0, time.perf_counter()
    with BackgroundWriter() as writer:
        for here, block in run.blocks(inits, schedule):
            length = block.leads
            if path is not None:
                last = at + length == len(leads)
                options = leads[at : at + length], None, False
                writer.submit(_write_block, run, None, path, [0], block, options, last, of_sea)
                writer.submit(here.save, progress_path(path) / "restart.safetensors")  # as the stage does
            at += length
            if not early and at >= len(leads) / 10:
                early = peak()
    if path is not None:
        finish_forecast(path)
    seconds = time.perf_counter() - start
    return days / 365.25 / seconds * 86400, early, peak()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def embedded_rate(days: int) -> float | None:
    """Simulated years a day of the embedded model; None where it is not installed."""
    try:
        from emulator.embedded.speedy import Settings, build

        model = build(Settings())
    except ImportError:
        return None
    state = model.initial_state()
    state, _ = model.advance_day(state)  # compiles
    start = time.perf_counter()
    for _ in range(days):
        state, _ = model.advance_day(state)
    return days / 365.25 / (time.perf_counter() - start) * 86400


def cases(options):
    run, metadata = loaded(options.run)
    every = round(86400 / metadata["step_seconds"])
    days = round(options.years * 365.25)
    rollout_rate(run, 5, every, None)  # warms up
    short = min(days, 60)
    pairs = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number in range(options.repeats):
            alone, *_ = rollout_rate(run, short, every, None)
            written, *_ = rollout_rate(run, short, every, Path(folder) / f"{number}.zarr")
            pairs.append((alone, written))
        rate, early, end = rollout_rate(run, days, every, Path(folder) / "long.zarr")
    theirs = embedded_rate(options.embedded_days) if options.embedded_days else None
    grid = " x ".join(map(str, run.forcing.grid.shape))
    yield {
        "case": f"{options.years:g} years, {grid}, 6 h, corrections, daily output",
        "ours": rate,
        "peer": theirs,
        "ratio": rate / theirs if theirs else None,
        "unit": "simulated years a day",
    }
    alone, written = (float(np.median(column)) for column in zip(*pairs, strict=True))
    yield {
        "case": "writing: rate with daily output over the rate without",
        "ours": written,
        "peer": alone,
        "ratio": float(np.median([w / a for a, w in pairs])),
        "unit": "simulated years a day",
    }
    yield {
        "case": "peak memory at the end over that after a tenth",
        "ours": end,
        "peer": early,
        "ratio": early / end,
        "unit": "GiB",
    }
    import rollout_parts

    steps = rollout_parts.parts_of_a_step(run, short, every)
    steps |= {f"kernel {name}": value for name, value in rollout_parts.kernels_of_the_network(run).items()}
    for name, milliseconds in steps.items():
        yield {"case": f"a step: {name}", "ours": milliseconds, "peer": None, "ratio": None, "unit": "ms"}
    together, one = rollout_parts.batch_against_one(run, short, every, options.repeats)
    case = f"a step of {rollout_parts.MEMBERS} members over one of a single forecast, no writing"
    yield {"case": case, "ours": together, "peer": one, "ratio": together / one, "unit": "ms"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/quickstart"), help="run directory with a trained checkpoint"
    )
    parser.add_argument("--years", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--embedded-days", type=int, default=5, help="0 leaves the embedded model out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where the stores are written for the time of the run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = {
        "machine": f"{platform.machine()}, {options.threads} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "emulator": getattr(emulator, "__version__", "unknown"),
    }
    print(json.dumps(machine) if options.json else ", ".join(f"{k} {v}" for k, v in machine.items()))
    for case in cases(options):
        if options.json:
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in case.items()}), flush=True)
        else:
            other = f"{case['peer']:9.2f}" if case["peer"] else "        -"
            ratio = f"{case['ratio']:6.2f}" if case["ratio"] else "     -"
            print(f"{case['ours']:9.2f} {other} {case['unit']:22} ratio {ratio}  {case['case']}", flush=True)


if __name__ == "__main__":
    main()
