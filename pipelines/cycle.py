"""Analyses and forecasts by turns, for as long as observations come: restartable window by window, bit for bit."""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from emulator.assimilation.cycle import Setup, next_window
from emulator.assimilation.cycle_store import CycleStore
from emulator.assimilation.differences import expect_dates, expect_times, stored_states
from emulator.assimilation.forecasts import Forecasts
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.observations import Observations
from emulator.forecasting.run import times_of
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.model.checkpoint import describe
from emulator.model.saved_model import check_match, digest_of
from emulator.planet.calendar import TimeStep, select_period
from emulator.store.analysis import open_analysis
from emulator.store.schema import fingerprint
from pipelines.assimilation import (
    check_covariance,
    check_source,
    counted_around,
    digest_of_file,
    expect_states,
    forecasts_of,
    setup_of,
    steps_of,
    tell_left_out,
    without_places,
)
from pipelines.config import CycleConfig
from pipelines.progress import progress

PLACES = {"output", "batch_size"}  # what no result depends on


@flushed()
def cycle(config: CycleConfig) -> None:
    """Writes the analyses of all windows into `output`; a killed cycle goes on after its last whole window.

    Raises `ValueError` for a kind of analysis that the members or the window do not fit, and for times that the store lacks.
    """
    freed_memory.keep()
    dataset = open_analysis(config.store)
    times = times_of_windows(config, dataset)
    analysis = build(config.analysis.model_dump())
    check_kind(config, analysis, config.initial.members)
    expect_states(config, dataset, analysis)
    source, dates = initial_of(config, dataset)
    forecasts = forecasts_of(config, dataset, config.seed)
    store = store_of(config, dataset, source, forecasts, times[1:])
    if store.is_complete():
        return
    tell_left_out(config, times[1:], TimeStep.of(dataset))
    first = stored_states(source, forecasts.layout.prognostic, dates)
    setup = setup_of(config, dataset, forecasts, first)
    done = store.begin({"analysis_kind": config.analysis.kind})
    goes_on = 0 < done < store.windows  # after the last window the members' store may have its name already
    states = store.states(done - 1) if goes_on else first
    with progress("cycle", store.windows, done) as report:
        for number in range(done, store.windows):
            before = times[number * config.window]
            window = times[number * config.window + 1 : (number + 1) * config.window + 1]
            around = before, forecasts.forcing.later(window[-1], 1)  # which of them count, it decides itself
            observations = Observations.read(config.observations, around)
            cycled = next_window(setup, before, window, states, observations)
            store.write(number, cycled, _means(setup, cycled))
            states = cycled.results[-1].state
            report(number + 1, _counted(cycled.record))
    store.finish()


def _counted(record: dict) -> str:
    """How many observations were used and rejected, and why, in words."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in record["rejected"].items())
    return f"{record['observations']} observations used" + (f", rejected: {reasons}" if reasons else "")


def _means(setup: Setup, cycled) -> list[torch.Tensor]:
    """The members' mean of every time, with the dry mass of all analyses."""
    states = [result.state for result in cycled.results]
    if len(states[0]) == 1:
        return states
    means = [state.double().mean(0, keepdim=True).to(state.dtype) for state in states]
    return [
        setup.increments.kept(mean, state[:1], setup.dry_mass)[0] for mean, state in zip(means, states, strict=True)
    ]


def store_of(
    config: CycleConfig, dataset: xr.Dataset, source: xr.Dataset, forecasts: Forecasts, times: list
) -> CycleStore:
    """Where the cycle is written, with what tells it from another: `source`, of the first states, by what it holds too."""
    own = config.initial.store is not None
    plain, weights = without_places(config, build(config.analysis.model_dump()))
    told = plain.model_copy(update={"initial": config.initial.model_copy(update={"store": None})})
    given = told.model_dump_json(exclude=PLACES | {"store", "checkpoint", "observations"})
    stores = [str(each.attrs.get("fingerprint")) for each in ((dataset, source) if own else (dataset,))]
    told = fingerprint(given, str(digest_of(forecasts.model)), digest_of_file(config.observations), *stores, *weights)
    return CycleStore(config.output, dataset, forecasts.layout, times, config.window, config.initial.members, told)


def times_of_windows(config: CycleConfig, dataset: xr.Dataset) -> list:
    """The start, and every time of whole windows after it until the end. Raises `ValueError` for none."""
    expect_dates(dataset)
    inside = list(select_period(dataset, config.start, config.end)["time"].values)
    windows = (len(inside) - 1) // config.window
    if windows < 1:
        raise ValueError(
            f"Expected at least one window of {config.window} times after {inside[0]}, got {len(inside) - 1}"
        )
    return inside[: windows * config.window + 1]


def initial_of(config: CycleConfig, dataset: xr.Dataset) -> tuple[xr.Dataset, list]:
    """The store with the states that members start from, and their times: the one that is given, and around it.

    Raises `ValueError` for a store that does not fit the model, and for times that it lacks.
    """
    initial, step = config.initial, TimeStep.of(dataset)
    source = dataset if initial.store is None else open_analysis(initial.store)
    check_source(config, source, initial.store, ("prognostic",))
    centre = times_of(source, str(initial.time or config.start))[0]
    apart = steps_of(initial.members_every_hours, step.seconds, "members_every_hours")
    offsets = [(number + 1) // 2 * (1 if number % 2 else -1) * apart for number in range(initial.members)]
    times = [step.later(centre, offset) for offset in offsets]
    expect_times(source, times, initial.store or config.store)
    return source, times


def check_kind(config, analysis, members: int) -> None:
    """Raises `ValueError` where a kind of analysis needs several members, or takes one, or a window of one time."""
    kind = config.analysis.kind
    if analysis.ensemble and members < 2:
        raise ValueError(f"Expected at least 2 members for an analysis of kind {kind}, got {members}")
    if analysis.static and not analysis.ensemble and members > 1:
        raise ValueError(f"Expected one member for an analysis of kind {kind}, got {members}")
    if not analysis.several_times and config.window > 1:
        raise ValueError(f"Expected a window of one time for an analysis of kind {kind}, got {config.window}")
    if getattr(config, "additive", 0.0) and not analysis.ensemble:
        raise ValueError(f"Expected no additive errors for an analysis of kind {kind}, which has no members")


def check(config: CycleConfig, made: set[Path]) -> str:
    """How many analyses it would make, in words. Raises `ValueError`."""
    dataset = open_analysis(config.store)
    check_match(describe(config.checkpoint), dataset, config.checkpoint, config.store)
    check_covariance(config)
    times = times_of_windows(config, dataset)
    analysis = build(config.analysis.model_dump())
    check_kind(config, analysis, config.initial.members)
    expect_states(config, dataset, analysis)
    if config.initial.store is None or config.initial.store.exists() or config.initial.store not in made:
        initial_of(config, dataset)
    seen = counted_around(config, times[1:], TimeStep.of(dataset))
    count = (len(times) - 1) // config.window
    span = np.datetime_as_string(np.array(times[:: len(times) - 1], "datetime64[s]"))
    return f"{count} analyses of kind {config.analysis.kind} from {span[0]} to {span[1]} with {seen}"
