"""The training of a learned analysis: from a nature run, simulated observations and a model to a checkpoint.

Every update takes some cycles a step further: a forecast from each one's last analysis is the background, observations of the
truth at that time are drawn at new places, the network analyses, its error is measured against the truth, and its analysis
is what the cycle goes on from. No gradient passes from one analysis to the next.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emulator.assimilation.cycle import surface_pressure
from emulator.assimilation.differences import expect_dates
from emulator.assimilation.forecasts import Forecasts
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.increments import Increments
from emulator.assimilation.learned.backgrounds import Backgrounds
from emulator.assimilation.learned.gridding import Gridded
from emulator.assimilation.learned.measures import measured
from emulator.assimilation.learned.model import LearnedAnalysis
from emulator.assimilation.learned.options import LearnOptions
from emulator.assimilation.observations import Observations
from emulator.assimilation.operators import equivalents
from emulator.assimilation.options import ObserveOptions
from emulator.assimilation.quality import screen_background
from emulator.assimilation.simulate import simulated
from emulator.files.interruption import Interrupted
from emulator.files.one_writer import one_writer
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.model import checkpoint
from emulator.model.saved_model import check_match, digest_of, load_model
from emulator.options import as_before
from emulator.parallel.processes import Processes
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from emulator.training.log import Journal, Log
from emulator.training.options.phases import Phase
from emulator.training.recipe import Recipe, rates_of
from emulator.training.saved import States, advance_average, averaged, begin_average, gather, goes_on, restore
from emulator.training.validation import Best

log = logging.getLogger(__name__)
# where things lie, and what changes no result
NOT_IDENTITY = {"store", "checkpoint", "output", "save_every", "log_every", "overwrite"}


class Learning:
    """A training of an analysis that is put together and then run.

    Args:
      options: what is learned, and how. config: what the checkpoint keeps as its configuration; None: the options.
      provenance: versions and commit for the checkpoint.
    Raises `ValueError` for a store, a model and options that do not go together.
    """

    def __init__(self, options: LearnOptions, config: Mapping | None = None, provenance: Mapping | None = None):
        self.options, self.config, self.provenance = options, config, dict(provenance or {})
        self.dataset = open_analysis(options.store)
        expect_dates(self.dataset)
        model = load_model(options.checkpoint, "cpu").requires_grad_(False)
        check_match(model.metadata, self.dataset, options.checkpoint, options.store)
        self.forecasts = Forecasts(model, self.dataset, seed=options.seed)
        channels = self.forecasts.layout.prognostic
        self.geometry = Geometry.of(self.dataset, channels)
        period = options.period.start, options.period.end
        increments = Increments.of(self.dataset, channels)
        self.backgrounds = Backgrounds(
            self.forecasts, self.dataset, period, increments, options.backgrounds, options.seed
        )
        measures = measured(self.backgrounds, self.geometry, options, self._observed)
        torch.manual_seed(options.seed)
        self.model = LearnedAnalysis(channels, self.geometry.grid, measures, options.network)
        self.gridding = self.model.gridding(self.geometry)
        area = torch.as_tensor(grid_of(self.dataset).area)
        self.area = (area / area.sum()).float()

    def identity(self, without: frozenset[str] = frozenset()) -> str:
        """Hash of what decides the weights, wherever it lies: a state of another identity is not resumed."""
        left = NOT_IDENTITY | without
        told = {name: value for name, value in as_before(self.options).items() if name not in left}
        more = str(self.dataset.attrs.get("fingerprint")), str(digest_of(self.forecasts.model))
        text = "\n".join([json.dumps(told, sort_keys=True, default=str), *more])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def recipe(self) -> Recipe:
        """Phases and rates as trainings of forecasts have them: one phase."""
        phase = Phase(updates=self.options.updates, batch_size=self.options.batch_size)
        return Recipe((phase,), **rates_of(self.options), rest=self.identity(frozenset({"updates"})))

    def check_finished(self) -> None:
        """Raises `ValueError` where a finished checkpoint would be replaced that this training does not go on from."""
        path, identity = Path(self.options.output) / "checkpoint", self.identity()
        if self.options.overwrite or not path.exists():
            return
        if checkpoint.describe(path).get("identity") != identity and not goes_on(path.parent, identity, self.recipe()):
            raise ValueError(
                f"Expected another learn.output, or learn.overwrite=true, since the finished training in {path} has other "
                "settings or data: only with more updates can it go on"
            )

    @flushed()
    def run(self, report: Callable[[dict], None] = lambda row: None, asked: Callable[[], bool] = lambda: False) -> None:
        """Trains, or goes on with a training that was stopped, and writes `output/checkpoint`.

        Raises `Interrupted` after saving when `asked()` turns true, `Busy` where another process trains there, and
        `ArithmeticError` for a loss that is not finite.
        """
        freed_memory.keep()
        self.check_finished()
        output, identity = Path(self.options.output), self.identity()
        with one_writer(output):
            loop = _Loop(self, output, identity)
            loop.run(report, asked)
            with averaged(self.model, loop.average):
                tensors = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            config = self.config or json.loads(json.dumps(dataclasses.asdict(self.options), default=str))
            about = {"config": dict(config), "identity": identity, "provenance": self.provenance}
            checkpoint.save(output / "checkpoint", tensors, self.model.described() | about)

    def describe(self) -> str:
        """What would be trained, in words."""
        size = sum(parameter.numel() for parameter in self.model.parameters())
        systems = ", ".join(network.name for network in self.options.networks)
        return (
            f"an analysis of {systems} by {size} parameters, {self.options.updates} updates of {self.options.batch_size} "
            f"backgrounds, into {self.options.output}"
        )

    def learn(self, update: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of an update, and what the log tells of it; its analyses go back to their cycles.

        The loss is the root mean square error over the globe in units of the scale, averaged over backgrounds and channels:
        one of a wrong date does not count for more than its share.
        """
        taken = self.backgrounds.take(update, self.options.batch_size)
        truth = self.backgrounds.at_times(taken.times)
        observed = self._observed(update, taken.times)
        given = [self._given(rows, state) for rows, state in zip(observed, taken.state, strict=True)]
        analysis = self.model(taken.state, Gridded(*map(torch.cat, zip(*given, strict=True))))
        before, after = self._errors(taken.state, truth), self._errors(analysis, truth)
        self.backgrounds.give_back(taken, analysis.detach())
        loss = after.mean()
        row = {"loss": float(loss.detach()), "background": float(before.mean()), "age": float(np.mean(taken.ages))}
        return loss, row

    def _errors(self, state: Tensor, truth: Tensor) -> Tensor:
        """Root mean square errors in units of the scale, `(row, channel)`."""
        scaled = (state - truth) / self.model.scale.view(-1, 1, 1).float()
        return (scaled.square() * self.area).sum((2, 3)).clamp(min=1e-12).sqrt()

    def _observed(self, update: int, times: list) -> list[Observations]:
        """What is observed of the truth at some times, at places of their own for every update."""
        options, generator = self.options, np.random.default_rng([self.options.seed, update + 1, 12])
        least, most = np.log(options.density[0]), np.log(options.density[-1])
        factor = float(np.exp(generator.uniform(least, most)))
        drawn = tuple(dataclasses.replace(each, share=each.share * factor) for each in options.networks)
        seed = int(generator.integers(2**31))
        found = simulated(self.dataset, ObserveOptions(networks=drawn, seed=seed), sorted(set(times)))
        by_time = {part.time[0]: part for part in found if len(part)}
        return [by_time.get(np.datetime64(time, "ns"), Observations.concat([])) for time in times]

    def _given(self, rows: Observations, background: Tensor) -> Gridded:
        """Observations of one background on the grid, less those that quality control rejects."""
        before = equivalents(self.geometry, rows)(background[None].double())[0].numpy()
        pressure = surface_pressure(self.geometry, rows, background[None])
        good = screen_background(rows, before, None, pressure, self.options.quality) == ""
        return self.gridding(rows.where(good), (rows.value - before)[good])


