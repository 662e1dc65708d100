"""A downscaling network applied to a store: analyses become an analysis store, forecasts a forecast store, both resumable."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.downscaling.downscaler import Downscaler
from emulator.downscaling.make import Making
from emulator.downscaling.options import ApplyOptions
from emulator.downscaling.saved import load_downscaler
from emulator.forecasting.writing import silent
from emulator.model.saved_model import grid_to_json
from emulator.options import as_before
from emulator.planet.calendar import later, select_period, valid_times
from emulator.planet.vertical import VERTICAL
from emulator.store.analysis import ANALYSIS, check_times, open_analysis
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast, write_forecast_init
from emulator.store.marks import mark, marks
from emulator.store.regions import create, finish, finished_fingerprint, write_region
from emulator.store.schema import horizontal_coordinates, open_zarr

log = logging.getLogger(__name__)
KEPT = ("vertical_coordinate", "constants", "Conventions", "source")
HALF_LEVELS = ("half_level_a", "half_level_b")
Progress = Callable[[str, int], contextlib.AbstractContextManager]


def downscale(model, store, output, progress: Progress = silent, **options) -> None:
    """Write the fine fields of a coarse store: an analysis store of analyses, a forecast store of forecasts.

    A call that was stopped goes on where it was and ends with the same bits; a store that is complete is left alone.

    Args:
      model: a checkpoint of `train_downscaling`, or what `load_downscaler` gives. store: path of the coarse store.
      output: path of the fine one. options: of `emulator.downscaling.options.ApplyOptions`.

    Raises `ValueError` in one sentence for a store that does not fit the network.
    """
    making = planned(model, store, ApplyOptions.of(options))
    attributes = _attributes(making.step, making.dataset, making.options)
    if finished_fingerprint(output) == attributes["fingerprint"]:
        log.info("%s is complete", output)
        return
    write = _write_analysis if making.axis == "time" else _write_forecasts
    write(making, Path(output), attributes, progress)


def planned(model, store, options: ApplyOptions) -> Making:
    """What would be made of a coarse store, with nothing read of its fields yet; arguments and errors as of `downscale`."""
    step = model if isinstance(model, Downscaler) else load_downscaler(model)
    is_analysis = open_zarr(store).attrs.get("emulator_schema") == ANALYSIS
    dataset = open_analysis(store) if is_analysis else open_forecast(store)
    axis = "time" if is_analysis else "init_time"
    return Making(step, select_period(dataset, options.period.start, options.period.end, axis), options, store)


def _attributes(step: Downscaler, dataset: xr.Dataset, options: ApplyOptions) -> dict:
    """What a store says of itself; its fingerprint tells all that its values depend on."""
    kept = {name: dataset.attrs[name] for name in KEPT if name in dataset.attrs}
    network = step.metadata.get("sha256", "") if options.method == "network" else ""
    of = {
        "method": step.metadata["config"]["kind"] if options.method == "network" else "bilinear",
        "coarse_grid": step.coarse_grid.describe(),
        "coarse_step_hours": step.plan.steps * step.plan.seconds / 3600,
        "coarse_store": dataset.attrs.get("fingerprint"),
        "coarse_title": dataset.attrs.get("title", ""),
    }
    axis = "init_time" if "init_time" in dataset.dims else "time"
    times = [str(time) for time in dataset[axis].values]
    text = json.dumps([_settings(step, options), of, network, times, _fine(step)], sort_keys=True, default=str)
    return kept | {
        "title": f"downscaled {'forecasts' if axis == 'init_time' else 'analyses'} ({of['method']})",
        "downscaling": json.dumps(of),
        **({"checkpoint": network} if network else {}),
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def _settings(step: Downscaler, options: ApplyOptions) -> dict:
    """The options that values depend on."""
    left_out = {"period", "batch_size"}
    if options.method == "bilinear":
        left_out |= {"seed", "members", "sampling_steps", "at_least_zero"}
    elif step.generative is not None:
        left_out -= {"batch_size"}  # samples of a batch share their random numbers
    return {name: value for name, value in as_before(options).items() if name not in left_out}


def _fine(step: Downscaler) -> dict:
    """What is made, and the store that fields which do not change are from: interpolation alone depends on these too."""
    plan = step.plan.to_json()
    kept = {name: plan[name] for name in ("targets", "instants", "fine_instants", "attributes", "positive")}
    return kept | {"grid": grid_to_json(step.grid), "store": step.metadata["store"]["fingerprint"]}


def _write_analysis(making: Making, path: Path, attributes: Mapping, progress: Progress) -> None:
    times, size, plan = making.dataset["time"].values, making.options.batch_size, making.plan
    ends = times[making.first :]
    if not len(ends):
        raise ValueError(f"Expected at least {making.first + 1} times of the coarse store, got {len(times)}")
    template = _template(making, making.fields(making.dataset, slice(making.first, making.first + 1), ends[:1]), "time")
    fine = np.concatenate([_fine_times(making, ends[n : n + 1]) for n in range(len(ends))])
    empty = {n: _along(field, "time", len(fine)) for n, field in template.data_vars.items()}
    whole = xr.Dataset(empty, {**template.coords, "time": fine})
    whole.attrs = {**attributes, "emulator_schema": ANALYSIS, "time_step_seconds": plan.seconds}
    create(path, whole, {"time": 1})
    blocks = range(0, len(ends), size)
    done = marks(path)
    left = [first for first in blocks if f"block-{first:06d}" not in done]
    with progress(path.stem, len(left)) as report:
        for number, first in enumerate(left):
            part = slice(making.first + first, making.first + min(first + size, len(ends)))
            fields = making.fields(making.dataset, part, times[part])
            for name, values in fields.items():
                write_region(path, name, values, {"time": first * plan.steps})
            mark(path, f"block-{first:06d}")
            report(number + 1, f"{len(ends)} times")
    finish(path, [f"block-{first:06d}" for first in blocks])
    check_times(open_analysis(path), path)


def _write_forecasts(making: Making, path: Path, attributes: Mapping, progress: Progress) -> None:
    inits, leads, size = (
        making.dataset["init_time"].values,
        making.dataset["lead_time"].values,
        making.options.batch_size,
    )
    if leads.dtype.kind != "m" or len(leads) <= making.first:
        raise ValueError(f"Expected at least {making.first + 1} leads in hours or days, got {len(leads)}: {leads[:3]}")
    valid, plan = valid_times(inits, leads), making.plan
    ends = leads[making.first :]
    back = np.arange(plan.steps)[::-1] * np.timedelta64(round(plan.seconds * 1e9), "ns")
    fine = (ends[:, None].astype("timedelta64[ns]") - back).ravel()

    def forecast(index: int, at: slice) -> dict[str, np.ndarray]:
        return making.fields(making.dataset.isel(init_time=index), at, valid[index, at])

    template = _template(making, forecast(0, slice(making.first, making.first + 1)), "lead_time")
    done = create_forecast(path, template, inits, fine, attributes)
    left = [index for index in range(len(inits)) if index not in done]
    with progress(path.stem, len(left)) as report:
        for number, index in enumerate(left):
            blocks = range(making.first, len(leads), size)
            parts = [forecast(index, slice(first, min(first + size, len(leads)))) for first in blocks]
            fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            dataset = _template(making, fields, "lead_time").assign_coords(lead_time=fine)
            write_forecast_init(path, dataset, index)
            report(number + 1, f"{len(inits)} initial times")
    finish_forecast(path)


def _fine_times(making: Making, end: np.ndarray) -> np.ndarray:
    """The times of the fine steps of the interval that ends at a time `(1,)`."""
    plan = making.plan
    return np.concatenate([later(end, -plan.seconds * back) for back in reversed(range(plan.steps))])


def _along(field: xr.DataArray, axis: str, length: int) -> xr.Variable:
    """A field with another length of an axis and no values of its own."""
    if axis not in field.dims:
        return field.variable
    shape = tuple(length if dim == axis else size for dim, size in field.sizes.items())
    return xr.Variable(field.dims, np.broadcast_to(np.zeros((), field.dtype), shape), field.attrs)


def _template(making: Making, fields: Mapping[str, np.ndarray], axis: str) -> xr.Dataset:
    """Fields along an axis with the coordinates of the fine grid and of the coarse store's levels, and what is fixed."""
    step, source, data = making.step, making.dataset, {}
    front = (axis, "member") if making.members else (axis,)
    for name, values in fields.items():
        levels = [d for d in source[name].dims if d in VERTICAL]
        data[name] = ((*front, *levels, *step.grid.dims), values, dict(step.plan.attributes[name]))
    places = {n: (step.grid.dims, field.cpu().numpy(), attributes) for n, (field, attributes) in step.places.items()}
    data |= places | {n: source[n].variable for n in HALF_LEVELS if n in source}
    data["cell_area"] = (step.grid.dims, step.grid.area, {"units": "1", "long_name": "share of the grid's area"})
    coordinates = {n: source[n].variable for n in source.coords if n in VERTICAL}
    if making.members:
        coordinates["member"] = np.arange(making.members)
    return xr.Dataset(data, {**coordinates, **horizontal_coordinates(step.grid)})
