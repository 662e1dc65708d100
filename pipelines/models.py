"""`emulator models`: the kinds of networks, their options, how large they are, and what a step of each takes."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from pydantic.fields import FieldInfo

from emulator.networks import cost, registry
from emulator.planet.grid import Grid
from pipelines.config.networks import NETWORKS

REFERENCE = (48, 40)  # latitudes of the quickstart's grid, channels in and out


def models(kinds: Sequence[str] = ()) -> str:
    """A page of text: a line for every kind, or those named, at a reference size, then its purpose and options with defaults.

    Raises `NetworkError` for a kind that does not exist.
    """
    known = NETWORKS.models()
    if unknown := [kind for kind in kinds if kind not in known]:
        raise registry.NetworkError(f"Expected kinds of networks, of {', '.join(known)}, got {unknown[0]}")
    nlat, channels = REFERENCE
    threads = torch.get_num_threads()
    lines = [
        f"Networks (`network: {{kind: ...}}`) with their defaults, for {channels} channels in and out on {nlat} x "
        f"{2 * nlat} cells: parameters, and seconds of a step forward and backward of one sample on {threads} "
        f"thread{'s' * (threads > 1)} here."
    ]
    parts = []
    for kind in kinds or known:
        config = known[kind]
        about = config.__doc__.strip().splitlines()[0]
        size, taken, told = "as its factory makes it", "", about
        if not any(field.is_required() for field in config.model_fields.values()):
            try:
                with _unsaid():
                    network = registry.build({"kind": kind}, channels, channels, Grid.gaussian(nlat))
                found = cost.measure(network, channels, (nlat, 2 * nlat))
                size, taken = f"{found.parameters:,} parameters", f"{found.seconds:.3f} s"
            except registry.NetworkError as error:  # a package that this machine cannot have
                size, told = "not on this machine", f"not on this machine: {error}"
        lines.append(f"  {kind:<15} {size:>23} {taken:>9}   {about}")
        parts.append(f"\n{kind}  {told}")
        parts += [_option(name, field) for name, field in config.model_fields.items() if name != "kind"]
    return "\n".join(lines + parts)


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """What a network logs of a grid is for those who train on it."""
    log = logging.getLogger("emulator")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _option(name: str, field: FieldInfo) -> str:
    arguments = get_args(field.annotation)
    choices = " | ".join(arguments) if arguments and all(isinstance(each, str) for each in arguments) else ""
    note = "; ".join(part for part in (choices, field.description or "") if part)
    default = field.get_default(call_default_factory=True)
    value = "required" if field.is_required() else f"= {default}"
    return f"    {name} {value}" + (f"   ({note})" if note else "")
