"""Any prognostic model of earth2studio, its own or one that fulfils its protocol."""

import dataclasses
import functools
import inspect
import itertools
import pkgutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.grids import Orientation
from emulator.bridges.foreign.names import given_out, started_from
from emulator.bridges.foreign.registry import ForeignError, digest_of, foreign, needs
from emulator.bridges.lexicon import Name, name_in
from emulator.options import Options, option

EXTRA = "pip install 'emulator[earth2studio]'"

# Heat fluxes of these of earth2studio's models come upward, as the models have them, under ECMWF's names for fluxes that are
# positive downward (earth2studio 0.19.0, whose lexicon of CAMulator turns the stresses alone).
UPWARD = tuple(f"earth2studio.models.px.{name}" for name in ("ace2", "samudrace", "camulator"))
TURNED = ("msshf", "mslhf")


@dataclasses.dataclass(frozen=True)
class Earth2studioOptions(Options):
    """A prognostic model of earth2studio."""

    factory: str = option(about="package.module:name of a class of earth2studio, or of a function that returns a model")
    package: str | None = option(None, "folder or URL of the model's files; None: where the class has them")
    options: dict[str, Any] = option({}, "named arguments of load_model of the class, or of the function")
    device: str | None = option(None, "None: a GPU where there is one")


class Earth2studioModel:
    """A model of earth2studio as a `ForeignModel`.

    Args:
      model: fulfils earth2studio's `PrognosticModel`. source: the analysis. digest: what tells it from others.
      device: where it runs.
    Raises `ForeignError` for a model on another grid, and for inputs that the analysis does not have.
    """

    def __init__(self, model, source: AnalysisSource, digest: str, device: str = "cpu"):
        self._model, self._device, self.digest = model.to(device), device, digest
        entry = model.input_coords()
        leaving = model.output_coords(entry)
        self.starts = (entry["lead_time"] - entry["lead_time"][-1]).astype("timedelta64[ns]")
        self.step = (leaving["lead_time"][0] - entry["lead_time"][-1]).astype("timedelta64[ns]")
        self._entry, self._source = entry, source
        self._entering, self._leaving = Orientation(entry, source), Orientation(leaving, source)
        seconds = self.step / np.timedelta64(1, "s")
        name = functools.partial(name_in, source.dataset, step_seconds=seconds)
        self.inputs = started_from(source, name, map(str, entry["variable"]))
        self.outputs = as_counted(given_out(name, map(str, leaving["variable"])), type(model))

    def forecast(self, time: np.datetime64, state: np.ndarray) -> Iterator[np.ndarray]:
        from earth2studio.utils.coords import map_coords

        x = torch.from_numpy(np.ascontiguousarray(self._entering.theirs(state)))[None].to(self._device)
        place = {"lat": self._entry["lat"], "lon": self._entry["lon"]}
        coords = OrderedDict(time=np.array([time]), lead_time=self.starts, variable=self._entry["variable"]) | place
        forecast = self._model.create_iterator(*map_coords(x, coords, self._entry))
        number = 1
        for out, found in itertools.islice(forecast, 1, None):
            places, leads = [str(text) for text in found["variable"]], found["lead_time"]
            order = [places.index(name.text) for name in self.outputs]
            fields = out.reshape(len(leads), len(places), *out.shape[-2:])[:, order].float().cpu().numpy()
            for lead, values in zip(leads, fields, strict=True):
                if lead != number * self.step:
                    hours = lead / np.timedelta64(1, "h"), number * self.step / np.timedelta64(1, "h")
                    raise ForeignError(
                        f"Expected leads of whole steps one after another, got {hours[0]:g} h for {hours[1]:g} h"
                    )
                number += 1
                yield self._leaving.ours(values)


@foreign("earth2studio", Earth2studioOptions)
def build(options: Earth2studioOptions, source: AnalysisSource) -> Earth2studioModel:
    """Raises `ForeignError` for what is no factory of prognostic models, and what `Earth2studioModel` raises."""
    needs("earth2studio", EXTRA)
    from earth2studio.models.auto import Package
    from earth2studio.models.px import PrognosticModel

    try:
        factory = pkgutil.resolve_name(options.factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ForeignError(
            f"Expected an importable package.module:name as factory, got {options.factory!r}: {error}"
        ) from error
    if hasattr(factory, "load_model"):
        package = factory.load_default_package() if options.package is None else Package(options.package)
        model = factory.load_model(package, **options.options)
    else:
        model = factory(**({"source": source} if _takes_a_source(factory) else {}), **options.options)
    if not isinstance(model, PrognosticModel):
        raise ForeignError(
            f"Expected a prognostic model of earth2studio from {options.factory!r}, got {type(model).__name__}"
        )
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    said = [options.factory, options.package, options.options]
    return Earth2studioModel(model, source, digest_of(model, said), device)


def as_counted(names: Sequence[Name], model: type) -> list[Name]:
    """A model's names with the sign that it counts them by, which a class of earth2studio's own tells."""
    if not any(each.__module__ in UPWARD for each in model.__mro__):
        return list(names)
    return [dataclasses.replace(n, factor=-n.factor) if n.text in TURNED else n for n in names]


def _takes_a_source(factory) -> bool:
    """Whether a function has an argument `source`, and is given the analysis as a data source of earth2studio."""
    try:
        return "source" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of what is written in C nothing tells
        return False
