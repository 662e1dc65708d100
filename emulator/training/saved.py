"""A training's state as whole tensors by name, whoever holds their parts, and back: one process or many can go on with it."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from emulator.model import checkpoint
from emulator.parallel.distributed import from_first, part_of, wait_for_all, whole
from emulator.parallel.processes import Processes
from emulator.training.recipe import Recipe

log = logging.getLogger(__name__)


class States:
    """The resumable states of one training in its folder.

    Args:
      directory: holds `state-N/`. identity: of the training; states of another are passed over.
      recipe: how many are kept. processes: of which the first writes and chooses.
    """

    def __init__(self, directory: Path, identity: str, recipe: Recipe, processes: Processes):
        self.directory, self.identity, self._recipe, self._processes = Path(directory), identity, recipe, processes

    def save(self, update: int, tensors: Mapping[str, Tensor], about: Mapping) -> None:
        """Saves a state and removes those that are no longer needed; all processes ask together."""
        if self._processes.rank == 0:
            metadata = {"update": update, "identity": self.identity, **about}
            checkpoint.save(checkpoint.path_of(self.directory, "state", update), dict(tensors), metadata)
            every = self._recipe.save_every if self._recipe.retries else 1  # those are what it may have to go back to
            drop_older(self.directory, self.identity, self._recipe.keep, every)
            drop_outdone(self.directory, self.identity)
        wait_for_all()  # none ends, and has the launcher end the others, before the state lies on disk

    def load(self, every: int = 1) -> tuple[dict[str, Tensor], dict] | None:
        """Tensors and metadata of the newest whole state, preferably after a multiple of `every` updates; None without.

        The first process chooses it: others may see it later.
        """
        update, saved, metadata = -1, {}, {}
        if self._processes.rank == 0:
            checkpoint.sweep(self.directory)
            update, saved, metadata = newest(self.directory, self.identity, every)
        chosen = from_first(update)
        if chosen < 0:
            if self._processes.rank == 0:
                checkpoint.rotate(self.directory, "state", keep=1)
            return None
        if self._processes.rank > 0:
            saved, metadata = checkpoint.load(checkpoint.path_of(self.directory, "state", chosen))
        return saved, metadata


def gather(step: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, averaged weights and the optimizer's moments, as `step/...`, `average/...`, `optimizer/INDEX/...`.

    All processes must ask together.
    """
    tensors = {f"step/{name}": whole(tensor) for name, tensor in step.state_dict().items()}
    tensors |= {f"average/{name}": whole(tensor) for name, tensor in average.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": whole(value) for name, value in moments.items()}
    return tensors


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


def newest(directory: Path, identity: str, every: int = 1) -> tuple[int, dict[str, Tensor], dict]:
    """Update, tensors and metadata of the newest whole state of a training; update -1 where there is none.

    Those after a multiple of `every` updates come before all others. Damaged ones are removed: kept, they would count among
    the newest that are to be kept.
    """
    for path in sorted(checkpoint.numbered(directory, "state"), key=lambda p: (_update(p) % every == 0, _update(p)))[
        ::-1
    ]:
        try:
            saved, metadata = checkpoint.load(path)
        except checkpoint.CheckpointError as error:
            log.warning("%s; it is removed, trying the state before it", error)
            shutil.rmtree(path, ignore_errors=True)
            continue
        if metadata.get("identity") != identity:
            log.warning("%s belongs to another configuration or data and is passed over", path)
            continue
        return metadata["update"], saved, metadata
    return -1, {}, {}


def drop_older(directory: Path, identity: str, keep: int, every: int) -> None:
    """Remove all states of a training but the `keep` newest and the newest after a multiple of `every` updates."""
    states = checkpoint.numbered(directory, "state", identity)
    kept = {*states[-keep:], *[path for path in states if _update(path) % every == 0][-1:]}
    for path in states:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)  # what a network disk does not let go of is tried again next time


def drop_newer(directory: Path, identity: str, update: int) -> None:
    """Remove the states of a training that lie beyond an update which it has gone back to."""
    for path in checkpoint.numbered(directory, "state", identity):
        if _update(path) > update:
            shutil.rmtree(path, ignore_errors=True)


def _update(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def drop_outdone(directory: Path, identity: str) -> None:
    """Remove the weights of validations that are the best of no state which is kept."""
    states = [checkpoint.describe(path) for path in checkpoint.numbered(directory, "state", identity)]
    wanted = {checkpoint.path_of(directory, "best", state["best"]["update"]) for state in states}
    for path in checkpoint.numbered(directory, "best", identity):
        if path not in wanted:
            shutil.rmtree(path, ignore_errors=True)
