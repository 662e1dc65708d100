"""`emulator models`: the kinds of networks, their options, and how large they are."""

from typing import get_args

from pydantic.fields import FieldInfo

from emulator.networks import registry
from emulator.planet.grid import Grid
from pipelines.config.networks import NETWORKS

REFERENCE = (64, 40)  # latitudes of the grid, channels in and out


def models() -> str:
    """A page of text: for every kind its purpose, options with defaults, and parameters at a reference size."""
    nlat, channels = REFERENCE
    parts = [
        f"Networks (`network: {{kind: ...}}`); parameters for {channels} channels in and out on {nlat} x {2 * nlat}."
    ]
    for kind, config in NETWORKS.models().items():
        size = "as large as its factory makes it"
        if not any(field.is_required() for field in config.model_fields.values()):
            try:
                network = registry.build({"kind": kind}, channels, channels, Grid.gaussian(nlat))
                size = f"{sum(p.numel() for p in network.parameters()):,} parameters with the defaults"
            except registry.NetworkError as error:  # a package that this machine cannot have
                size = f"not on this machine: {error}"
        parts.append(f"\n{kind}  {size}\n  {config.__doc__.strip().splitlines()[0]}")
        parts += [_option(name, field) for name, field in config.model_fields.items() if name != "kind"]
    return "\n".join(parts)


def _option(name: str, field: FieldInfo) -> str:
    arguments = get_args(field.annotation)
    choices = " | ".join(arguments) if arguments and all(isinstance(each, str) for each in arguments) else ""
    note = "; ".join(part for part in (choices, field.description or "") if part)
    default = field.get_default(call_default_factory=True)
    value = "required" if field.is_required() else f"= {default}"
    return f"    {name} {value}" + (f"   ({note})" if note else "")
