"""Members of an ensemble whose budgets are closed with error variances from their own spread, all of a start at a time."""

import copy
from collections.abc import Sequence

from emulator.conservation.projection import Projection
from emulator.forecasting.options import EnsembleOptions
from emulator.model.step import Step
from emulator.model.stepper import Stepper, changed


def together(models: Sequence[Stepper], options: EnsembleOptions | None, batch_size: int) -> list[Stepper]:
    """The models of a batch's members, with `options.variances` "ensemble" such as correct the members of a start together.

    Raises `ValueError` then for several models, for what closes no budgets by a projection, and for batches that have not
    room for all members of a start.
    """
    if options is None or options.variances == "step":
        return list(models)
    if len(models) > 1 or options.weights is not None:
        raise ValueError(
            "Expected one checkpoint without member_checkpoints or weights for ensemble.variances ensemble, which corrects a "
            "step of all members together; got several"
        )
    if batch_size < options.members:
        raise ValueError(
            f"Expected a batch_size of {options.members} or more for ensemble.variances ensemble, which corrects a step of "
            f"all members together, got {batch_size}"
        )
    return [changed(model, lambda step: _among(step, options.members)) for model in models]


def _among(step: Stepper, members: int) -> Step:
    scheme = getattr(step, "scheme", None)
    if not isinstance(scheme, Projection):
        kind = "none" if scheme is None else scheme.options.kind
        raise ValueError(
            "Expected a network that was trained with conservation.kind projection for ensemble.variances ensemble, got one "
            f"with {kind}"
        )
    other = copy.copy(step)
    other.scheme = scheme.among(members)
    return other
