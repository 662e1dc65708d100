"""Memory and time of a training whose windows have four steps, by what saves memory.

    python scripts/trials/memory_of_windows.py RUN [--updates 4] [--threads 1]

RUN: a finished quickstart. Each setting trains the run's network on a month of its data in a process of its own; printed are
the peak of its resident memory, libraries and data with it, and processor seconds of an update, the first left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from emulator.model import checkpoint

KEPT = ("prognostic", "diagnostic", "forcing", "network", "conservation")
FOUR = {"rollout_steps": 4}
SETTINGS = {
    "1 step": ({}, {}, {}),
    "4 steps": (FOUR, {}, {}),
    "4 steps, checkpoint_steps": (FOUR, {"checkpoint_steps": True}, {}),
    "4 steps, network.checkpointing": (FOUR, {}, {"checkpointing": True}),
    "4 steps, both": (FOUR, {"checkpoint_steps": True}, {"checkpointing": True}),
    "4 steps, accumulate 4": (FOUR | {"accumulate": 4}, {}, {}),
    "4 steps, accumulate 4, checkpoint_steps": (FOUR | {"accumulate": 4}, {"checkpoint_steps": True}, {}),
    "4 steps, loss_steps last": (FOUR | {"loss_steps": "last"}, {}, {}),
}
CHILD = """
import contextlib, json, resource, sys, time
import torch
from emulator.training.options import TrainOptions
from emulator.training.run import StageHooks, Training
given, marks = json.loads(sys.argv[1]), []
torch.set_num_threads(given.pop("threads"))
report = contextlib.nullcontext(lambda row: marks.append(time.process_time()))
Training(TrainOptions.of(given), StageHooks(reporting=lambda identity, updates: report)).run()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak, "seconds": (marks[-1] - marks[0]) / (len(marks) - 1)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory with analysis.zarr, statistics.nc and train/checkpoint")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--only", default="", help="settings whose name has this part")
    options = parser.parse_args()
    config = checkpoint.describe(options.run / "train" / "checkpoint")["config"]
    for name, (phase, training, network) in SETTINGS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            given = {key: config[key] for key in KEPT} | training
            given |= {
                "store": str(options.run / "analysis.zarr"),
                "statistics": str(options.run / "statistics.nc"),
                "output": f"{folder}/train",
                "network": config["network"] | network,
                "period": {"end": "2001-03-31"},
                "phases": [{"updates": options.updates, "batch_size": options.batch, **phase}],
                "log_every": 1,
                "threads": options.threads,
            }
            done = subprocess.run([sys.executable, "-c", CHILD, json.dumps(given)], check=True, capture_output=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:42} {found['peak'] / 2**20:5.2f} GiB, {found['seconds']:.2f} s", flush=True)


if __name__ == "__main__":
    main()
