"""What a training changes of a step, and how: frozen parameters, adapters of low rank, rates by name, the optimizer."""

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emulator.model.step import Step
from emulator.networks.adapters import Adapter, adaptable, matching
from emulator.parallel.distributed import local, part_of, whole
from emulator.training.options.phases import Phase
from emulator.training.options.sections import StartOptions
from emulator.training.recipe import Recipe

log = logging.getLogger(__name__)
ADAPTERS = "adapters/"  # before the names of their factors, NAME OF THE WEIGHT/FACTOR, among the tensors of a training
_AVERAGES = "averaged_adapters/"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which parameters of a network are trained.

    Attributes:
      whole: names of those that are trained themselves. adapted: of those that get an adapter, and whether it is by degree.
      factor: of the learning rate, for names whose factor is not 1.
    """

    whole: frozenset[str]
    adapted: Mapping[str, bool]
    factor: Mapping[str, float]


def choose(network: nn.Module, options: StartOptions | None) -> Choice:
    """What the options say of a network's parameters. Raises `ValueError` for a pattern that matches none, and where none is
    left to train."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if options is None:
        return Choice(frozenset(names), {}, {})
    frozen, adapted = set(matching(options.freeze, names, "start.freeze")), {}
    trained = [name for name in names if name not in frozen]
    if options.lora is not None:
        fitting = {n: by for n, by in adaptable(network, options.lora.rank).items() if n not in frozen}
        besides = set(matching(options.lora.besides, trained, "start.lora.besides"))
        asked = matching(
            options.lora.layers, fitting, f"start.lora.layers of weights larger than rank {options.lora.rank}"
        )
        adapted = {name: fitting[name] for name in asked if name not in besides}
        trained = [name for name in trained if name in besides]
    factors: dict[str, float] = {}
    for pattern, factor in options.lr_by.items():
        factors |= dict.fromkeys(matching([pattern], [*trained, *adapted], "start.lr_by of what is trained"), factor)
    if not trained and not adapted:
        raise ValueError("Expected parameters that are left to train, start.freeze matches all of them")
    return Choice(frozenset(trained), adapted, {name: factor for name, factor in factors.items() if factor != 1})


def check_noise_trained(choice: Choice, phases: Sequence[Phase]) -> None:
    """Raises `ValueError` for phases of single forecasts where only weights of the noise are trained: without noise they get
    no gradient."""
    trained = [*choice.whole, *choice.adapted]
    if any(phase.single for phase in phases) and all("noise" in name for name in trained):
        raise ValueError(
            "Expected phases of members alone where start.freeze leaves nothing but the noise's weights to train, got phases "
            f"of single forecasts (phases.single), which have no noise, and {len(trained)} tensors like {min(trained)}"
        )


