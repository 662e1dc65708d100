"""Forecasts with a model of another package, written like those of our own."""

from emulator.bridges.forecasts import ForeignForecaster
from emulator.bridges.run import foreign_attributes, foreign_forecaster
from emulator.exports.export import check_formats
from emulator.forecasting.options import ThinOptions
from emulator.forecasting.pressure import check_pressures
from emulator.forecasting.schedule import Schedule, count_steps
from emulator.forecasting.writing import Output, write
from emulator.store.analysis import open_analysis
from pipelines.config import RolloutConfig
from pipelines.finish_rollout import finish_rollout
from pipelines.starts import starts_of


def foreign_rollout(config: RolloutConfig, share: tuple[int, int], watched) -> None:
    """Write the forecasts and the long run of the model of `config.model`, or every n-th of them: `share` is `(i, n)`.

    An initial time that was stopped begins anew. Raises `ValueError` for a model that does not fit the store.
    """
    forecaster, inits, steps = _prepared(config)
    step, thin = forecaster.forcing.step, ThinOptions.of(config.thin.model_dump())
    schedule = Schedule.of(forecaster.forcing, inits, steps, thin.every_hours, thin.mean)
    attributes, weights = foreign_attributes(forecaster, config.model.kind), [[(0, forecaster.model.digest)]]
    write(Output(config.output, attributes, weights, thin, share), forecaster, inits, schedule, watched)
    if config.long_run_days or config.long_run_lead:
        total = count_steps(step, config.long_run_days, config.long_run_lead)
        daily = Schedule.every(total, max(1, round(86400 / step.seconds)))
        write(Output(config.long_run, attributes, weights, None, share), forecaster, inits[:1], daily, watched)
    finish_rollout(config)


def check_foreign(config: RolloutConfig) -> str:
    """How many forecasts it would make, in words; the model is loaded to know. Raises `ValueError`."""
    _, inits, _ = _prepared(config)
    return f"{len(inits)} forecasts of {config.lead or f'{config.lead_days:g} days'} into {config.output}"


def _prepared(config: RolloutConfig) -> tuple[ForeignForecaster, list, int]:
    """The forecaster, the initial times and the number of steps."""
    dataset = open_analysis(config.store)
    check_formats(config.also, dataset)
    forecaster = foreign_forecaster(config.model.model_dump(), dataset)
    if config.vertical is not None:
        predicted, thin = [name.variable for name in forecaster.model.outputs], ThinOptions.of(config.thin.model_dump())
        check_pressures(dataset, config.vertical.pressure, predicted, thin)
    steps = count_steps(forecaster.forcing.step, config.lead_days, config.lead)
    starts = starts_of(config, forecaster.length, len(forecaster.model.starts))
    return forecaster, starts.of(dataset, steps, str(config.store)), steps
