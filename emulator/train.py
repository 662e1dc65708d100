"""The training loop: autoregressive windows, AdamW with warm-up and cosine, exact resumption.

Everything that decides the result is a function of the update's number and the saved state: the order of samples, the
learning rate and the phase. So a run that is killed and started again ends with the same bits.
"""

import concurrent.futures
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from emulator import checkpoint
from emulator.dataset import Batch, Samples, shuffled
from emulator.losses import ScaledError
from emulator.step import Step, StepResult

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss is not finite; the message names the update and the variables."""


class Interrupted(RuntimeError):
    """Stopped on request after saving; starting again goes on."""


@dataclasses.dataclass(frozen=True)
class Phase:
    updates: int
    rollout_steps: int
    batch_size: int
    lr_scale: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: phases in order, one warm-up and cosine decay over all of them."""

    phases: tuple[Phase, ...]
    lr: float
    final_lr: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    ema: float
    seed: int
    save_every: int
    log_every: int

    @property
    def updates(self) -> int:
        return sum(phase.updates for phase in self.phases)

    def locate(self, update: int) -> tuple[int, int]:
        """Phase that an update belongs to, and its number within the phase."""
        for index, phase in enumerate(self.phases):
            if update < phase.updates:
                return index, update
            update -= phase.updates
        raise ValueError(f"Expected an update below {self.updates}")

    def learning_rate(self, update: int) -> float:
        ramp = min(1.0, (update + 1) / max(1, self.warmup))
        done = max(0.0, (update - self.warmup) / max(1, self.updates - self.warmup))
        cosine = self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
        return ramp * cosine * self.phases[self.locate(update)[0]].lr_scale


@dataclasses.dataclass(frozen=True)
class StepLoss:
    """Loss of one predicted step: the error of its fields, and the soft penalty on its budgets where there is one."""

    error: ScaledError
    penalty: Callable | None = None

    def __call__(self, step: Step, state: Tensor, result: StepResult, truth: tuple[Tensor, Tensor], anchor) -> Tensor:
        """From `state` to `result`, whose true state and diagnostics are `truth`; all in physical units."""
        value = self.error(result.state, result.diagnostic, *truth)
        if self.penalty is None:
            return value
        after = step.fields(result.state, result.diagnostic)
        return value + self.penalty(step.fields(state), after, anchor).mean().float()


