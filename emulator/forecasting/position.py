"""Where a group of forecasts stands: the file from which a stopped rollout goes on, bit for bit."""

import dataclasses
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emulator.conservation.budgets import Anchor
from emulator.files.whole_file import whole_file
from emulator.model.stepper import Carry, StepResult
from emulator.parallel.host_copies import HostCopies, Landing, to_device


@dataclasses.dataclass
class Position:
    """After a number of steps: what the next starts from and anchors, and what else is kept by name, by batch of rows."""

    number: int
    states: list[Tensor]
    masses: list[Tensor | None]
    kept: list[dict[str, Tensor]] = dataclasses.field(default_factory=list)
    landing: Landing | None = None  # of all of these, where they are still on their way to the host

    @classmethod
    def after(cls, number: int, results: list[StepResult]) -> "Position":
        """Of the results of step `number`, by batch of rows."""
        carries = [one.anchor if isinstance(one.anchor, Carry) else Carry(one.anchor) for one in results]
        masses = [None if carry.anchor is None else carry.anchor.dry_mass for carry in carries]
        return cls(number, [one.onward for one in results], masses, [carry.kept for carry in carries])

    def anchor(self, batch: int, device) -> Anchor | Carry | None:
        """What the next step of a batch is pinned to, on a device; None where it is still to be found."""
        mass, kept = self.masses[batch], self.kept[batch] if self.kept else {}
        anchor = None if mass is None else Anchor(to_device(mass, device))
        return Carry(anchor, {name: to_device(part, device) for name, part in kept.items()}) if kept else anchor

    def _named(self) -> dict[str, Tensor]:
        named = {f"state{i}": state for i, state in enumerate(self.states)}
        named |= {f"mass{i}": mass for i, mass in enumerate(self.masses) if mass is not None}
        return named | {f"ocean{i}.{n}": part for i, kept in enumerate(self.kept) for n, part in kept.items()}

    @classmethod
    def _of(cls, number: int, named: dict[str, Tensor], landing: Landing | None = None) -> "Position":
        count = sum(name.startswith("state") for name in named)
        kept = [
            {n.partition(".")[2]: part for n, part in named.items() if n.startswith(f"ocean{i}.")} for i in range(count)
        ]
        masses = [named.get(f"mass{i}") for i in range(count)]
        return cls(number, [named[f"state{i}"] for i in range(count)], masses, kept, landing)

    def towards_host(self, copies: HostCopies) -> "Position":
        """The same, on its way to the host's memory: it can be saved beside the forecast."""
        named = self._named()
        landing = copies.begin(list(named.values()))
        return self._of(self.number, dict(zip(named, landing.tensors, strict=True)), landing)

    def save(self, path: Path) -> None:
        """Written beside and renamed: whole or not there. Raises `OSError` when the disk is full."""
        if self.landing is not None:
            self.landing.arrive()
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._named().items()}
        with whole_file(path) as partial:
            try:
                save_file(tensors, partial, {"number": str(self.number)})
            except SafetensorError as error:
                raise OSError(f"could not write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "Position | None":
        """The position in a file; None where there is none."""
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            return cls._of(int(file.metadata()["number"]), {name: file.get_tensor(name) for name in file.keys()})
