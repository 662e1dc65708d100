"""Forecast models of other packages behind one protocol: initial fields in, fields at leads out.

A kind is one file of this folder: a frozen dataclass of options, and a function under `@foreign(kind, its options)` that
makes the model for an analysis. What a file needs beyond the core dependencies it imports in that function.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.lexicon import Name
from emulator.options import Options
from emulator.registry import Registry


class ForeignError(ValueError):
    """A foreign model that cannot be used as configured, in one sentence."""


class ForeignModel(Protocol):
    """A forecast model on the grid of an analysis.

    Attributes:
      step: timedelta64 between the fields that it gives.
      starts: timedelta64 of its input times from the initial time, which is the last of them, zero.
      inputs, outputs: fields as it has them, by the variables and levels of the analysis.
      digest: tells its weights and options from others'.
    """

    step: np.timedelta64
    starts: Sequence[np.timedelta64]
    inputs: Sequence[Name]
    outputs: Sequence[Name]
    digest: str

    def forecast(self, time: np.datetime64, state: np.ndarray) -> Iterator[np.ndarray]:
        """Fields after every step, `(output, lat, lon)` in the model's units, from `state`, `(start, input, lat, lon)`.

        Rows run from north to south and columns eastward as those of the analysis. Without end, or as far as the analysis has
        what the model is prescribed.
        """


class Kind(NamedTuple):
    """A registered kind: its options, and the function `(options, source)` that makes a model."""

    options: type[Options]
    build: Callable[[Any, AnalysisSource], ForeignModel]


FOREIGN: Registry[Kind] = Registry("foreign model of a kind", __package__, error=ForeignError)


def foreign(kind: str, options: type[Options]) -> Callable:
    """Registers a function `(options, source)` as what makes the models of a kind, for the analysis of a source."""
    return lambda builder: FOREIGN.register(kind, Kind(options, builder)).build


def make_foreign(section: Mapping[str, Any], source: AnalysisSource) -> ForeignModel:
    """The model of a section `{kind: ..., **options}`. Raises `ForeignError` for what cannot be made or does not fit."""
    given = dict(section)
    kind = FOREIGN[given.pop("kind", None)]
    return kind.build(kind.options.of(given), source)


def needs(package: str, extra: str):
    """The module of a package. Raises `ForeignError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ForeignError(
            f"Expected the package {package.split('.')[0]} to be installed ({extra}): {error}"
        ) from error


def opened_with_consent(path, trusted: bool, package: str) -> Path:
    """The path of a pickle that may be opened. Raises `ForeignError` without consent, saying why, and without a file."""
    if not trusted:
        raise ForeignError(
            f"Expected trust_pickle: true to open {path}: a checkpoint of {package} is a pickle, which can run any program "
            "as you while it is opened, so say that you trust who made it"
        )
    if not Path(path).is_file():
        raise ForeignError(f"Expected a checkpoint of {package} at {path}, got no file there")
    return Path(path)


def file_digest(path: Path) -> str:
    """Hash of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(model: object, said: object) -> str:
    """Hash of a model's weights, where it is a torch module, and of what was said to make it."""
    total = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items() if isinstance(model, torch.nn.Module) else ()):
        if isinstance(tensor, torch.Tensor):
            total.update(
                name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return total.hexdigest()
