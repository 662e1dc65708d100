"""What the stages `assimilate` and `cycle` share: the model, the covariance and the kind of analysis of a configuration."""

import hashlib
import logging
from pathlib import Path

import torch
import xarray as xr

from emulator.assimilation.covariance import SpectralCovariance, estimated, fingerprint_of
from emulator.assimilation.cycle import Setup
from emulator.assimilation.differences import forecast_differences, sample_times
from emulator.assimilation.forecasts import Forecasts
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.increments import Increments
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.observations import Observations
from emulator.assimilation.options import QualityOptions
from emulator.data.channels import Layout
from emulator.model.checkpoint import describe
from emulator.model.saved_model import check_match, digest_of, load_model
from emulator.planet.calendar import TimeStep
from emulator.store.schema import fingerprint, grid_of
from pipelines.config import AssimilateConfig, CycleConfig
from pipelines.on_demand import reporting

log = logging.getLogger(__name__)
Config = AssimilateConfig | CycleConfig


def check_source(config: Config, source: xr.Dataset, path: Path | None, groups: tuple[str, ...]) -> None:
    """Raises `ValueError` where a store of its own, from which states are taken, does not fit the model."""
    if path is not None:
        check_match(describe(config.checkpoint), source, config.checkpoint, path, groups)


def expect_states(config: Config, dataset: xr.Dataset, analysis) -> None:
    """Raises `ValueError` where a kind of analysis is made for other states than the model's."""
    channels = Layout.from_json(describe(config.checkpoint)["layout"]).prognostic
    analysis.expect(Geometry.of(dataset, channels))


def without_places(config: Config, analysis) -> tuple[Config, list[str]]:
    """A configuration without where the weights of an analysis lie, if it has some, and what tells them from others."""
    if analysis.digest is None:
        return config, []
    own = config.analysis.model_copy(update={"checkpoint": None})
    return config.model_copy(update={"analysis": own}), [analysis.digest]


def observations_around(config: Config, times: list, step: TimeStep) -> tuple[int, int]:
    """How many observations are nearest to some times, a step apart, and how many others the table has."""
    half = (step.later(times[0], 1) - times[0]) / 2
    seen = Observations.times_in(config.observations)
    inside = int(((seen > times[0] - half) & (seen <= times[-1] + half)).sum())
    return inside, len(seen) - inside


def counted_around(config: Config, times: list, step: TimeStep) -> str:
    """What `observations_around` finds, in words. Raises `ValueError` for none."""
    inside, others = observations_around(config, times, step)
    if not inside:
        raise ValueError(f"Expected observations in {config.observations} from {times[0]} to {times[-1]}, got none")
    return f"{inside} observations" + (f" ({others} are of other times)" if others else "")


def tell_left_out(config: Config, times: list, step: TimeStep) -> None:
    """Says how many observations are of none of the times, a step apart."""
    inside, others = observations_around(config, times, step)
    if others:
        of = f"{others} of {inside + others} observations"
        log.log(logging.INFO if inside else logging.WARNING, "%s: left out %s, of no window", config.observations, of)


def forecasts_of(config: Config, dataset: xr.Dataset, seed: int = 0) -> Forecasts:
    """The model of a checkpoint; its weights take no gradients. Raises `ValueError` where it does not fit the store."""
    model = load_model(config.checkpoint).requires_grad_(False)
    check_match(model.metadata, dataset, config.checkpoint, config.store)
    return Forecasts(model, dataset, config.batch_size, seed)


def setup_of(config: Config, dataset: xr.Dataset, forecasts: Forecasts, first: torch.Tensor) -> Setup:
    """All that windows share; dry mass is that of the `first` state, `(member, channel, *space)`, members' mean."""
    channels, analysis = forecasts.layout.prognostic, build(config.analysis.model_dump())
    increments = Increments.of(dataset, channels)
    mass = increments.dry_mass(first)
    if mass is None:
        log.warning(
            "States make up no columns: analyses keep no dry mass and tell of no water and energy that they add"
        )
    additive = getattr(config, "additive", 0.0)
    return Setup(
        forecasts=forecasts,
        assimilation=analysis,
        geometry=Geometry.of(dataset, channels),
        increments=increments,
        dry_mass=None if mass is None else float(mass.mean()),
        covariance=covariance_of(config, dataset, forecasts) if analysis.static or additive else None,
        quality=QualityOptions.of(config.quality.model_dump()),
        additive=additive,
        seed=getattr(config, "seed", 0),
    )


def check_covariance(config: Config) -> None:
    """Raises `ValueError` for a `covariance.path` at which another file lies, which would be written over."""
    if (path := config.covariance.path) is not None and path.exists():
        fingerprint_of(path)


def covariance_of(config: Config, dataset: xr.Dataset, forecasts: Forecasts) -> SpectralCovariance:
    """The static covariance of a file; where there is none, or one of other settings, it is estimated and written.

    Without a path of its own it is named by what decides it, so that stages side by side share it or keep to their own.
    """
    options = config.covariance
    settings = options.model_copy(update={"path": None, "scale": 1.0}).model_dump_json()
    made = fingerprint(settings, str(digest_of(forecasts.model)), str(dataset.attrs.get("fingerprint")))
    path = options.path or Path(config.output).with_name(f"covariance-{made[:8]}.nc")
    grid, channels = grid_of(dataset), forecasts.layout.prognostic
    if not path.exists() or fingerprint_of(path) != made:
        seconds = forecasts.forcing.step_seconds
        lengths = tuple(steps_of(hours, seconds, name) for name, hours in _lengths(config).items())
        period = options.period
        times = sample_times(dataset, options.samples, lengths[1], period.start, period.end)
        with reporting("covariance") as report:
            samples = forecast_differences(forecasts, dataset, times, lengths, report)
        found = estimated(grid, channels, samples, options.degrees, options.modes)
        found.save(path, {"fingerprint": made})
        log.info("%s: errors of the background from %d differences of forecasts", path, len(times))
    return SpectralCovariance.load(path, grid, channels, options.scale)


def _lengths(config: Config) -> dict[str, float]:
    return {name: getattr(config.covariance, name) for name in ("short_hours", "long_hours")}


def steps_of(hours: float, step_seconds: float, name: str) -> int:
    """Hours in steps of the model. Raises `ValueError` for a part of one."""
    steps = hours * 3600 / step_seconds
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-9:
        raise ValueError(f"Expected {name} as a multiple of the model's step, {step_seconds / 3600:g} h, got {hours:g}")
    return round(steps)


def digest_of_file(path: Path) -> str:
    """What tells a file's content from others'."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            total.update(block)
    return total.hexdigest()
