"""The training loop: autoregressive windows, AdamW with warm-up and cosine, exact resumption, one process or many.

Everything that decides the result is a function of the update's number and the saved state: the order of samples, the
learning rate and the phase. So a run that is killed and started again ends with the same bits.
"""

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from emulator.data.batch import Batch
from emulator.data.samples import Samples
from emulator.files.interruption import Interrupted
from emulator.model import checkpoint
from emulator.model.generative import noise_in_training
from emulator.model.step import Step
from emulator.networks.remembered import unmoved
from emulator.parallel.distributed import (
    Replicated,
    agree,
    joined,
    mean_over,
    replicate,
    shard,
    share,
    wait_for_all,
    whole,
)
from emulator.parallel.processes import Processes
from emulator.parallel.space import ALONE, Space
from emulator.training.diagnosis import explain
from emulator.training.forecasts import StoredForecasts
from emulator.training.log import Journal, Log
from emulator.training.order import Order
from emulator.training.recipe import Recipe
from emulator.training.replay import put_in_place, taken
from emulator.training.saved import States, advance_average, averaged, begin_average, gather, restore
from emulator.training.tuned import Tuned
from emulator.training.validation import Best, Validation
from emulator.training.window import StepLoss, Window, WindowOptions

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss is not finite, or too large; the message names the update, the variables and the last good state.

    `curable`: whether a lower rate may help, as it does not against faulty data.
    """

    def __init__(self, message: str, curable: bool = True):
        super().__init__(message)
        self.curable = curable


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Attributes:
      processes: those that train together, whose group has been started.
      space: of these, those that hold a state together with this one.
      sharded: the network is spread over them (FSDP) instead of each holding a copy (DDP).
    """

    processes: Processes = Processes()  # noqa: RUF009 (frozen)
    sharded: bool = False
    space: Space = ALONE

    @property
    def data(self) -> Processes:
        """The spaces that share a batch out, as processes: which is this one's, and how many there are."""
        return self.processes.divided(self.space.size)


def _usable(norm: Tensor, loss: Tensor, limit: float) -> bool:
    """Whether an update may be made of its gradients: the one point at which it has the host wait for a GPU."""
    return bool(torch.isfinite(norm) & (loss <= limit))


