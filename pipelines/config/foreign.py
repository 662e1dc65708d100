"""The section `rollout.model`: a forecast model of another package, one model a kind."""

from typing import Annotated, Any

from pipelines.config.base import Model
from pipelines.config.declared import OneOf, model_of


def _models() -> dict[str, type[Model]]:
    from emulator.bridges.foreign import registry  # imports torch, which reading other sections does not need

    return {kind: model_of(found.options, kind) for kind, found in registry.FOREIGN.all().items()}


ForeignConfig = Annotated[Any, OneOf(_models, "earth2studio", absent=True)]
