"""Two builds of this project side by side on a finished run: medians of time and memory, and whether results agree.

    python scripts/bench/builds.py OTHER_CHECKOUT --run runs/quickstart [--python OTHER_CHECKOUT/.venv/bin/python]

Every stage works in turn, in a folder of its own, on the run's simulation, store, statistics, checkpoint and forecasts, by
the command line of either checkout. Compiled kernels have to be built in both.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import xarray as xr

ROOT = Path(__file__).resolve().parents[2]
CALL = "import sys; from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
STAGES = {
    "ingest": (["simulation"], ["ingest.sources=[{path: 'SIMULATION/*.nc'}]"], "analysis.zarr"),
    "stats": (["analysis.zarr"], ["stats.period={end: 2002-03-02}"], "statistics.nc"),
    "train": (
        ["analysis.zarr", "statistics.nc"],
        ["train.phases=[{updates: 80, batch_size: 4}]"],
        "train/metrics.jsonl",
    ),
    "rollout": (
        ["analysis.zarr", "train"],
        ["rollout.maximum_inits=8", "rollout.uncorrected_inits=0", "rollout.long_run_days=0"],
        "forecast.zarr",
    ),
    "verify": (["analysis.zarr", "forecast.zarr"], ["verify.long_runs={}", "verify.audit={}"], "scores.nc"),
}


def once(checkout: Path, python: str, stage: str, run: Path, folder: Path) -> tuple[float, float, str]:
    """Seconds of wall time, GiB at most, and the digest of what a stage of a checkout makes."""
    inputs, overrides, result = STAGES[stage]
    directory = folder / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in inputs:
        (directory / name).symlink_to((run / name).resolve())
    if stage == "train":
        (directory / "train").mkdir()
    overrides = [text.replace("SIMULATION", str((run / "simulation").resolve())) for text in overrides]
    command = ["/usr/bin/time", "-f", "%e %M", "-o", str(folder / "time"), python, "-c", CALL, stage]
    command += [str(checkout / "conf" / "quickstart.yaml"), f"directory={directory}", *overrides]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} of {checkout} failed: {done.stderr[-2000:]}")
    seconds, kibibytes = (folder / "time").read_text().split()[-2:]
    return float(seconds), int(kibibytes) / 2**20, digest(directory / result)


def digest(path: Path) -> str:
    """Of the values in a file or store, not of when they were written."""
    if path.suffix == ".jsonl":
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    opened = xr.open_zarr(path, chunks=None, decode_timedelta=False) if path.is_dir() else xr.open_dataset(path)
    total = hashlib.sha256()
    for name in sorted(map(str, opened.variables)):
        total.update(name.encode() + opened[name].values.tobytes())
    return total.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--python", default=sys.executable, help="its Python")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "quickstart", help="a finished quickstart")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stages", nargs="*", default=list(STAGES))
    options = parser.parse_args()
    builds = {"this": (ROOT, sys.executable), "other": (options.other.resolve(), options.python)}
    with tempfile.TemporaryDirectory() as folder:
        for stage in options.stages:
            rows = {name: [] for name in builds}
            for _ in range(options.repeats):
                for name, (checkout, python) in builds.items():
                    rows[name].append(once(checkout, python, stage, options.run, Path(folder)))
            medians = {
                name: [round(statistics.median(values), 2) for values in list(zip(*found, strict=True))[:2]]
                for name, found in rows.items()
            }
            digests = {name: sorted({row[2] for row in found}) for name, found in rows.items()}
            line = {"stage": stage, "seconds": {name: values[0] for name, values in medians.items()}}
            line |= {"peak_gib": {name: values[1] for name, values in medians.items()}}
            print(json.dumps(line | {"equal": digests["this"] == digests["other"], "digests": digests}), flush=True)


if __name__ == "__main__":
    main()
