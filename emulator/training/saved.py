"""A training's state as whole tensors by name, whoever holds their parts, and back: one process or many can go on with it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulator.distributed import part_of, whole


def gather(step: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, averaged weights and the optimizer's moments, as `step/...`, `average/...`, `optimizer/INDEX/...`.

    All processes must ask together.
    """
    found = {f"step/{name}": whole(tensor) for name, tensor in step.state_dict().items()}
    found |= {f"average/{name}": whole(tensor) for name, tensor in average.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{index}/{name}": whole(value) for name, value in moments.items()}
    return found


def restore(saved: dict[str, Tensor], step: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put the parts that this process holds back in place; returns the averaged weights."""

    def under(prefix):
        return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}

    own = step.state_dict()
    step.load_state_dict({name: part_of(tensor, own.get(name)) for name, tensor in under("step/").items()})
    parameters = dict(step.named_parameters())
    average = {name: _like(tensor, parameters[name]) for name, tensor in under("average/").items()}
    state = optimizer.state_dict()
    owners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in under("optimizer/").items():
        index, _, key = name.partition("/")
        owner = owners[int(index)]
        moments.setdefault(int(index), {})[key] = _like(tensor, owner) if tensor.shape == owner.shape else tensor
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    return average


def _like(tensor: Tensor, owner: Tensor) -> Tensor:
    return part_of(tensor.to(owner.device), owner)
