"""Options of a loss. Needs no torch for the kinds that share one section."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from emulator.options import Options, option

# Recorded runs hold the options of all of these whatever their kind, so they share one class.
SHARED = ("mse", "l1", "huber", "spectral", "crps", "energy")
OF_MEMBERS = ("crps", "energy")


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """Error of a step, in units of a typical change; `spectral` weights its square by (1 + l (l + 1))^power.

    `crps` and `energy` are fair scores of several members, for networks with noise (docs/models.md). Further kinds have
    options of their own, declared where they register themselves (`emulator.losses.registry`).
    """

    kind: str = option("mse")
    members: int = option(2, "of crps and energy: forecasts of every sample", minimum=2)
    delta: float = option(1.0, "of huber: where the square ends", above=0)
    power: float = option(0.5, "of spectral: above 0 small scales count more")
    alpha: float = option(
        1.0,
        "of crps and energy: 1 the fair score, 0 the plain one, between them almost fair",
        new=True,
        minimum=0,
        maximum=1,
    )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options of the kind that `given` names. Raises `ValueError` for an unknown one."""
        if (kind := given.get("kind", SHARED[0])) in SHARED:
            return super().of(given)
        from emulator.losses.registry import LOSSES  # imports torch

        return LOSSES[kind].options.of(given)


@dataclasses.dataclass(frozen=True)
class RegionWeight(Options):
    """A region whose cells count for a given share of the loss, whatever their number and area."""

    share: float = option(about="of the loss, the rest of which the other cells have", above=0, below=1)
    name: str | None = option(None, "a region by its name, as in verification")
    box: tuple[float, ...] | None = option(None, "south, north, west, east in degrees; west may exceed east")

    def __post_init__(self):
        super().__post_init__()
        if (self.name is None) == (self.box is None):
            raise ValueError("Expected a name or a box of the region whose weight in the loss is set, and not both")
        if self.box is not None and len(self.box) != 4:
            raise ValueError(f"Expected south, north, west and east of a box, got {list(self.box)}")


def members_of(loss: Options) -> int:
    """Forecasts of every sample that a loss compares: its option `members`, where it is a score of ensembles."""
    if getattr(loss, "kind", None) in SHARED and loss.kind not in OF_MEMBERS:
        return 1
    return getattr(loss, "members", 1)
