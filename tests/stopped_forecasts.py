"""Forecasts that are stopped after a step and go on from a file."""

import torch

from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.position import Position
from emulator.forecasting.schedule import Schedule
from emulator.store.analysis import open_analysis


def check_going_on(model, store, members: dict, folder, number: int, steps: int) -> None:
    """What is stopped after step `number` of so many goes on to the same bits, in states and diagnostics."""
    data = open_analysis(store)
    times, schedule = list(data["time"].values[[4, 9]]), Schedule.every(steps)
    forecaster = Forecaster([model], data, 4, EnsembleOptions.of(members))
    rows = forecaster._rows(2)
    begin, *_ = forecaster._start(times, rows, schedule)
    whole = [(position, lead) for position, lead, _ in forecaster._leads(times, rows, begin, schedule)]
    whole[number - 1][0].save(folder / "position")
    later = Forecaster([model], data, 4, EnsembleOptions.of(members))
    rest = list(later._leads(times, rows, Position.load(folder / "position"), schedule))
    assert len(rest) == steps - number
    for (_, lead, _), (_, known) in zip(rest, whole[number:], strict=True):
        assert torch.equal(lead.state, known.state) and torch.equal(lead.diagnostic, known.diagnostic)
