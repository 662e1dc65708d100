"""The section `network`: one model a kind, derived from the options that the files of `emulator/networks` declare."""

from typing import Annotated, Any

from pipelines.config.base import Model
from pipelines.config.declared import OneOf, model_of

DEFAULT_KIND = "sfno"


def network_models() -> dict[str, type[Model]]:
    from emulator.networks import registry  # imports torch, which reading other sections does not need

    return {kind: model_of(registry.options_of(kind), kind) for kind in registry.kinds()}


NETWORKS = OneOf(network_models, DEFAULT_KIND)
NetworkConfig = Annotated[Any, NETWORKS]


def network_config(**options: Any) -> Model:
    """A validated network section, of the default kind where none is given. Raises pydantic's `ValidationError`."""
    return NETWORKS.validate(options)
