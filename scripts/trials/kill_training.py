"""Kills a training with SIGKILL at random moments, again and again, and compares what it ends with bit by bit.

Every trial starts `emulator train` on the same small store, kills it a random moment after a random update, starts it
again, kills that one too in half of the trials, and lets the last one end. Every fifth trial trains in two processes, one
of which is killed while the other has to find out by itself; every fifth ends one start with SIGTERM instead, which must
save and exit with 75. Weights, averaged weights, the optimizer's moments, the checkpoint and `metrics.jsonl` must be those
of an undisturbed run of as many processes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from emulator.model import checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from tiny_experiment import tiny_experiment  # noqa: E402

import pipelines.train  # noqa: E402, F401 (what the children would import, one by one)
from pipelines.cli import main as main_of_program  # noqa: E402

UPDATES = 120


class Child:
    """A process that runs `emulator train`, forked from this one, which has imported everything: a start takes no time."""

    def __init__(self, experiment: Path, output: Path, world: dict[str, str]):
        self.pid, self.code = os.fork(), None
        if self.pid:
            return
        os.environ.update(world)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        code = 1
        try:
            code = main_of_program(["train", str(experiment), f"output={output}"])
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise SystemExit(f"process {self.pid} did not end within {seconds} s")
            time.sleep(0.005)
        return self.code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def start(experiment: Path, output: Path, size: int) -> list[Child]:
    """The training in one process, or in several that meet at a free port."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = str(opened.getsockname()[1])
    worlds = [
        {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(size)
    ]
    return [Child(experiment, output, world if size > 1 else {}) for world in worlds]


def finish(processes: list[Child], seconds: float = 300) -> list[int]:
    return [process.wait(seconds) for process in processes]


def updates_logged(output: Path) -> int:
    path = output / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def disturb(processes, output: Path, after: int, chance: random.Random, number: int) -> str:
    """Waits for an update to be logged and a little longer, signals one process, and waits for all to end."""
    while updates_logged(output) < after and all(process.poll() is None for process in processes):
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))
    victim = chance.choice(processes)
    if victim.poll() is not None:
        return "ended before"
    victim.send_signal(number)
    codes = finish(processes)
    if number == signal.SIGTERM and set(codes) - {75, 0}:
        raise SystemExit(f"Expected exit code 75 after SIGTERM, got {codes}")
    return f"{signal.Signals(number).name} at {updates_logged(output)}"


def same(ours: Path, theirs: Path) -> bool:
    """Whether two trainings ended alike, to the last bit."""
    for pick in (lambda d: checkpoint.numbered(d, "state")[-1], lambda d: d / "checkpoint"):
        first, second = (checkpoint.load(pick(folder))[0] for folder in (ours, theirs))
        if first.keys() != second.keys() or not all(torch.equal(first[name], second[name]) for name in first):
            return False
    return (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()


def trial(experiment: Path, whole: dict[int, Path], folder: Path, chance: random.Random, number: int) -> dict:
    size = 2 if number % 5 == 4 else 1
    output, happened = folder / f"trial{number}", []
    for _ in range(chance.choice((1, 2))):
        done = updates_logged(output)
        after = chance.randrange(done, max(done + 1, UPDATES))
        kind = signal.SIGTERM if number % 5 == 2 and not happened else signal.SIGKILL
        happened.append(disturb(start(experiment, output, size), output, after, chance, kind))
    codes = finish(start(experiment, output, size))
    found = {"trial": number, "processes": size, "happened": happened, "codes": codes}
    found["same"] = codes == [0] * size and same(output, whole[size])
    shutil.rmtree(output)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object a trial")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    torch.set_num_threads(1)  # a fork takes no threads along
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        experiment = tiny_experiment(folder)
        text = experiment.read_text().replace("save_every: 10", "save_every: 7\n  log_every: 1\n  ema: 0.99")
        text = text.replace("updates: 30", f"updates: {UPDATES - 6}")
        experiment.write_text(text)
        for stage in ("ingest", "stats"):
            subprocess.run([sys.executable, "-m", "pipelines.cli", stage, str(experiment)], check=True, cwd=ROOT)
        whole = {size: folder / f"whole{size}" for size in (1, 2)}
        for size, output in whole.items():
            if any(finish(start(experiment, output, size))):
                raise SystemExit(f"the undisturbed training in {size} processes failed")
        kills = failed = 0
        for number in range(options.trials):
            found = trial(experiment, whole, folder, chance, number)
            failed += not found["same"]
            kills += sum("SIG" in event for event in found["happened"])
            told = f"{found['processes']} processes, {', '.join(found['happened'])}; same bits: {found['same']}"
            print(json.dumps(found) if options.json else f"trial {number:2d}: {told}", flush=True)
        last = {"trials": options.trials, "signals": kills, "failed": failed}
        print(json.dumps(last) if options.json else f"{options.trials} trials, {kills} signals, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
