"""What a training keeps: its weights' moving average, and states as whole tensors by name, whoever holds their parts.

One process or many can go on with a state.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from emulator.model import checkpoint
from emulator.model.step import Step
from emulator.networks.remembered import moving
from emulator.parallel.distributed import from_first, local, part_of, wait_for_all, whole
from emulator.parallel.processes import Processes
from emulator.training.recipe import Recipe

log = logging.getLogger(__name__)
# exponential moving average of a step's weights, and of what it remembers besides, spread over processes as they are
Average = dict[str, Tensor]


def begin_average(step: nn.Module, decay: float) -> Average:
    """A copy of the weights to start from; empty without averaging (a decay of 0)."""
    return {name: tensor.detach().clone() for name, tensor in moving(step).items()} if decay else {}


def advance_average(average: Average, step: nn.Module, decay: float) -> None:
    """Draw the average towards the weights by a share of 1 - decay."""
    with torch.no_grad():
        for name, tensor in moving(step).items() if average else ():
            local(average[name]).lerp_(local(tensor), 1 - decay)


@contextlib.contextmanager
def averaged(step: nn.Module, average: Average) -> Iterator[None]:
    """The step with the averaged weights, where an average is kept, in evaluation mode; as it was afterwards."""
    trained_weights, trained = begin_average(step, bool(average)), step.training
    step.eval()
    try:
        _put(average, step)
        yield
    finally:
        _put(trained_weights, step)
        step.train(trained)


def _put(weights: Average, step: nn.Module) -> None:
    with torch.no_grad():
        for name, tensor in moving(step).items() if weights else ():
            local(tensor).copy_(local(weights[name]))


class States:
    """The resumable states of one training in its folder.

    Args:
      directory: holds `state-N/`. identity: of the training; states of another are passed over.
      recipe: how many are kept. processes: of which the first writes and chooses.
    """

    def __init__(self, directory: Path, identity: str, recipe: Recipe, processes: Processes):
        self.directory, self.identity, self._recipe = Path(directory), identity, recipe
        self._first = processes.rank == 0

    def _own(self, prefix: str = "state") -> list[Path]:
        return checkpoint.numbered(self.directory, prefix, self.identity)

    def save(self, update: int, tensors: Mapping[str, Tensor], about: Mapping) -> None:
        """Saves a state and removes those that are no longer needed; all processes ask together."""
        if self._first:
            metadata = {"update": update, "identity": self.identity, "recipe": self._recipe.record(), **about}
            checkpoint.save(checkpoint.path_of(self.directory, "state", update), dict(tensors), metadata)
            # What a training that diverged goes back to is kept too, and of validations what is the best of a kept state.
            every = self._recipe.save_every if self._recipe.retries else 1
            found = self._own()
            _keep(found, {*found[-self._recipe.keep :], *[path for path in found if _update(path) % every == 0][-1:]})
            best = [checkpoint.describe(path)["best"]["update"] for path in self._own()]
            _keep(self._own("best"), {checkpoint.path_of(self.directory, "best", number) for number in best})
        wait_for_all()  # none ends, and has the launcher end the others, before the state lies on disk

    def drop_newer(self, update: int) -> None:
        """Removes the states beyond an update which the training has gone back to."""
        if self._first:
            found = self._own()
            _keep(found, {path for path in found if _update(path) <= update})

    def load(self, every: int = 1) -> tuple[dict[str, Tensor], dict] | None:
        """Tensors and metadata of the newest whole state, preferably after a multiple of `every` updates; None without.

        The first process chooses it: others may see it later.
        """
        update, saved, metadata = -1, {}, {}
        if self._first:
            checkpoint.sweep(self.directory)
            update, saved, metadata = self._newest(every)
        chosen = from_first(update)
        if chosen < 0:
            if self._first:
                checkpoint.rotate(self.directory, "state", keep=1)
            return None
        if not self._first:
            saved, metadata = checkpoint.load(checkpoint.path_of(self.directory, "state", chosen))
        return saved, metadata

    def _newest(self, every: int) -> tuple[int, dict[str, Tensor], dict]:
        """Update, tensors and metadata of the newest whole state; update -1 where there is none.

        Damaged ones are removed: kept, they would count among the newest that are to be kept.
        """
        found, grown = checkpoint.numbered(self.directory, "state"), None
        for path in sorted(found, key=lambda path: (_update(path) % every == 0, _update(path)), reverse=True):
            try:
                saved, metadata = checkpoint.load(path)
            except checkpoint.CheckpointError as error:
                log.warning("%s; it is removed, trying the state before it", error)
                shutil.rmtree(path, ignore_errors=True)
                continue
            if metadata.get("identity") == self.identity:
                return metadata["update"], saved, metadata
            if self._recipe.grew_from(metadata.get("recipe", {}), metadata["update"]):
                grown = grown or (metadata["update"], saved, metadata)
                continue
            log.warning("%s belongs to another configuration or data and is passed over", path)
        if grown is None:
            return -1, {}, {}
        log.info("going on after update %d with a recipe that has grown to %d updates", grown[0], self._recipe.updates)
        return self._adopted(*grown)

    def _adopted(self, update: int, saved: dict[str, Tensor], metadata: dict) -> tuple[int, dict[str, Tensor], dict]:
        """A state of a shorter recipe as one's own, with the weights that its validations chose."""
        best = checkpoint.path_of(self.directory, "best", metadata["best"]["update"])
        if best.exists():
            with contextlib.suppress(checkpoint.CheckpointError):  # it is looked for at the end, and told there
                tensors, about = checkpoint.load(best)
                checkpoint.save(best, tensors, about | {"identity": self.identity})
        return update, saved, metadata


def goes_on(directory: Path, identity: str, recipe: Recipe) -> bool:
    """Whether a training's folder holds a state that it can go on with: of the same one, or of a shorter recipe."""
    for path in checkpoint.numbered(directory, "state"):
        with contextlib.suppress(checkpoint.CheckpointError):
            about = checkpoint.describe(path)
            if about.get("identity") == identity or recipe.grew_from(about.get("recipe", {}), about["update"]):
                return True
    return False


def _keep(found: list[Path], wanted: set[Path]) -> None:
    for path in found:
        if path not in wanted:
            shutil.rmtree(path, ignore_errors=True)  # what a network disk does not let go of is tried again next time


def _update(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def gather(step: Step, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, averaged weights and the optimizer's moments, as `step/...`, `average/...`, `optimizer/INDEX/...`.

    All processes must ask together.
    """
    tensors = {f"step/{name}": step.whole(name, whole(tensor)) for name, tensor in step.state_dict().items()}
    tensors |= {f"average/{name}": whole(tensor) for name, tensor in average.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": whole(value) for name, value in moments.items()}
    return tensors


def restore(saved: dict[str, Tensor], step: Step, optimizer: torch.optim.Optimizer) -> Average:
    """Put the parts that this process holds back in place; returns the averaged weights."""

    def under(prefix):
        return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}

    own = step.state_dict()
    parts = {name: step.own(name, tensor) for name, tensor in under("step/").items()}
    step.load_state_dict({name: part_of(tensor, own.get(name)) for name, tensor in parts.items()})
    tensors = moving(step)
    average = {name: _like(tensor, tensors[name]) for name, tensor in under("average/").items()}
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
