"""Checkpoints of anemoi on grids of latitudes and longitudes, by anemoi-inference's own runner."""

import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.grids import Orientation
from emulator.bridges.foreign.names import given_out, started_from
from emulator.bridges.foreign.registry import ForeignError, file_digest, foreign, needs, opened_with_consent
from emulator.bridges.lexicon import WATER, LexiconError, Name
from emulator.options import Options, option
from emulator.planet.variables import VARIABLES, known

AGES = datetime.timedelta(days=36500)  # longer than any forecast: the runner wants to know where to stop
SURFACE = {"z": "geopotential_at_surface"}


@dataclasses.dataclass(frozen=True)
class AnemoiOptions(Options):
    """A checkpoint of anemoi, as AIFS has them: a pickle, which runs what its maker wrote into it."""

    checkpoint: Path = option(about="file for anemoi-inference")
    trust_pickle: bool = option(
        False, "opening a pickle can run any program as you: whether you trust who made the file"
    )
    device: str | None = option(None, "None: a GPU where there is one")
    precision: str | None = option(None, "of anemoi-inference, such as 32 or 16-mixed; None: as it was trained")


class AnemoiModel:
    """A runner of anemoi-inference as a `ForeignModel`. It computes insolation and the like itself.

    Args:
      runner: `anemoi.inference.runners.simple.SimpleRunner` of one dataset. source: the analysis. digest: of the file.
    Raises `ForeignError` for another grid, for inputs that the analysis lacks, and for forcing that would have to be
    prescribed at every step.
    """

    def __init__(self, runner, source: AnalysisSource, digest: str):
        self._runner, self.digest = runner, digest
        (about,) = runner.checkpoint.multi_dataset_metadata.values()
        self.starts = np.array(about.lagged, "timedelta64[ns]")
        self.step = np.timedelta64(about.timestep).astype("timedelta64[ns]")
        self._grid = _orientation(about, source)
        fields = {"lat": source.lat, "lon": source.lon}
        mesh = np.meshgrid(fields["lat"], fields["lon"], indexing="ij")
        self._places = [self._flat(np.asarray(values, np.float64)) for values in mesh]
        kinds = about.variable_categories()
        wanted = [text for text in about.variable_to_input_tensor_index if "computed" not in kinds[text]]
        if moving := [t for t in wanted if "forcing" in kinds[t] and not about.typed_variables[t].is_constant_in_time]:
            raise ForeignError(
                f"Expected a model that is prescribed nothing but the sun, got one of {', '.join(moving)}"
            )
        seconds = self.step / np.timedelta64(1, "s")

        def name(text):
            return name_of(source.dataset, text, seconds)

        self.inputs = started_from(source, name, wanted)
        self.outputs = given_out(name, [text for _, text in sorted(about.output_tensor_index_to_variable.items())])

    def forecast(self, time: np.datetime64, state: np.ndarray) -> Iterator[np.ndarray]:
        date = np.datetime64(time, "s").astype(datetime.datetime)
        fields = {name.text: self._flat(state[:, k]) for k, name in enumerate(self.inputs)}
        start = {"date": date, "latitudes": self._places[0], "longitudes": self._places[1], "fields": fields}
        self._runner.reference_date = None  # that of an earlier forecast
        for found in self._runner.run(input_states=start, lead_time=AGES):
            values = np.stack([np.asarray(found["fields"][name.text], np.float32) for name in self.outputs])
            yield self._grid.ours(values.reshape(len(values), *state.shape[-2:]))

    def _flat(self, fields: np.ndarray) -> np.ndarray:
        """`(..., lat, lon)` as `(..., point)` in the model's order."""
        theirs = self._grid.theirs(fields)
        return np.ascontiguousarray(theirs.reshape(*theirs.shape[:-2], -1))


@foreign("anemoi", AnemoiOptions)
def build(options: AnemoiOptions, source: AnalysisSource) -> AnemoiModel:
    """Raises `ForeignError` without the consent to open a pickle, without the file, and what `AnemoiModel` raises."""
    path = opened_with_consent(options.checkpoint, options.trust_pickle, "anemoi")
    simple = needs("anemoi.inference.runners.simple", "pip install anemoi-inference anemoi-models")
    asked = {n: value for n in ("device", "precision") if (value := getattr(options, n)) is not None}
    runner = simple.SimpleRunner(str(path), **asked)
    if len(datasets := runner.checkpoint.multi_dataset_metadata) != 1:
        raise ForeignError(f"Expected a checkpoint of anemoi of one dataset, got {', '.join(datasets)}")
    return AnemoiModel(runner, source, file_digest(path))


def name_of(dataset, text: str, step_seconds: float) -> Name:
    """What anemoi's name of a field stands for: ECMWF's short name, and hPa on pressure levels (`t_500`).

    Amounts since the step before are our mean rates. Raises `LexiconError` for a name that is none of ours, and for a level
    that the analysis lacks.
    """
    if text in _SURFACE:
        return Name(text, _SURFACE[text])
    if text in _AMOUNTS:
        entry = VARIABLES[_AMOUNTS[text]]
        return Name(text, entry.name, None, step_seconds / (WATER if entry.units == "kg m-2 s-1" else 1.0))
    match = re.fullmatch(r"([a-z]+)_(\d+)", text)
    if match is None or match[1] not in _ALOFT:
        raise LexiconError(f"Expected a name of anemoi that the variable table has a field for, got {text!r}")
    levels = list(dataset["level"].values) if dataset.attrs.get("vertical_coordinate", "pressure") == "pressure" else []
    if float(match[2]) not in levels:
        raise LexiconError(f"Expected a pressure level that the analysis has for {text}, it has none such")
    return Name(text, _ALOFT[match[1]], levels.index(float(match[2])))


def _orientation(about, source: AnalysisSource) -> Orientation:
    """How the model's points lie. Raises `ForeignError` for those of no grid of latitudes and longitudes."""
    shape = len(source.lat), len(source.lon)
    if about.number_of_grid_points != shape[0] * shape[1]:
        raise ForeignError(
            f"Expected a model on the analysis's {shape[0]} x {shape[1]} latitudes and longitudes, got one of "
            f"{about.number_of_grid_points} points; ingest puts an analysis on the model's grid where that has rows"
        )
    latitudes, longitudes = about.latitudes, about.longitudes
    if latitudes is None or longitudes is None:  # nothing tells: as anemoi-datasets writes regular grids
        return Orientation({"lat": source.lat, "lon": source.lon}, source)
    rows, columns = np.reshape(latitudes, shape), np.reshape(longitudes, shape) % 360
    if np.ptp(rows, axis=1).max() > 1e-3 or np.ptp(columns, axis=0).max() > 1e-3:
        raise ForeignError("Expected a model whose points are rows of one latitude each, got others")
    return Orientation({"lat": rows[:, 0], "lon": columns[0]}, source)


def _by_short_name(vertical: str | None) -> Mapping[str, str]:
    return {v.short: v.name for v in reversed(VARIABLES.values()) if v.vertical == vertical and v.short}


_SURFACE = {short: name for short, name in _by_short_name(None).items() if known(name).cell != "mean"} | SURFACE
_ALOFT = _by_short_name("level")
# ECMWF's accumulations that a mean rate of the table stands for, by the names without a sign and without an underscore.
_AMOUNTS = {
    other: v.name
    for v in VARIABLES.values()
    if v.cell == "mean"
    for other in v.also.split()
    if re.fullmatch("[a-z]{1,4}", other)
}
