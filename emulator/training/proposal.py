"""From what files hold to an experiment that trains on them: periods, a network for grid and memory, budgets, forecasts.

Sections are as in YAML, and choices have notes that say why. They are where a person starts from, not the best there is.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from emulator.ingestion.survey import BUDGETS, Survey, time_labels
from emulator.networks import cost, registry
from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.sources.options import SourceOptions

LEAST_TIMES = 24  # fewer make no training and no verification worth their names; of months two years
LEAST_VALIDATED = 6
MEASURED_CELLS = 5000  # networks of larger grids are measured on a coarser one
MEMORY_SHARE = 0.5  # of what is free, for weights and activations
VERIFIED, VALIDATED = 0.2, 0.1  # shares of the record, the last ones
OF_REST = 0.5, 0.25  # the same of what is beyond a year, where with the former a year would not be trained on
PASSES = 3.3  # through the training period, as conf/train/sfno.yaml makes through the quickstart's year
UPDATES = 100, 20_000  # least and most
SAID_OF_SOURCES = (
    "engine", "rename", "select", "units", "points", "negate", "interval_hours", "totals_from", "interpolate", "time_stamp",
)  # fmt: skip
INPUTS_BESIDES = 10  # clock and places, which every network is given
# Optimizer by kind, as the files in conf/train have it for networks of width 64 (unet: 32) on 48 x 96 cells. Wider ones have
# less by the inverse of the width, by which Adam's steps change what a layer puts out alike (Yang et al. 2022, 2203.03466).
OPTIMIZERS = {
    "sfno": ({"lr": 8e-3, "weight_decay": 0.1}, 64),
    "graph": ({"lr": 8e-3, "weight_decay": 0}, 64),
    "unet": ({"lr": 2e-3, "weight_decay": 0}, 32),
}
WIDTH = {"sfno": "embed_dim", "graph": "width", "unet": "width"}
PHASES = ((1200, 1), (320, 2), (220, 4))  # updates and steps of conf/train/sfno.yaml, of which the shares are taken


@dataclasses.dataclass
class Proposal:
    """An experiment, as YAML has it, with a note on every choice by its dotted name, and in one sentence what it does."""

    sections: dict[str, dict[str, Any]]
    notes: dict[str, str]
    does: str


@dataclasses.dataclass(frozen=True)
class Periods:
    """Dates, both ends included, as configurations have them; gaps between keep what is alike in weather apart."""

    train_end: str
    validation: tuple[str, str] | None
    verify_start: str
    trained: int
    validated: int
    verified: int


def propose(found: Survey) -> Proposal:
    """The experiment that the files allow: to the report where there is something to train and enough times, else less.

    Raises `ValueError` with one sentence where no network fits the grid.
    """
    made = Proposal({"ingest": _ingest(found)}, _remedies(found), "")
    plan, times = found.plan, int((~found.plan.missing).sum())
    if plan.leads is not None:
        made.does = "ingests the forecasts, which verify then scores against an analysis"
        return made
    if times < 2:
        made.does = f"ingests the files: {times} time is too few for statistics, and for a training"
        return made
    made.sections["stats"] = {}
    if not found.names["prognostic"]:
        diagnostic = ", ".join(found.names["diagnostic"] + found.names["forcing"])
        made.does = (
            "ingests the files and makes statistics: no field among them is a state that a network steps forward"
        )
        made.notes["ingest"] = f"a field becomes a state by roles: {{NAME: prognostic}}, of {diagnostic}"
        return made
    if times < LEAST_TIMES:
        made.does = (
            f"ingests the files and makes statistics: {times} times are too few to train on, {LEAST_TIMES} the least"
        )
        return made
    step = plan.step
    lead = _lead(step, times)
    year = 12 / step.months if step.months else 366 * 86400 / step.seconds
    periods = split(time_labels(plan), lead, round(year))
    if periods.trained < 0.98 * year:
        made.notes["train.period"] = "less than a year: seasons that are verified may be new to the network"
    made.sections["stats"] = {"period": {"end": periods.train_end}}
    made.sections["train"] = _train(found, periods, made.notes)
    _forecasts(made, found, periods, lead)
    made.does = (
        f"trains on {periods.trained} times, validates on {periods.validated}, and verifies on {periods.verified}"
    )
    return made


def split(labels: np.ndarray, lead: int, year: int) -> Periods:
    """Training, validation and verification, in this order; a whole year is trained on where the record is a little longer.

    Args:
      labels: `(time,)`, dates by which a period takes each time, not decreasing. lead: of forecasts, year: both in times.
    """
    dates, counts = np.unique(labels, return_counts=True)
    rest = len(dates) - math.ceil(year / counts.mean())
    gap = min(math.ceil(lead / counts.mean()), len(dates) // 20)
    shares, whole = (VERIFIED, VALIDATED), len(dates)
    if 0.05 * whole < rest < (VERIFIED + VALIDATED) * whole + 2 * gap:
        shares, whole, gap = OF_REST, rest, min(gap, rest // 8)
    verified, validated = max(1, round(shares[0] * whole)), round(shares[1] * whole)
    first = len(dates) - verified
    validation_end = first - 1 - gap
    validation_start = validation_end - validated + 1
    train_end = validation_start - 1 - gap
    ours = slice(validation_start, validation_end + 1)
    return Periods(
        str(dates[train_end]),
        (str(dates[ours][0]), str(dates[ours][-1])) if validated else None,
        str(dates[first]),
        int(counts[: train_end + 1].sum()),
        int(counts[ours].sum()),
        int(counts[first:].sum()),
    )


def _lead(step: TimeStep, times: int) -> int:
    """Steps of a forecast: ten days, or a year of months, at most half of what is verified."""
    usual = 12 / step.months if step.months else 10 * 86400 / step.seconds
    return max(1, min(max(4, round(usual)), int(VERIFIED * times) // 2))


def _remedies(found: Survey) -> dict[str, str]:
    """What had to be said to open the files, beside where it is said."""
    notes: dict[str, str] = {}
    for name, why in found.remedies.items():
        key = f"ingest.{'sources' if name.startswith(('select', 'points')) else name}"
        notes[key] = f"{notes[key]}; {why}" if key in notes else why
    return notes


def _ingest(found: Survey) -> dict[str, Any]:
    options = found.options
    sources = []
    for source in options.sources:
        plain = SourceOptions(source.path)
        said = {key: getattr(source, key) for key in SAID_OF_SOURCES if getattr(source, key) != getattr(plain, key)}
        sources.append({"path": source.path} | {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()})
    grid, missing = options.grid, options.missing
    made: dict[str, Any] = {"sources": sources}
    made |= {"kind": options.kind} if options.kind != "analysis" else {}
    made |= {"missing": missing} if missing != "refuse" else {}
    return made | (
        {"grid": {"kind": grid.kind, "rows": grid.rows, "columns": grid.columns, "poles": grid.poles}} if grid else {}
    )


def _train(found: Survey, periods: Periods, notes: dict[str, str]) -> dict[str, Any]:
    network, needs, batch = fitting_network(found)
    closed = [name for name in BUDGETS if not found.lacking(name)]
    kind, grid = network["kind"], found.plan.grid
    optimizer, width = OPTIMIZERS[kind]
    updates = min(max(round(PASSES * periods.trained / batch), UPDATES[0]), UPDATES[1])
    total = sum(number for number, _ in PHASES)
    phases = [
        {"updates": max(1, round(updates * number / total)), "rollout_steps": steps, "batch_size": batch}
        for number, steps in PHASES
        if steps < periods.trained // 4
    ]
    seconds = needs.seconds * batch * sum(phase["updates"] * phase["rollout_steps"] for phase in phases)
    rate = optimizer | {"lr": float(f"{optimizer['lr'] * min(1.0, width / network[WIDTH[kind]]):.2g}")}
    rate["warmup_steps"] = min(100, max(1, sum(phase["updates"] for phase in phases) // 5))
    made: dict[str, Any] = {"period": {"end": periods.train_end}}
    if periods.validation and periods.validated >= LEAST_VALIDATED:
        start, end = periods.validation
        steps = min(12, periods.validated // 4)
        made["validation"] = {"period": {"start": start, "end": end}, "every": 250, "steps": steps}
        notes["train.validation"] = "weights of the best rollouts here are kept"
    made |= {"network": network}
    notes["train.network"] = (
        f"for {found.channels} channels on {grid.describe()}: about {needs.parameters:,} parameters and "
        f"{needs.memory(batch, 4) * cost.RESIDENT / 2**30:.2g} GiB at the longest windows; emulator models lists all kinds"
    )
    if closed != list(BUDGETS):
        made["conservation"] = {"budgets": closed} if closed else {"kind": "none"}
    notes["train.conservation"] = "; ".join(
        f"{name.replace('_', ' ')} lacks {', '.join(found.lacking(name))}" for name in BUDGETS if name not in closed
    )
    made |= {"optimizer": rate, "phases": phases}
    notes["train.phases"] = (
        f"about {PASSES:g} passes through the training period, within {UPDATES[0]} and {UPDATES[1]} updates; "
        f"{_duration(seconds)} on this machine's processor"
    )
    return made


def fitting_network(found: Survey) -> tuple[dict[str, Any], cost.Cost, int]:
    """A network for the grid, what it needs, and the largest batch up to 4 that half of the free memory holds.

    Raises `ValueError` where no kind fits the grid.
    """
    grid, channels = found.plan.grid, found.channels
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else cost.available_memory()
    refused = []
    for network in _candidates(grid):
        try:
            needs = _needs(network, channels, grid)
        except registry.NetworkError as error:
            refused.append(str(error))
            continue
        for batch in (4, 2, 1) if needs.activations else ():  # else it was too large to be measured
            if needs.memory(batch, 4) * cost.RESIDENT <= MEMORY_SHARE * free:
                return network, needs, batch
        refused.append(
            f"the smallest {network['kind']} needs more than half of the {free / 2**30:.2g} GiB that are free"
        )
    raise ValueError(f"Expected a grid that a network fits here, got {grid.describe()}: {refused[-1]}")


def _candidates(grid: Grid):
    """Networks for a grid, the likeliest first, then narrower ones."""
    rows, cells = grid.shape[0], math.prod(grid.shape)
    sizes = (256, 128, 64, 32, 16) if rows > 128 else (128, 64, 32, 16) if rows > 64 else (64, 32, 16)
    if grid.is_global() and grid.has_rows:
        more = {"blocks": 4, "scale_factor": 2 if rows > 64 else 1, "stencil": 3, "mlp_ratio": 1, "encoder_layers": 0}
        more |= {"position": "learned", "pre_norm": "branch", "zero_output": True}
        yield from ({"kind": "sfno", "embed_dim": size, **more} for size in sizes)
    if not grid.is_points:
        yield from ({"kind": "unet", "width": width, "depth": depth} for depth in (3, 2, 1) for width in (32, 16, 8))
    # as many nodes for a cell as conf/train/graph.yaml has: 642 for 48 x 96
    refinement = min(max(round(math.log(cells / 4608 * 64, 4)), 1), 6)
    for width in (64, 32, 16):
        yield {"kind": "graph", "refinement": refinement, "width": width, "rounds": 6, "zero_output": True}


def _needs(network: dict, channels: int, grid: Grid) -> cost.Cost:
    """What a network needs on a grid, measured there or, of a large one, on a coarser one and carried over by the cells."""
    coarse, cells = grid, math.prod(grid.shape)
    if cells > MEASURED_CELLS and grid.has_rows:
        shape = [max(8, 8 * round(n * math.sqrt(MEASURED_CELLS / cells) / 8)) for n in grid.shape]
        edges = (-45.0, 45.0, 0.0, 90.0)
        coarse = Grid.gaussian(48) if grid.is_global() else Grid.box(*shape, edges)
    inputs = channels + INPUTS_BESIDES
    measured = cost.measure(registry.build(network, inputs, channels, coarse), inputs, coarse.shape)
    ratio = cells / math.prod(coarse.shape)
    degrees = grid.shape[0] / coarse.shape[0] if network["kind"] == "sfno" else 1.0  # of its filters
    return cost.Cost(
        round(measured.parameters * degrees), round(measured.activations * ratio), measured.seconds * ratio
    )


def _forecasts(made: Proposal, found: Survey, periods: Periods, lead: int) -> None:
    """Sections rollout, verify and report."""
    step = found.plan.step
    spacing = max(1, math.ceil((periods.verified - lead) / 40))  # about forty initial times at most
    rollout: dict[str, Any] = {"period": {"start": periods.verify_start}}
    if step.months:
        rollout |= {"every": str(step.times(spacing)), "lead": str(step.times(lead))}
    else:
        hours = step.seconds / 3600
        usual = max(1, round(36 / hours))
        rollout["every_hours"] = math.ceil(max(usual, spacing) * hours)
        rollout["lead_days"] = round(lead * step.seconds / 86400, 4)
    conserving = made.sections["train"].get("conservation") != {"kind": "none"}
    rollout |= {"uncorrected_inits": 4} if conserving else {}
    made.notes["rollout"] = "initial times after everything that was trained on; long_run_days: 365 adds a long run"
    made.sections |= {"rollout": rollout, "verify": {"climatology": {"end": periods.train_end}}}
    made.notes["verify"] = "the climatology that forecasts are compared with is the training period's"
    made.sections["report"] = {"title": "My emulator"}


def _duration(seconds: float) -> str:
    """A time as people say it."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds > 2 * size:
            return f"about {seconds / size:.0f} {name}"
    return f"about {max(1, seconds):.0f} s"