class Tuned:
    """A step's parameters as a training changes them. Make it before the step is copied to or spread over processes, `begin`
    afterwards.

    Args:
      step: with the weights that it starts from. recipe: how it is trained.

    Attributes:
      optimizer: AdamW over all that is trained. Its groups have a `factor` of the learning rate.
    """

    optimizer: torch.optim.AdamW

    def __init__(self, step: Step, recipe: Recipe):
        self._step, self._recipe, self._start = step, recipe, recipe.start
        self._choice = choose(step.network, recipe.start)
        check_noise_trained(self._choice, recipe.phases)
        self._adapters: dict[str, Adapter] = {}
        self._averages: dict[str, Adapter] = {}
        self._base: dict[str, Tensor] = {}  # this process's part of what changes are added to
        self._anchors: dict[str, Tensor] = {}  # and of what `l2_start` draws to
        if recipe.start is not None:
            for name, parameter in step.network.named_parameters():
                parameter.requires_grad_(name in self._choice.whole or name in self._choice.adapted)

    def begin(self) -> None:
        """Make adapters, optimizer and what is kept of the weights as they are now."""
        own, choice, lora = self._parameters(), self._choice, self._start and self._start.lora
        generator = torch.Generator().manual_seed(self._recipe.seed)
        for name, by_degree in choice.adapted.items():
            weight = own[name]
            how = lora.rank, lora.alpha / lora.rank, by_degree, generator
            self._adapters[name] = Adapter(weight.shape, *how, weight.device)
            self._base[name] = local(weight).detach().clone()
        if self._start is not None and self._start.l2_start:
            self._anchors = {name: local(own[name]).detach().clone() for name in choice.whole}
        if self._recipe.ema:
            self._averages = copy.deepcopy(self._adapters)
        if self._start is not None:
            self._tell(own)
        self.optimizer = self._optimizer(own)

    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._step.network.named_parameters())

    def _tell(self, own: Mapping[str, Tensor]) -> None:
        total = sum(p.numel() for p in own.values())
        kept = sum(p.numel() for name, p in own.items() if name in self._choice.whole)
        added = sum(p.numel() for adapter in self._adapters.values() for p in adapter.parameters())
        factors = f" and {added} in {len(self._adapters)} adapters" if self._adapters else ""
        share = (kept + added) / total
        log.info("trained are %d of %d parameters%s: %.3g %%", kept, total, factors, 100 * share)

    def _optimizer(self, own: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
        """AdamW, whose weight decay leaves biases, norms and adapters alone."""
        choice, groups = self._choice, []
        trained = [(name, p) for name, p in own.items() if name in choice.whole]
        for factor in dict.fromkeys([1.0, *choice.factor.values()]):
            part = [p for name, p in trained if choice.factor.get(name, 1.0) == factor]
            factors = [
                p for n, a in self._adapters.items() if choice.factor.get(n, 1.0) == factor for p in a.parameters()
            ]
            decayed = {"params": [p for p in part if p.dim() > 1], "weight_decay": self._recipe.weight_decay}
            others = {"params": [p for p in part if p.dim() <= 1], "weight_decay": 0.0}
            groups += [decayed | {"factor": factor}, others | {"factor": factor}]
            groups += [{"params": factors, "weight_decay": 0.0, "factor": factor}] if factors else []
        fused = not any(p.is_complex() for p in own.values())  # torch has no fused kernel for those
        return torch.optim.AdamW(groups, lr=self._recipe.lr, betas=self._recipe.betas, fused=fused)

    def clear(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        self._clear_adapted()

    def _clear_adapted(self) -> None:
        own = self._parameters() if self._adapters else {}
        for name in self._adapters:
            own[name].grad = None

    def clipped(self) -> Tensor:
        """The norm of the gradient of all that is trained, which is clipped to what the recipe allows."""
        if not self._adapters:
            return whole(torch.nn.utils.clip_grad_norm_(self._step.parameters(), self._recipe.clip))
        own = self._parameters()
        for name, adapter in self._adapters.items():
            if own[name].grad is not None:
                adapter.change().backward(whole(own[name].grad))
        self._clear_adapted()
        # of each kind by itself: torch adds up none of tensors that are spread and others that are not
        kinds = [list(self._step.parameters()), [p for a in self._adapters.values() for p in a.parameters()]]
        norms = [whole(torch.nn.utils.clip_grad_norm_(kind, float("inf"))) for kind in kinds]
        device = self._step.device
        norm = torch.stack([n.to(device) for n in norms]).square().sum().sqrt()
        share = (self._recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        for parameter in (p for kind in kinds for p in kind if p.grad is not None):
            local(parameter.grad).mul_(share)
        return norm

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """One of the optimizer at a learning rate, on the gradients that there are; adapters then change their weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self._draw_back(rate)
        self.optimizer.step()
        own = self._parameters() if self._adapters else {}
        for name, adapter in self._adapters.items():
            self._put(adapter, name, own[name])

    def _draw_back(self, rate: float) -> None:
        """Towards where weights started, as weight decay draws to zero. The change of an adapter is linear in one factor."""
        own = self._parameters() if self._anchors or self._adapters else {}
        strength = rate * (self._start.l2_start if self._start is not None else 0.0)
        for name, anchor in self._anchors.items():
            local(own[name]).lerp_(anchor, strength * self._choice.factor.get(name, 1.0))
        for name, adapter in self._adapters.items() if strength else ():
            adapter.outward.mul_(1 - strength * self._choice.factor.get(name, 1.0))

    def _put(self, adapter: Adapter, name: str, weight: Tensor) -> None:
        local(weight).copy_(self._base[name] + local(part_of(adapter.change(), weight)))

    @torch.no_grad()
    def advance_average(self, average: Mapping[str, Tensor]) -> None:
        """Average the adapters too, and have the step's average hold the weights that their averages make."""
        for name, mean in self._averages.items():
            for kept, now in zip(mean.parameters(), self._adapters[name].parameters(), strict=True):
                kept.lerp_(now, 1 - self._recipe.ema)
            self._put(mean, name, average[f"network.{name}"])

    def tensors(self) -> dict[str, Tensor]:
        """Factors of the adapters, averaged ones where an average is kept, as `adapters/WEIGHT/FACTOR`."""
        return _named(ADAPTERS, self._averages or self._adapters)

    def saved(self) -> dict[str, Tensor]:
        """What a state keeps besides the step and the optimizer."""
        return _named(ADAPTERS, self._adapters) | _named(_AVERAGES, self._averages)

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Put back what `saved` gave."""
        for prefix, adapters in ((ADAPTERS, self._adapters), (_AVERAGES, self._averages)):
            for name, tensor in _named(prefix, adapters).items():
                tensor.copy_(saved[name])


def _named(prefix: str, adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    return {f"{prefix}{n}/{f}": p.detach() for n, adapter in adapters.items() for f, p in adapter.named_parameters()}
