"""A training from options to a checkpoint: stores opened, step, loss and trainer put together, weights chosen and saved."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import xarray as xr

from emulator.data.boundary import Boundary
from emulator.data.channels import Layout
from emulator.data.normalisation import open_statistics
from emulator.data.samples import Samples
from emulator.files.one_writer import one_writer
from emulator.generative.windows import windowed
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.losses.build import Weighted
from emulator.model import checkpoint, saved_model
from emulator.model.assemble import (
    boundary_shape,
    buffers,
    changes,
    conditions,
    input_count,
    make_network,
    make_step,
    network_of,
)
from emulator.model.conserving import ConservationOptions, conservation, prepared
from emulator.model.generative import measure_noise
from emulator.model.step import Step
from emulator.networks import cost
from emulator.networks.remembered import remembered
from emulator.parallel.distributed import device_of, process_group, space_of, wait_for_all
from emulator.parallel.processes import Processes, processes_of
from emulator.parallel.space import ALONE, Space
from emulator.store.schema import time_step_seconds
from emulator.training.boundary import boundary_of, check_boundary
from emulator.training.forecasts import StoredForecasts
from emulator.training.gaps import refuse_gaps
from emulator.training.identity import identity_of, stores_of
from emulator.training.interpolator import check_interpolator, take_interpolator, with_interpolator
from emulator.training.layout import climatology_of, layout_of
from emulator.training.memory import window_bytes
from emulator.training.options import TrainOptions
from emulator.training.posterior import check_posterior, write_posterior
from emulator.training.recipe import Recipe
from emulator.training.saved import goes_on
from emulator.training.start import Start
from emulator.training.trainer import Placement, Trainer
from emulator.training.tuned import check_noise_trained, choose
from emulator.training.validation import Validation
from emulator.training.window import StepLoss

log = logging.getLogger(__name__)


def train(store, statistics, output, **options) -> Step:
    """Train a network on an analysis store, or go on with a training that was stopped; the trained step.

    Args:
      store, statistics: what ingest and `emulator.statistics` wrote. output: folder that receives `checkpoint/` and logs.
      options: of `emulator.training.options.TrainOptions`, such as `network={"kind": "unet"}`, `phases=[{"updates": 500}]`,
        `period={"end": "2015-12-31"}`, `start={"checkpoint": PATH, "statistics": "new"}`.

    Raises `ValueError` for options or stores that do not go together, and `Diverged` where the loss is no longer finite.
    """
    paths = {"store": store, "statistics": statistics, "output": output}
    training = Training(TrainOptions.of(paths | options))
    training.run()
    return saved_model.load_model(Path(output) / "checkpoint", training.device)


@dataclasses.dataclass(frozen=True)
class StageHooks:
    """What surrounds a training that runs in a batch stage; a notebook leaves all as it is.

    Attributes:
      identity: hash of everything that decides the weights, and rest, the same without the phases; None: of the options and
        the stores.
      config: what the checkpoint keeps as its configuration; None: the options.
      provenance: versions and commit for the checkpoint.
      processes: that train together; None: as the launcher says.
      stopping: makes a context that gives a function which tells whether to save and stop.
      reporting: makes, of the identity and the number of updates, a context that gives a function of the log's rows.
    """

    identity: str | None = None
    rest: str | None = None
    config: Mapping | None = None
    provenance: Mapping = dataclasses.field(default_factory=dict)
    processes: Processes | None = None
    stopping: Callable = lambda: contextlib.nullcontext(lambda: False)
    reporting: Callable = lambda identity, updates: contextlib.nullcontext(lambda row: None)


class Training:
    """A training that is put together and then run.

    Args:
      options: what is trained on what, and how. hooks: see `StageHooks`.
    Raises `ValueError` where an objective needs a checkpoint that is not there, or is of something else.
    """

    def __init__(self, options: TrainOptions, hooks: StageHooks = StageHooks()):
        self.options, self.hooks = with_interpolator(options), hooks
        self.processes = hooks.processes or processes_of(os.environ)
        self.device, self.space = device_of(self.processes), ALONE

    @flushed()
    def run(self) -> None:
        """Train and write `output/checkpoint`; the first of several processes writes.

        Raises `Interrupted` after saving when asked to stop, `Diverged`, and `Busy` where another process trains there.
        """
        freed_memory.keep()
        with process_group(self.processes, self.device):
            self.space = space_of(self.processes, self.options.parallel.space, self.device)
            self._run()

    def _run(self) -> None:
        options, first = self.options, self.processes.rank == 0
        stores, statistics, layout = self._opened()
        check_posterior(options)
        self._check_finished(stores, layout)
        refuse_gaps(options, stores, layout, statistics)
        boundary = boundary_of(options, stores[0], layout)
        samples = self._samples(stores, layout, options.period, boundary)
        check_interpolator(options, layout, samples.grid, time_step_seconds(stores[0]))
        closing = conservation(ConservationOptions.of(options.conservation), samples, statistics)
        bounds = options.damping, options.margin, options.bounds
        constants, start = buffers(samples, statistics, *bounds, options.predict), Start.of(options)
        if start:
            constants = start.statistics(constants, layout, samples.grid)
        torch.manual_seed(options.seed)
        how = constants, closing.scheme, options.predict, self.space
        step = make_step(network_of(vars(options)), layout, samples.grid, *how)
        if start:
            start.put_into(step.network, layout, samples.grid, constants)
            log.info("it %s\n%s", start.describe(), start.table())
        take_interpolator(options, step)
        measure_noise(step, samples)
        step.to(self.device)
        step.rows = rows_at_once(options, step.network)
        log.info("%s with %d parameters", options.network["kind"], sum(p.numel() for p in step.network.parameters()))
        trainer = self._trainer(step, samples, stores, statistics, closing.penalty)
        output = Path(options.output)
        with one_writer(output) if first else contextlib.nullcontext():
            reporting = self.hooks.reporting if first else StageHooks().reporting
            with self.hooks.stopping() as asked, reporting(trainer.identity, trainer.recipe.updates) as report:
                trainer.run(report, asked)
            config = self.hooks.config or json.loads(json.dumps(dataclasses.asdict(options), default=str))
            if windowed(options.objective):
                config = {**config, "objective": dict(options.objective)}  # with what it took from the interpolator
            metadata = saved_model.metadata(config, samples, closing.saved, statistics)
            tensors = trainer.tensors()
            if first:
                kept, about = _kept(trainer, tensors, options)
                about |= {"provenance": dict(self.hooks.provenance), "identity": trainer.identity}
                for name in ("adapters", "changes"):
                    checkpoint.remove(output / name)  # of a training that this one replaces
                if start:
                    about["start"] = start.record()
                    kept = start.save_alone(output, kept, metadata | about)
                checkpoint.save(output / "checkpoint", kept, metadata | about)
                checkpoint.remove(output / "posterior")
                if options.posterior:
                    states = checkpoint.numbered(output, "state", trainer.identity)
                    states = [path for path in states if checkpoint.describe(path)["update"] % options.save_every == 0]
                    write_posterior(options.posterior, step, samples, output, states)
        wait_for_all()  # nobody looks for the checkpoint before it lies on disk

    def _identities(self, stores) -> tuple[str, str]:
        """Hashes of all that decides the weights, and of that without the phases."""
        own, rest = self.hooks.identity, self.hooks.rest
        return own or identity_of(self.options, stores), rest or identity_of(self.options, stores, {"phases"})

    def _recipe(self, stores, layout: Layout) -> Recipe:
        return dataclasses.replace(
            Recipe.of(self.options, layout.lengths, self.options.loss.kind), rest=self._identities(stores)[1]
        )

    def _check_finished(self, stores, layout: Layout) -> None:
        """Raises `ValueError` where a finished checkpoint would be replaced that this training does not go on from."""
        path, (identity, _) = Path(self.options.output) / "checkpoint", self._identities(stores)
        if self.options.overwrite or not path.exists():
            return
        try:
            known = checkpoint.describe(path).get("identity")
        except checkpoint.CheckpointError as error:
            log.warning("%s; it is replaced", error)
            return
        if known != identity and not goes_on(path.parent, identity, self._recipe(stores, layout)):
            raise ValueError(
                f"Expected another train.output, or train.overwrite=true, since the finished training in {path} has other "
                "settings or data: only with more updates or phases at the end can it go on"
            )

    def _opened(self) -> tuple[list[xr.Dataset], xr.Dataset, Layout]:
        options, stores = self.options, stores_of(self.options)
        statistics = open_statistics(options.statistics)
        return stores, statistics, layout_of(options, stores[0])

    def describe(self) -> str:
        """One line: the network, its channels, how long it trains and what that costs. Raises `ValueError` as `run` does."""
        options, (stores, statistics, layout) = self.options, self._opened()
        recipe = Recipe.of(options, layout.lengths, options.loss.kind)
        self._check_finished(stores, layout)
        refuse_gaps(options, stores, layout, statistics)
        climatology_of(options, stores[0], layout)
        boundary = boundary_of(options, stores[0], layout)
        start = Start.of(options)
        space = Space.imagined(options.parallel.space)
        samples = Samples(stores, layout, options.period.start, options.period.end, cache_bytes=0, space=space)
        grid = samples.grid
        check_interpolator(options, layout, grid, time_step_seconds(stores[0]))
        steps = max(phase.rollout_steps for phase in recipe.phases) * recipe.horizon
        samples.some_starts(steps, max(layout.lengths))
        check_boundary(boundary, samples)
        if options.forecasts:
            stored = StoredForecasts(options.forecasts, samples)
            for phase in recipe.phases:
                stored.pairs(samples.starts(phase.rollout_steps, max(layout.lengths)), max(layout.lengths))
        if asked := options.validation:
            held_out = Samples(stores, layout, asked.period.start, asked.period.end, cache_bytes=0)
            held_out.some_starts(asked.steps, layout.lengths[0])
            check_boundary(boundary, held_out)
        changes(statistics, layout.prognostic)
        self._weighted(samples, statistics).loss(options.loss)
        prepared(ConservationOptions.of(options.conservation), samples.dataset, layout, statistics)
        if space.size > 1:
            make_network(network_of(vars(options)), layout, grid, space)  # refuses processes that it does not fit
        network = make_network(network_of(vars(options)), layout, grid)
        if start:
            start.put_into(network, layout, grid)
        check_noise_trained(choose(network, options.start), options.phases)
        rows_at_once(options, network)
        check_posterior(options)
        given = (part.count if part else 0 for part in conditions(network_of(vars(options)), layout, grid))
        inputs = input_count(layout, network_of(vars(options)))
        measured = cost.measure(network, inputs, grid.shape, *given, boundary_shape(layout, grid))
        if measured.activations:  # there is room for the loss and the fields around the network too

            def error_of(space: Space) -> torch.nn.Module:
                own = Samples(stores, layout, cache_bytes=0, space=space)
                return self._weighted(own, statistics).loss(options.loss)

            most = window_bytes(options, layout, grid, error_of)
            measured = dataclasses.replace(measured, activations=most, processes=space.size)
        return (
            f"{options.network['kind']} with {measured.parameters:,} parameters, {layout.prognostic.count} prognostic, "
            f"{layout.diagnostic.count} diagnostic and {layout.forcing.count} forcing channels on {grid.describe()}; "
            f"{recipe.updates} updates on {len(samples)} times; {measured.describe(recipe.phases, options.members)}"
        ) + (f"; {start.describe()}" if start else "")

    def _weighted(self, samples: Samples, statistics: xr.Dataset) -> Weighted:
        options = self.options
        weights = options.variable_weights, options.level_weights, options.diagnostic_weight
        return Weighted(samples, statistics, *weights, options.region_weight)

    def _samples(self, stores: Sequence[xr.Dataset], layout, period, boundary: Boundary | None) -> Samples:
        options = self.options
        cache = int(options.cache_gigabytes * 1e9)
        where = options.paths, options.loader_threads, climatology_of(options, stores[0], layout, self.space)
        how = {"space": self.space, "boundary": boundary}
        samples = Samples(stores, layout, period.start, period.end, cache, *where, **how)
        check_boundary(boundary, samples)
        if boundary is not None:
            boundary.hold(samples.times[~samples.missing])
        return samples

    def _trainer(self, step: Step, samples: Samples, stores, statistics: xr.Dataset, penalty) -> Trainer:
        options, sharded = self.options, self.options.parallel.weights == "fsdp"
        weighted, lengths = self._weighted(samples, statistics), step.layout.lengths
        longer = {n: weighted.over_length(step, n).loss(options.loss) for n in lengths} if lengths != (1,) else {}
        single_error = weighted.error() if any(phase.single for phase in options.phases) else None
        loss = StepLoss(weighted.loss(options.loss), penalty, longer, single_error).to(self.device)
        own = weighted if lengths == (1,) else weighted.over_length(step, lengths[0])
        validation_error = loss.error if options.members > 1 else own.error().to(self.device)
        products = 0
        if not sharded:  # a network that is spread over processes may be too large to run whole in one
            more = (part.count if part else 0 for part in (step.noise, step.scalars))
            outside = boundary_shape(step.layout, samples.grid)
            inputs = input_count(step.layout, network_of(vars(options)))
            products = cost.products(step.network, inputs, samples.shape, *more, outside)
        if options.compile:
            step.network.compile()
        identity, _ = self._identities(stores)
        validation = self._validation(stores, step.layout, validation_error, samples.boundary)
        placement = Placement(self.processes, sharded, self.space)
        recipe, output = self._recipe(stores, step.layout), Path(options.output)
        stored = options.forecasts and StoredForecasts(options.forecasts, samples)
        how = identity, validation, placement
        trainer = Trainer(step, loss, samples, recipe, output, *how, forecasts=stored)
        trainer.logged.products = products
        return trainer

    def _validation(self, stores, layout, error: torch.nn.Module, boundary: Boundary | None) -> Validation | None:
        """What a training validates on: by a squared error, or a score of ensembles where it trains by one."""
        asked, members = self.options.validation, self.options.members
        if asked is None:
            return None
        samples = self._samples(stores, layout, asked.period, boundary)
        how = asked.every, asked.windows, asked.steps, asked.batch_size, asked.patience
        return Validation(samples, error, *how, members=members, squared=members == 1)


def rows_at_once(options: TrainOptions, network: torch.nn.Module) -> int:
    """Forecasts that a network is run on at a time, 0 for all. Raises `ValueError` for one that sees a batch as a whole."""
    if options.checkpoint_rows and (moments := list(remembered(network))):
        raise ValueError(
            f"Expected train.checkpoint_rows 0 for a network with moments of whole batches ({moments[0]}), got "
            f"{options.checkpoint_rows}"
        )
    return options.checkpoint_rows


def _kept(trainer: Trainer, tensors: dict, options: TrainOptions) -> tuple[dict, dict]:
    """The weights to keep, with what the checkpoint says of the choice."""
    if options.validation is None or options.validation.choose == "last" or trainer.best.update < 0:
        return tensors, {"update": trainer.update}
    path = checkpoint.path_of(trainer.directory, "best", trainer.best.update)
    try:
        best, row = checkpoint.load(path)
    except checkpoint.CheckpointError as error:  # to train all anew for them is not worth it
        log.warning("%s; using the weights after the last update instead of the best", error)
        return tensors, {"update": trainer.update}
    if row["identity"] != trainer.identity:
        raise checkpoint.CheckpointError(
            f"Expected the weights after update {trainer.best.update} of this training in {path}, got those of another, "
            f"which took their place; remove {trainer.directory}"
        )
    log.info("the weights after update %d have the best rollouts: skill %.4f", row["update"], row["skill"])
    return best, {"update": row["update"], "validation": {n: v for n, v in row.items() if isinstance(v, float)}}
