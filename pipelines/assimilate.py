"""One analysis: a background from a store, and the observations of a window that begins at its time."""

from pathlib import Path

import xarray as xr

from emulator.assimilation.cycle import analysed
from emulator.assimilation.cycle_store import CycleStore
from emulator.assimilation.differences import expect_dates, expect_times, stored_states
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.observations import Observations
from emulator.forecasting.run import times_of
from emulator.model.checkpoint import describe
from emulator.model.saved_model import check_match, digest_of
from emulator.model.stepper import StepResult
from emulator.planet.calendar import TimeStep
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
    tell_left_out,
    without_places,
)
from pipelines.config import AssimilateConfig
from pipelines.cycle import check_kind


def assimilate(config: AssimilateConfig) -> None:
    """Writes the analysis, and the model's states at the other times of its window, as a cycle of one window.

    Raises `ValueError` for a kind that needs members, and for a background or times that a store lacks.
    """
    dataset = open_analysis(config.store)
    source, times = background_of(config, dataset)
    analysis = build(config.analysis.model_dump())
    check_kind(config, analysis, 1)
    expect_states(config, dataset, analysis)
    forecasts = forecasts_of(config, dataset)
    layout, first = forecasts.layout, times[0]
    state, diagnostic = (stored_states(source, part, [first]) for part in (layout.prognostic, layout.diagnostic))
    plain, weights = without_places(config, analysis)
    given = plain.model_dump_json(exclude={"output", "batch_size", "store", "checkpoint", "observations", "background"})
    stores = (str(each.attrs.get("fingerprint")) for each in (dataset, source))
    made = fingerprint(given, str(digest_of(forecasts.model)), digest_of_file(config.observations), *stores, *weights)
    store = CycleStore(config.output, dataset, layout, times, config.window, 1, made)
    if store.is_complete():
        return
    tell_left_out(config, times, TimeStep.of(dataset))
    setup = setup_of(config, dataset, forecasts, state)
    background = [StepResult(state, diagnostic, {}), *forecasts.steps(state, first, config.window - 1)]
    before, after = forecasts.forcing.later(first, -1), forecasts.forcing.later(times[-1], 1)
    observations = Observations.read(config.observations, (before, after))
    cycled = analysed(setup, before, times, background, observations)
    store.begin({"analysis_kind": config.analysis.kind})
    store.write(0, cycled, [result.state for result in cycled.results])
    store.finish()


def background_of(config: AssimilateConfig, dataset: xr.Dataset) -> tuple[xr.Dataset, list]:
    """The store with the background, and the window's times. Raises `ValueError` for those that a store lacks."""
    source = dataset if config.background is None else open_analysis(config.background)
    expect_dates(dataset)
    expect_dates(source)
    check_source(config, source, config.background, ("prognostic", "diagnostic"))
    first, step = times_of(source, str(config.time))[0], TimeStep.of(dataset)
    times = [step.later(first, number) for number in range(config.window)]
    expect_times(source, times[:1], config.background or config.store)
    expect_times(dataset, times, config.store)
    return source, times


def check(config: AssimilateConfig, made: set[Path]) -> str:
    """What it would do, in words. Raises `ValueError`."""
    dataset = open_analysis(config.store)
    check_match(describe(config.checkpoint), dataset, config.checkpoint, config.store)
    check_covariance(config)
    _, times = background_of(config, dataset)
    analysis = build(config.analysis.model_dump())
    check_kind(config, analysis, 1)
    expect_states(config, dataset, analysis)
    seen = counted_around(config, times, TimeStep.of(dataset))
    return f"an analysis of kind {config.analysis.kind} of {times[0]} with {seen} into {config.output}"