class Trainer:
    """A step being trained, with everything that a resumed run needs.

    Args:
      step, loss, samples: the emulator, its loss, and its data; step and loss on the device of this process.
      recipe: how to train.
      directory: receives `state-N/` (resumable), `metrics.jsonl` (deterministic), `timing.jsonl`, and with a validation
        `validation.jsonl` and `best/` (the weights of the best one).
      identity: hash of configuration and data; a state of another identity is not resumed.
      validation: held-out times, or None.
      placement: the processes that train together, and how.
      forecasts: stored ones that windows start from, or None.
      window: makes of step and loss the module that gives a batch's loss, as `Window` does.

    `logged.products`: operations of the network's matrix products for one sample and step, whose rate the log then tells.
    """

    def __init__(
        self,
        step: Step,
        loss: StepLoss,
        samples: Samples,
        recipe: Recipe,
        directory: Path,
        identity: str,
        validation: Validation | None = None,
        placement: Placement = Placement(),
        *,
        forecasts: StoredForecasts | None = None,
        window: Callable[[Step, StepLoss], nn.Module] = Window,
    ):
        self.step, self.samples, self.recipe, self.validation = step, samples, recipe, validation
        self.directory, self.identity, self.processes = Path(directory), identity, placement.processes
        processes, self._data, self._space = placement.processes, placement.data, placement.space
        self.device = next(step.parameters()).device
        self.update, self.best, self.retried = 0, Best(), 0
        self.carried: Tensor | None = None  # the states from which later samples go on, where some do
        self._journal = Journal(self.directory, processes.rank == 0)
        self._states = States(self.directory, identity, recipe, processes)
        self.logged = Log(self._journal, recipe, self._data, self.device)
        made, self.tuned, self._loss = window(step, loss), Tuned(step, recipe), loss
        self._run_window = (shard if placement.sharded else replicate)(made, step.network, processes, self.device)
        self.tuned.begin()
        self.average = begin_average(step, recipe.ema)
        self._order = Order(samples, recipe, self._data, noise_in_training(step), forecasts)
        if validation:
            validation.starts(self._data)

    def run(self, on_log: Callable[[dict], None] = lambda row: None, should_stop: Callable[[], bool] = lambda: False):
        """Train to the end. Raises `Interrupted` after saving when `should_stop()` turns true, or `Diverged`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._resume() and self.recipe.retries:
            self._save()  # what the first updates can go back to
        self._settle()
        while True:
            try:
                self._run(on_log, should_stop)
                break
            except Diverged as error:
                if self.retried >= self.recipe.retries or not error.curable:
                    raise
                self._go_back(error)
        self.step.eval()

    def _run(self, on_log, should_stop) -> None:
        self.step.train()
        self.logged.begin(self.update)
        saved = time.perf_counter()
        # A loader with worker threads of its own makes more OpenMP threads than cores; libgomp then puts them to sleep
        # between all parallel regions: 0.27 s for an update on two cores instead of 0.17 s.
        one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
        with concurrent.futures.ThreadPoolExecutor(1, "loader", **one_thread) as pool:
            upcoming = pool.submit(self._order.batch, self.update) if not self.finished else None
            while not self.finished:
                with self.logged.waiting():
                    batch = upcoming.result().to(self.device)
                if self.update + 1 < self.recipe.updates:
                    upcoming = pool.submit(self._order.batch, self.update + 1)
                row = self._learn(batch)
                self.update += 1
                due = time.perf_counter() - saved >= self.recipe.save_seconds
                row, stop, due = agree(row, self.device, should_stop(), due and self.processes.rank == 0)
                self.logged.add(row, self.update)
                last = self.update == self.recipe.updates
                if self.logged.due(self.update):
                    on_log(self.logged.write(self.update, self.retried))
                if self.validation and (self.update % self.validation.every == 0 or last):
                    self._validate()
                if self.update % self.recipe.save_every == 0 or self.finished or stop or due:
                    self._save()
                    saved = time.perf_counter()
                if stop and not self.finished:
                    raise Interrupted(
                        f"stopped after update {self.update} of {self.recipe.updates}; start again to go on"
                    )

    @property
    def finished(self) -> bool:
        """Whether all updates are done, or validations have stopped to improve."""
        patience = self.validation.patience if self.validation else 0
        return self.update >= self.recipe.updates or bool(patience and self.best.since >= patience)

    def _settle(self) -> None:
        """Run the first update once for nothing where processes hold copies.

        DDP arranges the gradients anew after the first backward pass that it sees, in the order in which that one made
        them. With three processes or more the arrangement decides in which order they are added up, so a training that
        goes on with another update, of another phase perhaps, would not end with the same bits.
        """
        if isinstance(self._run_window, Replicated) and not self.finished:
            self.step.train()
            first = self._order.batch(0).split(self.recipe.phase(0).accumulate)[0].to(self.device)
            with unmoved(self.step, *self._loss.errors.values()):
                self._run_window(first, WindowOptions.of(self.recipe, 0))[0].backward()
            self.tuned.clear()

    def _learn(self, batch: Batch) -> dict[str, Tensor]:
        phase, options = self.recipe.phase(self.update), WindowOptions.of(self.recipe, self.update)
        torch.manual_seed(self.recipe.seed_of(self.update, self._data.rank))
        self.tuned.clear()
        planned = self._order.rows(self.update)
        put_in_place(batch, planned, self.carried)
        rows, ends, reached = [], [], []
        for number, part in enumerate(batch.split(phase.accumulate)):
            with self._run_window.collecting(number + 1 < phase.accumulate):
                total, result = self._run_window(part, options)
                (total / phase.accumulate if phase.accumulate > 1 else total).backward()
            record = {name: value.detach().abs().mean() for name, value in result.record.items()}
            rows.append({"loss": total.detach()} | record)
            ends.append((result.state.detach(), result.diagnostic.detach()))
            reached.append(result.onward)
        self.carried = taken(self.carried, planned, reached, phase.replay_pool)
        norm = self.tuned.clipped()
        loss = mean_over(torch.stack([row["loss"] for row in rows]).mean() if len(rows) > 1 else rows[0]["loss"])
        if not _usable(norm, loss, self.recipe.loss_limit):
            raise self._diagnose(loss, batch, ends)
        self.tuned.update(self.recipe.learning_rate(self.update) * 0.5**self.retried)
        self._loss.advance()
        advance_average(self.average, self.step, self.recipe.ema)
        self.tuned.advance_average(self.average)
        means = rows[0] if len(rows) == 1 else {n: torch.stack([row[n] for row in rows]).mean() for n in rows[0]}
        return {"loss": loss, "gradient_norm": norm.detach()} | {n: v for n, v in means.items() if n != "loss"}

    def _diagnose(self, loss: Tensor, batch: Batch, ends: list[tuple[Tensor, Tensor]]) -> "Diverged":
        """The error of an update that cannot be used, with the variables at fault."""
        rows = self._order.rows(self.update).starts, self.samples.times
        (what, why), curable = explain(self.step, float(loss), self.recipe.loss_limit, batch, ends, *rows)
        last = checkpoint.numbered(self.directory, "state", self.identity)
        where = f"the last good state is {last[-1]}" if last else "no state was saved yet"
        return Diverged(f"the loss is {what} at update {self.update} ({why}); {where}", curable)

    def _go_back(self, error: Diverged) -> None:
        """Go on from the last good state with half the learning rate; that is saved, so that a restart keeps to it.

        It is the last after a multiple of `save_every` updates: those saved at other moments would let these decide.
        """
        retried = self.retried + 1
        if not self._resume(self.recipe.save_every):
            raise error
        self._states.drop_newer(self.update)
        log.warning("%s; going back to it with the learning rate times %g", error, 0.5**retried)
        self.retried = retried
        self._save()

    def _validate(self) -> None:
        with averaged(self.step, self.average):
            row = self.validation(self.step, self._data, self.device, self.recipe.precision)
        better = self.best.take(row["skill"], self.update)
        if self.update <= self.recipe.singles:
            self.best.since = 0  # patience is for what is trained by the score that validates
        tensors = self.tensors() if better else {}
        if better and self.processes.rank == 0:
            about = {"update": self.update, "identity": self.identity} | row
            checkpoint.save(checkpoint.path_of(self.directory, "best", self.update), tensors, about)
        self._journal.add("validation.jsonl", {"update": self.update} | row | {"best": better})
        log.info("validation after update %d: skill %.4f%s", self.update, row["skill"], ", the best" * better)

    def tensors(self) -> dict[str, Tensor]:
        """The step's state, whole, with averaged weights where an average is kept, and the factors of adapters.

        All processes must ask together.
        """
        kept = {name: self.average.get(name, tensor) for name, tensor in self.step.state_dict().items()}
        return {name: self.step.whole(name, whole(tensor)) for name, tensor in kept.items()} | self.tuned.tensors()

    def _save(self) -> None:
        saved = gather(self.step, self.average, self.tuned.optimizer) | self.tuned.saved() | self._loss.state()
        if self.carried is not None:
            saved["carried"] = joined(self._space.whole(self.carried, self.samples.grid.shape[0]), self._space)
        about = {"unlogged": self.logged.unlogged(), "best": self.best.to_json(), "retried": self.retried}
        self._journal.settle()
        self._states.save(self.update, saved, about)

    def _resume(self, every: int = 1) -> bool:
        """Go on from the newest whole state, if there is one, preferably after a multiple of `every` updates."""
        newest = self._states.load(every)
        if newest is None:
            self._journal.cut(0)
            return False
        saved, about = newest
        self.average = restore(saved, self.step, self.tuned.optimizer)
        self.tuned.restore(saved)
        self._loss.restore(saved)
        self.update, self.logged.rows = about["update"], about["unlogged"]
        carried = share(saved["carried"], self._data) if "carried" in saved else None
        self.carried = None if carried is None else self._space.cut(carried).to(self.device)
        self.best, self.retried = Best.from_json(about["best"]), about["retried"]
        self._journal.cut(self.update)
        wait_for_all()
        log.info("resuming after update %d", self.update)
        return True
