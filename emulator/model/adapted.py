"""What a training with adapters or frozen parts made of the checkpoint it started from, alone as a small checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from emulator.model import checkpoint
from emulator.model.checkpoint import CheckpointError
from emulator.model.migrations import Content
from emulator.networks.adapters import change_of

SCHEMA = "adapters-1"
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # between devices, of a weight and its change added up


def save(
    directory: Path, step: Mapping[str, Tensor], adapters: Mapping[str, Tensor], base: Content, about: dict
) -> None:
    """Write the factors of adapters, and of a step all else that is not as in the checkpoint it started from.

    Args:
      step: its tensors as its own checkpoint has them. adapters: factors, as `WEIGHT/FACTOR`.
      base: of the checkpoint. about: description of the step's checkpoint, with `adapters`: the `scale` of their products, or
        None without any.
    """
    before, factors = base[0], _by_weight(adapters)
    scale = about["adapters"]["scale"] if adapters else 1.0
    own, kept = {}, {}
    for name, tensor in step.items():
        there, tensor = before.get(name), tensor.detach().cpu()
        parts = factors.get(name.removeprefix("network."), {})
        same = there is not None and there.shape == tensor.shape
        if parts and same and torch.allclose(there + change_of(parts, there.shape, scale), tensor, **ROUNDING):
            own |= {f"adapters/{name}/{factor}": part for factor, part in parts.items()}
        elif not same or not torch.equal(there, tensor):
            kept[name] = tensor
    names = {"of": about["schema"], "schema": SCHEMA, "names": list(step)}
    checkpoint.save(directory, own | kept, about | names | {"base": about["start"]["sha256"]})


def merged(path: object, content: Content, base: Content) -> Content:
    """The step's checkpoint from adapters or changes and the checkpoint that they are for.

    Raises `CheckpointError` for another one.
    """
    (tensors, saved), (before, known) = content, base
    if known.get("sha256") != saved["base"]:
        raise CheckpointError(
            f"Expected the checkpoint that the {_word(saved)} in {path} were trained on, {saved['base'][:16]}..., got "
            f"{str(known.get('sha256'))[:16]}...; load_model takes its path as `base`"
        )
    factors = _by_weight({n.removeprefix("adapters/"): t for n, t in tensors.items() if n.startswith("adapters/")})
    whole = {name: tensors.get(name, before.get(name)) for name in saved["names"]}
    for name, parts in factors.items():
        whole[name] = before[name] + change_of(parts, before[name].shape, saved["adapters"]["scale"])
    return whole, saved | {"schema": saved["of"]}


def base_of(path: object, saved: Mapping, given: str | os.PathLike | None) -> Path:
    """Where the checkpoint of adapters or changes lies. Raises `CheckpointError` where nobody says and it is gone."""
    place = Path(given or saved["start"]["checkpoint"])
    if not place.exists():
        raise CheckpointError(
            f"Expected the checkpoint that the {_word(saved)} in {path} are for at {place}, got nothing there"
        )
    return place


def _word(saved: Mapping) -> str:
    return "adapters" if saved["adapters"] else "changes"


def _by_weight(adapters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapters.items():
        weight, _, factor = name.rpartition("/")
        found.setdefault(weight, {})[factor] = tensor.detach().cpu()
    return found