class Trainer:
    """A step being trained, with everything that a resumed run needs.

    Args:
      step, loss, samples: the emulator, its loss, and its data.
      recipe: how to train.
      directory: receives `state-N/` (resumable), `metrics.jsonl` (deterministic) and `timing.jsonl`.
      identity: hash of configuration and data; a state of another identity is not resumed.
    """

    def __init__(self, step: Step, loss: StepLoss, samples: Samples, recipe: Recipe, directory: Path, identity: str):
        self.step, self.loss, self.samples, self.recipe = step, loss, samples, recipe
        self.directory, self.identity = Path(directory), identity
        self.update = 0
        self._unlogged: list[dict[str, Tensor | float]] = []
        decayed = [p for p in step.parameters() if p.dim() > 1]
        others = [p for p in step.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
        self.average = {n: p.detach().clone() for n, p in step.named_parameters()} if recipe.ema else {}

    def run(self, on_log: Callable[[dict], None] = lambda row: None, should_stop: Callable[[], bool] = lambda: False):
        """Train to the end. Raises `Interrupted` after saving when `should_stop()` turns true, or `Diverged`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._resume()
        self.step.train()
        started, first, waited = time.perf_counter(), self.update, 0.0
        with concurrent.futures.ThreadPoolExecutor(1, "loader") as pool:
            upcoming = pool.submit(self._batch, self.update) if self.update < self.recipe.updates else None
            while self.update < self.recipe.updates:
                mark = time.perf_counter()
                batch = upcoming.result()
                waited += time.perf_counter() - mark
                if self.update + 1 < self.recipe.updates:
                    upcoming = pool.submit(self._batch, self.update + 1)
                self._unlogged.append(self._learn(batch))
                self.update += 1
                if self.update % self.recipe.log_every == 0 or self.update == self.recipe.updates:
                    spent = time.perf_counter() - started
                    on_log(self._log(spent, self.update - first, waited))
                if self.update % self.recipe.save_every == 0 or self.update == self.recipe.updates:
                    self._save()
                if should_stop():
                    self._save()
                    raise Interrupted(
                        f"stopped after update {self.update} of {self.recipe.updates}; start again to go on"
                    )
        self.step.eval()

    def _batch(self, update: int) -> Batch:
        index, within = self.recipe.locate(update)
        phase = self.recipe.phases[index]
        starts = self.samples.starts(phase.rollout_steps)
        if not len(starts):
            raise ValueError(
                f"Expected windows of {phase.rollout_steps} steps, the period has {len(self.samples)} times"
            )
        chosen = shuffled(len(starts), phase.batch_size, within, (self.recipe.seed, index))
        return self.samples.batch(starts[chosen], phase.rollout_steps)

    def _learn(self, batch: Batch) -> dict[str, Tensor]:
        steps = batch.diagnostic.shape[1]
        state, total, record = batch.state[:, 0], 0.0, {}
        anchor = self.step.anchor(state)
        for k in range(steps):
            result = self.step(state, batch.forcing[:, k], batch.clock[:, k], anchor)
            truth = batch.state[:, k + 1], batch.diagnostic[:, k]
            total = total + self.loss(self.step, state, result, truth, anchor) / steps
            state, anchor, record = result.state, result.anchor, result.record
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.step.parameters(), self.recipe.clip)
        rate = self.recipe.learning_rate(self.update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if not torch.isfinite(total):
            raise Diverged(self._diagnose(result))
        self.optimizer.step()
        with torch.no_grad():
            for name, parameter in self.step.named_parameters() if self.average else ():
                self.average[name].lerp_(parameter, 1 - self.recipe.ema)
        summary = {name: value.detach().abs().mean() for name, value in record.items()}
        return {"loss": total.detach(), "gradient_norm": norm.detach()} | summary

    def _diagnose(self, result) -> str:
        labels = [*self.step.layout.prognostic.labels(), *self.step.layout.diagnostic.labels()]
        fields = torch.cat([result.state, result.diagnostic], dim=1)
        finite = torch.isfinite(fields).flatten(2).all(-1).all(0)
        bad = [label for label, good in zip(labels, finite.tolist(), strict=True) if not good]
        last = checkpoint.numbered(self.directory, "state")
        where = f"the last good state is {last[-1]}" if last else "no state was saved yet"
        return f"the loss is not finite at update {self.update} (variables: {', '.join(bad[:5]) or 'none'}); {where}"

    def _log(self, spent: float, done: int, waited: float) -> dict:
        index, _ = self.recipe.locate(self.update - 1)
        rows, self._unlogged = self._unlogged, []
        means = {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}
        row = {
            "update": self.update,
            "phase": index,
            "learning_rate": self.recipe.learning_rate(self.update - 1),
        } | means
        phase = self.recipe.phases[index]
        timing = {
            "update": self.update,
            "seconds": round(spent, 3),
            "samples_per_second": round(done * phase.batch_size / spent, 3),
            "data_wait_share": round(waited / spent, 5),
            "remaining_seconds": round(spent / done * (self.recipe.updates - self.update), 1),
        }
        for name, line in (("metrics.jsonl", row), ("timing.jsonl", timing)):
            with open(self.directory / name, "a") as stream:
                stream.write(json.dumps(line) + "\n")
        return row | timing | {"updates": self.recipe.updates}

    def tensors(self) -> dict[str, Tensor]:
        """The step's state with averaged weights where an average is kept."""
        return {name: self.average.get(name, tensor) for name, tensor in self.step.state_dict().items()}

    def _save(self) -> None:
        saved = {f"step/{n}": t for n, t in self.step.state_dict().items()}
        saved |= {f"average/{n}": t for n, t in self.average.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            saved |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
        path = self.directory / f"state-{self.update:08d}"
        # float -> JSON -> float is exact, so a resumed run logs the same means
        self._unlogged = [{name: float(value) for name, value in row.items()} for row in self._unlogged]
        metadata = {"update": self.update, "identity": self.identity, "unlogged": self._unlogged}
        checkpoint.save(path, saved, metadata)
        checkpoint.rotate(self.directory, "state", keep=2)

    def _resume(self) -> None:
        for path in reversed(checkpoint.numbered(self.directory, "state")):
            try:
                saved, metadata = checkpoint.load(path)
            except checkpoint.CheckpointError as error:
                log.warning("%s; trying the state before it", error)
                continue
            if metadata.get("identity") != self.identity:
                log.warning("%s belongs to another configuration or data; training starts afresh", path)
                break
            self._restore(saved, metadata)
            log.info("resuming after update %d", self.update)
            return
        for old in checkpoint.numbered(self.directory, "state"):
            checkpoint.rotate(old.parent, "state", keep=1)
        self._truncate_logs(0)

    def _restore(self, saved: dict[str, Tensor], metadata: dict) -> None:
        def under(prefix):
            return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}

        self.step.load_state_dict(under("step/"))
        self.average = under("average/")
        state = self.optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimizer/").items():
            index, _, key = name.partition("/")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        self.update, self._unlogged = metadata["update"], metadata["unlogged"]
        self._truncate_logs(self.update)

    def _truncate_logs(self, update: int) -> None:
        """Drop what a killed run logged after its last save, so that the resumed one writes it again."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.directory / name
            if path.exists():
                rows = [line for line in path.read_text().splitlines() if line.endswith("}")]
                kept = [line for line in rows if json.loads(line)["update"] <= update]
                path.write_text("".join(line + "\n" for line in kept))
