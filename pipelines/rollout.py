"""Forecasts from many initial times, written as a Zarr store that other tools open."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from emulator.calendar import select_period
from emulator.forcing import Forcing
from emulator.rollout import rollout as steps_of
from emulator.step import Step
from emulator.store import create_forecast, finish_forecast, open_analysis, open_forecast, write_forecast_init
from pipelines import build
from pipelines.config import RolloutConfig
from pipelines.load import fingerprint
from pipelines.progress import progress

log = logging.getLogger(__name__)
BLOCK_BYTES = 256 << 20


def rollout(config: RolloutConfig) -> None:
    """Write the forecasts, those of the uncorrected network, and the long run, as far as the configuration asks.

    Each initial time is written once; a stopped stage goes on with the next. Raises `ConfigError` when the checkpoint does
    not match the store.
    """
    dataset = open_analysis(config.store)
    step, metadata = build.load_step(config.checkpoint)
    build.check_match(metadata, dataset, config.checkpoint, config.store)
    steps = round(config.lead_days * 86400 / metadata["step_seconds"])
    inits = initial_times(dataset, config, steps)
    attributes = forecast_attributes(dataset, metadata)
    run = Run(step, dataset, config.batch_size)
    _write(run, config.output, inits, steps, 1, attributes, config)
    if config.uncorrected_inits:
        chosen = np.unique(
            np.linspace(0, len(inits) - 1, min(config.uncorrected_inits, len(inits))).round().astype(int)
        )
        plain = Run(Step.without_scheme(step), dataset, config.batch_size)
        _write(
            plain,
            config.uncorrected,
            [inits[i] for i in chosen],
            steps,
            1,
            attributes | {"conservation": "none"},
            config,
        )
    if config.long_run_days:
        every = max(1, round(86400 / metadata["step_seconds"]))
        _write(run, config.long_run, inits[:1], every * config.long_run_days, every, attributes, config)


def initial_times(dataset: xr.Dataset, config: RolloutConfig, steps: int) -> list:
    """Initial times of the period, `every_hours` apart, whose whole forecast lies within the store."""
    times = select_period(dataset, config.period.start, config.period.end)["time"].values
    all_times = dataset["time"].values
    step_hours = dataset.attrs["time_step_seconds"] / 3600
    stride = round(config.every_hours / step_hours)
    if stride < 1 or abs(stride * step_hours - config.every_hours) > 1e-9:
        raise build.ConfigError(f"Expected every_hours as a multiple of {step_hours:g}, got {config.every_hours}")
    last = len(all_times) - 1 - steps
    first = int(np.searchsorted(all_times, times[0]))
    missing = dataset["missing"].values if "missing" in dataset else np.zeros(len(all_times), bool)
    chosen = [i for i in range(first, first + len(times), stride) if i <= last and not missing[i]]
    if not chosen:
        raise build.ConfigError(
            f"Expected initial times from {times[0]} to {times[-1]} with {config.lead_days:g} days of {config.store} after "
            f"them, which ends at {all_times[-1]}; got none"
        )
    return [all_times[i] for i in chosen[: config.maximum_inits]]


def forecast_attributes(dataset: xr.Dataset, metadata: dict) -> dict:
    kept = ("vertical_coordinate", "constants", "source", "history")
    attributes = {name: dataset.attrs[name] for name in kept if name in dataset.attrs}
    return attributes | {
        "title": "emulator forecast",
        "time_step_seconds": metadata["step_seconds"],
        "checkpoint": metadata["sha256"],
        "conservation": metadata["config"]["conservation"]["kind"],
        "training_period": " to ".join(metadata["period"]),
        **{name: value for name, value in metadata["scheme"].items() if name.startswith("unaccounted")},
    }


class Run:
    """Forecasts of one step module, as blocks of consecutive leads under names.

    Args:
      step: the emulator. dataset: the analysis store with initial states and forcing. batch_size: forecasts at a time.
    """

    def __init__(self, step: Step, dataset: xr.Dataset, batch_size: int):
        self.step, self.dataset, self.batch_size = step.eval(), dataset, batch_size
        self.forcing = Forcing(dataset, step.layout.forcing)

    def blocks(self, times: list, steps: int, every: int) -> Iterator[dict[str, np.ndarray]]:
        """Fields `(time, lead, ..., *space)` and records `(time, lead)` of leads 0, every, 2 every, ... steps, in blocks."""
        layout = self.step.layout
        part = self.dataset.sel(time=times)

        def read(channels):
            fields = {n: torch.from_numpy(np.asarray(part[n].values, np.float32)) for n in channels.names}
            return channels.pack(fields) if fields else torch.zeros(len(times), 0, *self.forcing.grid.shape)

        state, diagnostic = read(layout.prognostic), read(layout.diagnostic)
        size = 4 * len(times) * (state[0].numel() + diagnostic[0].numel())
        most = max(1, BLOCK_BYTES // size)
        held = [(state, diagnostic, {})]
        told = (self.forcing.told([self.forcing.later(time, k) for time in times]) for k in range(steps))
        for number, result in enumerate(steps_of(self.step, state, told), start=1):
            if number % every:
                continue
            if len(held) == most:
                yield self._named(held)
                held = []
            held.append((result.state, result.diagnostic, result.record))
        yield self._named(held)

    def _named(self, held) -> dict[str, np.ndarray]:
        layout = self.step.layout
        out: dict[str, np.ndarray] = {}
        for channels, part in ((layout.prognostic, 0), (layout.diagnostic, 1)):
            if channels.count:
                stacked = torch.stack([entry[part] for entry in held], dim=1).flatten(0, 1)
                for name, field in channels.unpack(stacked).items():
                    out[name] = field.numpy().reshape(-1, len(held), *field.shape[1:])
        names = {name for entry in held for name in entry[2]}
        zeros = torch.zeros(len(held[0][0]))
        for name in sorted(names):
            out[name] = torch.stack([entry[2].get(name, zeros).float() for entry in held], dim=1).numpy()
        return out


def _write(run: Run, path: Path, inits: list, steps: int, every: int, attributes: dict, config: RolloutConfig) -> None:
    mark = fingerprint(config, str(path.name), attributes["checkpoint"], str(run.dataset.attrs.get("fingerprint")))
    if _is_complete(path, mark):
        log.info("%s is complete", path)
        return
    seconds = run.forcing.step_seconds * every
    leads = np.round(np.arange(steps // every + 1) * seconds * 1e9).astype("timedelta64[ns]")
    first = next(run.blocks(inits[:1], every, every))
    template = _dataset(run, {name: field[0] for name, field in first.items()}, leads)
    done = create_forecast(path, template, inits, leads, attributes | {"fingerprint": mark})
    left = [i for i in range(len(inits)) if i not in done]
    with progress(Path(path).stem, len(left) * len(leads)) as report:
        finished = 0
        for start in range(0, len(left), run.batch_size):
            chosen = left[start : start + run.batch_size]
            at = 0
            for block in run.blocks([inits[i] for i in chosen], steps, every):
                count = next(iter(block.values())).shape[1]
                last = at + count == len(leads)
                for row, index in enumerate(chosen):
                    part = {name: field[row] for name, field in block.items()}
                    write_forecast_init(path, _dataset(run, part, leads[at : at + count]), index, done=last)
                at += count
                finished += count * len(chosen)
                report(finished, f"{len(inits)} initial times")
    finish_forecast(path)


def _dataset(run: Run, fields: dict[str, np.ndarray], leads: np.ndarray) -> xr.Dataset:
    """Fields `(lead, ..., *space)` of one forecast with the store's coordinates, static fields and attributes."""
    source = run.dataset
    data = {}
    for name, values in fields.items():
        if name in source:
            dims = tuple("lead_time" if d == "time" else d for d in source[name].dims)
            data[name] = (dims, values, source[name].attrs)
        else:
            data[name] = (("lead_time",), values, {"long_name": name.replace("_", " ")})
    static = ["half_level_a", "half_level_b", "cell_area", *build.STATIC]
    data |= {n: source[n].variable for n in static if n in source and n not in data}
    coordinates = {n: source[n].variable for n in ("level", "latitude", "longitude") if n in source.coords}
    length = next(iter(fields.values())).shape[0]
    return xr.Dataset(data, {"lead_time": leads[:length], **coordinates})


def _is_complete(path: Path, mark: str) -> bool:
    if not Path(path).exists():
        return False
    with open_forecast(path) as store:
        return store.attrs.get("fingerprint") == mark
