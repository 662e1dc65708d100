"""The section `train.loss`: one model a kind, derived from the options that the files of `emulator/losses` declare."""

from typing import Annotated, Any

from emulator.losses.options import SHARED
from pipelines.config.base import Model
from pipelines.config.declared import OneOf, model_of


def _models() -> dict[str, type[Model]]:
    from emulator.losses import registry  # imports torch, which reading other sections does not need

    return {kind: model_of(registry.LOSSES[kind].options, kind) for kind in registry.LOSSES.names()}


LossConfig = Annotated[Any, OneOf(_models, SHARED[0])]
