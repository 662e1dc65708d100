"""Where the time of a rollout step goes, and a batch of 8 members against one.

Takes a run directory as `scripts/bench/rollout.py` does, which imports this. Times of parts are by the clock around the
functions that make them, medians over the steps; kernels of the recorded network are run one by one for theirs.
"""

import ctypes
import statistics
import time
from collections import defaultdict

import torch

from emulator.conservation.scheme import Scheme
from emulator.data.forcing import Forcing
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.schedule import Schedule
from emulator.kernels import library, recording
from emulator.model.step import Step

MEMBERS = 8


def seconds_of(run: Forecaster, days: int, every: int) -> float:
    """Of a step, without writing; of all members together where there are several."""
    schedule, init = Schedule.every(days * every, every), [run.dataset["time"].values[-1]]
    start = time.perf_counter()
    for _ in run.blocks(init, schedule):
        pass
    return (time.perf_counter() - start) / (days * every)


def batch_against_one(run: Forecaster, days: int, every: int, repeats: int) -> tuple[float, float]:
    """Milliseconds of a step of 8 members together, and of one, in turn; medians.

    Both make as many steps, since each has its part of the start: initial states, those of members perturbed.
    """
    models = run.models
    together = Forecaster(models, run.dataset, MEMBERS, EnsembleOptions(members=MEMBERS))
    rows = []
    for _ in range(repeats + 1):
        rows.append((seconds_of(together, days, every), seconds_of(run, days, every)))
    return tuple(statistics.median(column) * 1e3 for column in zip(*rows[1:], strict=True))


class _Timed:
    """Milliseconds of some methods, by label, for the time of a `with` block."""

    def __init__(self, methods: dict[str, tuple[type, str]]):
        self.methods, self.seconds = methods, defaultdict(list)

    def __enter__(self):
        self.kept = {label: getattr(owner, name) for label, (owner, name) in self.methods.items()}
        for label, (owner, name) in self.methods.items():
            setattr(owner, name, self._timed(label, self.kept[label]))
        return self

    def __exit__(self, *_):
        for label, (owner, name) in self.methods.items():
            setattr(owner, name, self.kept[label])

    def _timed(self, label, function):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[label].append(time.perf_counter() - start)

        return timed

    def medians(self) -> dict[str, float]:
        return {label: statistics.median(values) * 1e3 for label, values in self.seconds.items()}


def parts_of_a_step(run: Forecaster, days: int, every: int) -> dict[str, float]:
    """Milliseconds by part; `all` has them together, and what lies between them."""
    network = type(run.step.network)
    methods = {
        "forcing and clock": (Forcing, "inputs"),
        "what the network sees": (Step, "inputs"),
        "network": (network, "forward"),
        "envelope": (Step, "_finished"),
        "corrections": (Scheme, "__call__"),
        "step": (Step, "forward"),
    }
    seconds_of(run, 2, every)
    with _Timed(methods) as timed:
        whole = seconds_of(run, days, every)
    return timed.medians() | {"all": whole * 1e3}


def kernels_of_the_network(run: Forecaster, repeats: int = 40) -> dict[str, float]:
    """Milliseconds of the network's kernels by name, where its calls are recorded."""
    grid, network = run.forcing.grid.shape, run.step.network
    names, call = [], library.call
    x = torch.randn(1, network.in_channels, *grid)

    def noted(function, *rest):
        names.append(function)
        call(function, *rest)

    with torch.no_grad():
        network(x)
        library.call = noted
        try:
            found = recording.Recording(network._computed, x)
        finally:
            library.call = call
    if found.foreign:
        return {}
    times = defaultdict(list)
    threads = ctypes.c_uint(torch.get_num_threads())
    for _ in range(repeats):
        once = defaultdict(float)
        for name, (argument, _) in zip(names, found._kept, strict=True):
            function = getattr(library.LIBRARY, name)
            start = time.perf_counter()
            function(ctypes.byref(argument), library._region(), threads)
            once[name.removeprefix("emulator_")] += time.perf_counter() - start
        for name, seconds in once.items():
            times[name].append(seconds)
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}