class _Loop:
    """Updates of the weights one by one, with everything that a resumed run needs."""

    def __init__(self, learning: Learning, output: Path, identity: str):
        self.learning, self.model, self.recipe = learning, learning.model, learning.recipe()
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=self.recipe.betas)
        self.average = begin_average(self.model, self.recipe.ema)
        alone = Processes()
        self.states, self.journal = States(output, identity, self.recipe, alone), Journal(output, True)
        self.log = Log(self.journal, self.recipe, alone, torch.device("cpu"))
        self.update = 0

    def run(self, report: Callable[[dict], None], asked: Callable[[], bool]) -> None:
        self._resume()
        self.model.train()
        self.log.begin(self.update)
        last = self.recipe.updates
        while self.update < last:
            self.log.add(self._one(), self.update + 1)
            self.update += 1
            if self.update % self.recipe.log_every == 0 or self.update == last:
                report(self.log.write(self.update, 0))
            stop = asked() and self.update < last
            if self.update % self.recipe.save_every == 0 or self.update == last or stop:
                self._save()
            if stop:
                raise Interrupted(f"saved after update {self.update} of {last}; start again to go on")
        self.model.eval()

    def _one(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.update)
        self.optimizer.zero_grad(set_to_none=True)
        loss, row = self.learning.learn(self.update)
        if not bool(torch.isfinite(loss)):
            raise ArithmeticError(f"Expected a finite loss of the analysis, got {float(loss)} at update {self.update}")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        advance_average(self.average, self.model, self.recipe.ema)
        return row | {"gradient_norm": float(norm)}

    def _save(self) -> None:
        saved = gather(self.model, self.average, self.optimizer) | self.learning.backgrounds.saved()
        self.journal.settle()
        self.states.save(self.update, saved, {"unlogged": self.log.unlogged(), "best": Best().to_json()})

    def _resume(self) -> None:
        newest = self.states.load()
        if newest is None:
            self.journal.cut(0)
            return
        saved, about = newest
        self.average = restore(saved, self.model, self.optimizer)
        self.learning.backgrounds.restore(saved)
        self.update, self.log.rows = about["update"], about["unlogged"]
        self.journal.cut(self.update)
        log.info("resuming after update %d", self.update)
