"""How far the data's own budgets fail to close, found once for some data and budgets and kept beside the statistics.

They take hundreds of true states, which a training would read at every start, on every process.
"""

import dataclasses
import hashlib
import inspect
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.anchors import TruthResiduals, truth_residuals
from emulator.conservation.budgets import Anchor, Budget
from emulator.conservation.options import SchemeOptions
from emulator.conservation.scheme import of_nominal
from emulator.data.samples import Samples
from emulator.files.whole_file import whole_file
from emulator.model.stepper import newest
from emulator.planet.quantities.registry import quantities

MOST = 256  # pairs of states
FORMULAS = 1  # to be raised where what `emulator.conservation` makes of quantities changes

log = logging.getLogger(__name__)


def residuals(
    budgets: Mapping[str, Budget], options: SchemeOptions, samples: Samples, statistics: Path | None = None
) -> TruthResiduals:
    """The truth's residuals of some budgets without unaccounted rates, over pairs of states evenly over the samples' period.

    `statistics`: path of a file beside which they are looked for, and kept when found; they are not where the stores have no
    fingerprint. Raises `ValueError` without a pair of states, and for residuals that are not finite.
    """
    key = None if statistics is None else _key(budgets, options, samples)
    path = None if key is None else beside(statistics)
    known = {} if path is None else _read(path)
    # another process may have written it between two reads: all that hold a state together find it, or none
    if float(samples.space.highest(torch.tensor(float(key not in known)))) == 0:
        return TruthResiduals(**known[key])
    found = truth_residuals(budgets.values(), true_pairs(samples), samples.step.seconds)
    if path is not None and samples.space.rank == 0:
        try:
            with whole_file(path, shared=True) as partial:
                partial.write_text(json.dumps(known | {key: dataclasses.asdict(found)}, indent=1))
        except OSError as error:  # statistics may lie where a training does not write
            log.debug("residuals are not kept: %s", error)
    return found


def beside(statistics: Path) -> Path:
    """Where the residuals of a statistics file are kept."""
    return Path(statistics).with_name(f"{Path(statistics).name}.residuals.json")


def counted(budgets: Mapping[str, Budget]) -> set[str]:
    """Fields that count in some budgets where they are known."""
    names = {"surface_pressure", fluxes.SNOWFALL, *fluxes.WATER_SPECIES}
    for name, budget in budgets.items():
        names |= {*budget.required, *quantities()[name].optional, *quantities()[name].optional_fluxes}
    return names


def true_pairs(samples: Samples, most: int = MOST, batch_size: int = 16) -> Iterator[tuple]:
    """Consecutive true states by name, evenly over the period, as `truth_residuals` takes them."""
    starts = samples.starts(1)
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int))]
    prognostic, diagnostic = samples.layout.prognostic, samples.layout.diagnostic
    for first in range(0, len(chosen), batch_size):
        batch = samples.batch(chosen[first : first + batch_size], 1)
        state, means = batch.truth(0)
        after = prognostic.unpack(state) | diagnostic.unpack(means)
        after = samples.layout.given.unpack(torch.nan_to_num(batch.forcing[:, 0])) | after
        seconds = samples.step.lengths_from(samples.times[chosen[first : first + batch_size]])
        if samples.step.months:
            after = of_nominal(after, torch.from_numpy(seconds / samples.step.seconds))
        left = () if batch.outflow is None else (_left(batch.outflow[:, 0], samples.layout.border.outflow, seconds),)
        yield prognostic.unpack(newest(batch.start(), samples.layout)), after, *left


def _left(outflow: Tensor, names: Sequence[str], seconds: np.ndarray) -> Anchor:
    """What left the domain over steps of so many seconds, of a rate `(batch, budget)`."""
    amounts = torch.from_numpy(seconds)[:, None] * outflow
    return Anchor(None, dict(zip(names, amounts.unbind(1), strict=True)))


def _key(budgets: Mapping[str, Budget], options: SchemeOptions, samples: Samples) -> str | None:
    """Hash of all that residuals depend on; None for data that cannot be told from others."""
    stores = samples.fingerprints
    if not all(stores):
        return None
    if (formulas := _formulas(budgets)) is None:
        return None
    layout = samples.layout
    known = {*layout.prognostic.names, *layout.diagnostic.names, *layout.given.names}
    names = sorted(counted(budgets) & known)
    forms = sorted(budgets), options.energy, options.heat_capacity, options.kinetic
    period = str(samples.times[0]), str(samples.times[-1]), len(samples)
    outflow = samples.boundary and samples.boundary.outflow
    outside = [] if outflow is None else [outflow.fingerprint]
    text = json.dumps([FORMULAS, formulas, MOST, stores, period, forms, names, *outside])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _formulas(budgets: Mapping[str, Budget]) -> list[str] | None:
    """Digests of the files that hold what the budgets' quantities are; None where one is in no file, as in a notebook.

    A user may change a quantity of their own, and its residuals are then others.
    """
    digests = []
    for name in sorted(budgets):
        known = quantities()[name]
        for function in (known.content, known.gain, known.column):
            try:
                text = "" if function is None else Path(inspect.getfile(function)).read_text()
            except (OSError, TypeError):
                return None
            digests.append(hashlib.sha256(f"{text}{sorted(known.fluxes.items())}".encode()).hexdigest()[:16])
    return digests


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
