"""Checkpoints of Ai2's package fme: ACE and its kin, by its own stepper."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import cftime
import numpy as np
import torch
import xarray as xr

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.grids import Orientation
from emulator.bridges.foreign.names import given_out, started_from
from emulator.bridges.foreign.registry import ForeignError, file_digest, foreign, needs, opened_with_consent
from emulator.bridges.lexicon import LexiconError, Name
from emulator.options import Options, option
from emulator.planet.variables import VARIABLES
from emulator.store.schema import constants_of

LATENT_HEAT = "LHTFLsfc"


@dataclasses.dataclass(frozen=True)
class FmeOptions(Options):
    """A checkpoint of fme, such as ACE2: a pickle, which runs what its maker wrote into it."""

    checkpoint: Path = option(about="file that fme's training wrote, such as ace2_era5_ckpt.tar")
    trust_pickle: bool = option(
        False, "opening a pickle can run any program as you: whether you trust who made the file"
    )


class FmeModel:
    """A stepper of fme as a `ForeignModel`: it is prescribed what it needs from the analysis at both ends of each step.

    Args:
      stepper: as `fme.ace.stepper.single_module.load_stepper` gives it. source: the analysis. digest: of its file.
    Raises `ForeignError` for another grid, for more than one input time, and for inputs that the analysis lacks.
    """

    def __init__(self, stepper, source: AnalysisSource, digest: str):
        self._stepper, self._source, self.digest = stepper, source, digest
        about = stepper.training_dataset_info
        if stepper.n_ic_timesteps != 1:
            raise ForeignError(f"Expected a stepper of fme with one input time, got {stepper.n_ic_timesteps}")
        places = {name: getattr(about.horizontal_coordinates, name).cpu().numpy() for name in ("lat", "lon")}
        self._grid = Orientation(places, source)
        self.starts = np.zeros(1, "timedelta64[ns]")
        self.step = np.timedelta64(about.timestep).astype("timedelta64[ns]")

        def name(text):
            return name_of(source.dataset, text)

        self.inputs = started_from(source, name, sorted(stepper.prognostic_names))
        self._forcing = started_from(source, name, sorted(_prescribed(stepper)))
        self.outputs = given_out(name, sorted(stepper.out_names))
        if LATENT_HEAT in stepper.out_names:  # by which ACE counts what evaporates, and closes its budget of water
            from fme.core.constants import LATENT_HEAT_OF_VAPORIZATION as HEAT  # 2.5e6 J kg-1, not the analysis's

            self.outputs.append(Name(LATENT_HEAT, "mean_evaporation_rate", None, -HEAT))

    def forecast(self, time: np.datetime64, state: np.ndarray) -> Iterator[np.ndarray]:
        from fme.ace.data_loading.batch_data import PrognosticState

        self._stepper.set_eval()
        current = PrognosticState(self._batch(self.inputs, state, [time]))
        while True:
            times = np.array([time, time + self.step])
            forcing = self._batch(self._forcing, self._source.read(self._forcing, times), times)
            with torch.no_grad():
                predicted, current = self._stepper.predict(current, forcing)
            fields = torch.stack([predicted.data[name.text][0, 0] for name in self.outputs])
            yield self._grid.ours(fields.float().cpu().numpy())
            time = times[1]

    def _batch(self, names: list[Name], fields: np.ndarray, times):
        """Fields `(time, field, lat, lon)` as a batch of fme of one sample."""
        from fme import get_device
        from fme.ace.data_loading.batch_data import BatchData

        theirs = torch.from_numpy(np.ascontiguousarray(self._grid.theirs(fields))).to(get_device())
        data = {name.text: theirs[None, :, place] for place, name in enumerate(names)}
        seconds = np.asarray(times).astype("datetime64[s]").astype(np.int64)
        units = "seconds since 1970-01-01"
        dates = cftime.num2date(seconds[None], units, "proleptic_gregorian", only_use_cftime_datetimes=True)
        return BatchData.new_on_device(
            data, xr.DataArray(dates, dims=["sample", "time"]), horizontal_dims=["lat", "lon"]
        )


@foreign("fme", FmeOptions)
def build(options: FmeOptions, source: AnalysisSource) -> FmeModel:
    """Raises `ForeignError` without the consent to open a pickle, without the file, and what `FmeModel` raises."""
    path = opened_with_consent(options.checkpoint, options.trust_pickle, "fme")
    stepping = needs(
        "fme.ace.stepper.single_module", "pip install fme, in an environment that its torch-harmonics fits"
    )
    return FmeModel(stepping.load_stepper(path), source, file_digest(path))


def name_of(dataset: xr.Dataset, text: str) -> Name:
    """What a name of fme's stands for in an analysis, whose levels are counted from 0 at the top as fme counts them.

    Total water is specific humidity where the analysis has no total water: what clouds hold is less than its error.
    Raises `LexiconError` for a name that is none of ours, and for a level that the analysis lacks.
    """
    if text == "HGTsfc":  # a height
        return Name(text, "geopotential_at_surface", None, 1 / constants_of(dataset).gravity)
    match = re.fullmatch(r"(.+)_(\d+)", text)
    if match and match[1] in _ALOFT:
        if int(match[2]) >= dataset.sizes.get("level", 0):
            raise LexiconError(
                f"Expected a level that the analysis has for {text}, it has {dataset.sizes.get('level', 0)}"
            )
        variable, sign = _ALOFT[match[1]]
        if variable == "specific_total_water" and variable not in dataset:
            variable = "specific_humidity"
        return Name(text, variable, int(match[2]), sign)
    if text.lower() in _SURFACE:
        variable, sign = _SURFACE[text.lower()]
        return Name(text, variable, None, sign)
    raise LexiconError(f"Expected a name of fme that the variable table has a field for, got {text!r}")


def _prescribed(stepper) -> set[str]:
    """Names of what a step is given besides its state."""
    window = stepper.config.get_forcing_window_data_requirements(1)
    return set(window.names)


def _named(vertical: str | None) -> dict[str, tuple[str, float]]:
    """Our variable and the sign of theirs by other names that sources have for it."""
    found = {v.name: (v.name, 1.0) for v in VARIABLES.values() if v.vertical == vertical}
    for entry in (v for v in VARIABLES.values() if v.vertical == vertical):
        for other in entry.also.split():
            found.setdefault(other.removeprefix("-"), (entry.name, -1.0 if other.startswith("-") else 1.0))
    return found


_ALOFT, _SURFACE = _named("level"), _named(None)
