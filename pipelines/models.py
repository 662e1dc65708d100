"""`emulator models`: the kinds of networks, their options, and how large they are."""

from pydantic import BaseModel

from emulator.planet.grid import Grid
from pipelines.config import ExternalConfig, GraphConfig, SFNOConfig, TorchHarmonicsConfig, UNetConfig
from pipelines.networks import make_network

CONFIGS: tuple[type[BaseModel], ...] = (SFNOConfig, GraphConfig, UNetConfig, TorchHarmonicsConfig, ExternalConfig)
REFERENCE = (64, 40)  # latitudes of the grid, channels in and out


def models() -> str:
    """A page of text: for every kind its purpose, options with defaults, and parameters at a reference size."""
    nlat, channels = REFERENCE
    grid = Grid.gaussian(nlat)
    parts = [
        f"Networks (`network: {{kind: ...}}`); parameters for {channels} channels in and out on {nlat} x {2 * nlat}."
    ]
    for config in CONFIGS:
        count = "with parameters of its own"
        if config is not ExternalConfig:
            network = make_network(config(), channels, channels, grid)
            count = f"{sum(p.numel() for p in network.parameters()):,} parameters with the defaults"
        parts.append(f"\n{config.model_fields['kind'].default}  {count}\n  {_first_line(config)}")
        parts += [_option(name, field) for name, field in config.model_fields.items() if name != "kind"]
    return "\n".join(parts)


def _first_line(config) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _option(name, field) -> str:
    choices = getattr(field.annotation, "__args__", ())
    told = " | ".join(map(str, choices)) if choices and all(isinstance(c, str) for c in choices) else ""
    note = "; ".join(part for part in (told, field.description or "") if part)
    default = "needed" if field.is_required() else f"= {field.get_default(call_default_factory=True)}"
    return f"    {name} {default}" + (f"   ({note})" if note else "")
