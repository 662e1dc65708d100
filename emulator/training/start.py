"""Starting from the weights of a checkpoint: what fits is taken over, and a table says what became of every tensor."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from emulator.data.channels import Layout
from emulator.data.normalisation import Normalizer
from emulator.model import adapted, saved_model
from emulator.model.assemble import signature_of
from emulator.model.predictions import PREDICTIONS
from emulator.model.predictions import Known as KnownOfStep
from emulator.model.step_buffers import StepBuffers
from emulator.networks import registry
from emulator.networks.channel_axes import Axes, axes_of
from emulator.networks.signature import Channel, Signature
from emulator.networks.takeover import Affine, Known, Row, matched, rescale, take_over
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.tuned import ADAPTERS

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scales:
    """Statistics of a step's channels, float64.

    Attributes:
      channels: the state, forcing, and diagnostics; mean, std: of each. change, damping, spread: of the state's, spread None
        where the step needs none.
    """

    channels: tuple[Channel, ...]
    mean: Tensor
    std: Tensor
    change: Tensor
    damping: Tensor
    spread: Tensor | None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], signature: Signature) -> "Scales":
        """Of a step's tensors by the names that they have in a checkpoint."""
        groups = "state_scale", "forcing_scale", "diagnostic_scale"
        moments = (torch.cat([tensors[f"{group}.{which}"] for group in groups]) for which in ("mean", "std"))
        own = (tensors.get(name) for name in ("change_std", "damping", "spread"))
        return cls(
            _measured(signature),
            *(values.double() for values in moments),
            *(None if values is None else values.double().flatten() for values in own),
        )


def _measured(signature: Signature) -> tuple[Channel, ...]:
    state, diagnostic = ([c for c in signature.outputs if c.role == role] for role in ("state", "diagnostic"))
    return (*state, *(c for c in signature.inputs if c.role == "forcing"), *diagnostic)


class Start:
    """A checkpoint as the start of a training.

    Args:
      options: of the training, which has a `start`.
    Raises `CheckpointError` for what is no checkpoint, and `ValueError` for one of another kind of network or prediction.
    """

    def __init__(self, options: TrainOptions):
        self.options = options.start
        self.tensors, self.saved = saved_model.opened(self.options.checkpoint)
        self.layout = Layout.from_json(self.saved["layout"])
        self.grid = saved_model.grid_from_json(self.saved["grid"])
        self.rows: list[Row] = []
        self._config, self._predicts = options.network, options.predict
        self._joined = options.bounds == self.saved["config"].get("bounds", "envelope") == "envelope"
        check_kind(options, self.saved)

    @classmethod
    def of(cls, options: TrainOptions) -> "Start | None":
        """Of a training that starts from weights, else None."""
        return None if options.start is None else cls(options)

    def statistics(self, constants: StepBuffers, layout: Layout, grid: Grid) -> StepBuffers:
        """A step's constants, with the checkpoint's statistics of the channels that it has where those are to stay.

        An envelope then has room for the checkpoint's, where that has one, and the new data's, since the network has learnt
        from both: a few times of a season would leave it less than it knows. Other bounds are those of the new data, and on
        another grid all, as is the mean that it relaxes to.
        """
        if self.options.statistics == "new":
            return constants
        old, new = self._scales(), _scales_of(constants, layout)
        origin = matched(new.channels, old.channels)
        mean, std = (_taken(getattr(old, name), getattr(new, name), origin) for name in ("mean", "std"))
        counts = [layout.prognostic.count, layout.given.count, layout.diagnostic.count]
        normal = [Normalizer(*both) for both in zip(mean.split(counts), std.split(counts), strict=True)]
        # of a variable that was forcing there is no change
        states = [n if n < len(old.change) else -1 for n in origin[: counts[0]]]
        more: dict[str, Tensor] = {}
        for name, key in (("change", "change_std"), ("damping", "damping"), ("spread", "spread")):
            before, now = getattr(old, name), getattr(new, name)
            if before is not None and now is not None:
                more[key] = _taken(before, now, states).float().view_as(getattr(constants, key))
        if grid.same_as(self.grid):
            more["resting"] = _taken(self.tensors["resting"], constants.resting, states)
            for name, wider in (("lower", torch.minimum), ("upper", torch.maximum)) if self._joined else ():
                now = getattr(constants, name)
                before = _taken(self.tensors[name], now, states)
                more[name] = torch.where(before.isfinite() & now.isfinite(), wider(before, now), now)
        state, forcing, diagnostic = normal
        return dataclasses.replace(constants, state=state, forcing=forcing, diagnostic=diagnostic, **more)

    def put_into(self, network: nn.Module, layout: Layout, grid: Grid, constants: StepBuffers | None = None) -> None:
        """Put the weights into a fresh network of the training's options, and keep what became of each in `rows`.

        `constants`: of its step, to which new statistics rescale its first and last layers; None to leave them.
        Raises `ValueError` for weights that do not fit.
        """
        new = Known(signature_of(layout), grid)
        old = Known(signature_of(self.layout), self.grid, _network_of(self.tensors))
        found: list[Axes] = []

        def axes() -> Axes:
            if not found:
                found.append(axes_of(network, self._config, new.signature, grid))
            return found[0]

        try:
            self.rows = take_over(network, axes, new, old)
        except ValueError as error:
            raise ValueError(f"{error} (start.checkpoint {self.options.checkpoint}{self._differences()})") from error
        if self.options.statistics == "new" and constants is not None:
            self._rescale(network, axes, new.signature, _scales_of(constants, layout))

    def _rescale(self, network, axes, signature: Signature, new: Scales) -> None:
        old = self._scales()
        inputs = _of_inputs(signature.inputs, old, new)
        outputs = _of_outputs(signature.outputs, old, new, self._predicts)
        if all((scale.factor == 1).all() and not scale.offset.any() for scale in (inputs, outputs)):
            return
        said = rescale(network, axes(), signature, inputs, outputs)
        for number, row in enumerate(self.rows):
            if row.name in said and row.what in ("taken", "changed"):
                how = ", ".join(filter(None, [row.how, said[row.name]]))
                what = "changed" if said[row.name].startswith("rescaled") else row.what
                self.rows[number] = row._replace(what=what, how=how)

    def _scales(self) -> Scales:
        return Scales.of(self.tensors, signature_of(self.layout))

    def _differences(self) -> str:
        before, now = self.saved["config"]["network"], json.loads(json.dumps(self._config, default=str))
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        told = [f"{name} {before.get(name, 'default')}, not {now.get(name, 'default')}" for name in names]
        return f"; its network has {'; '.join(told)}" if told else ""

    def describe(self) -> str:
        """One phrase."""
        counts = {what: sum(row.what == what for row in self.rows) for what in ("taken", "changed", "new", "left")}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"starts from {self.options.checkpoint}, its tensors {told}, {self.options.statistics} statistics"

    def table(self) -> str:
        """What became of every tensor, a line each."""
        cells = [(row.what, row.name, " x ".join(map(str, row.shape)), row.how) for row in self.rows]
        widths = [max(len(cell[n]) for cell in cells) for n in range(3)]
        lines = ("  ".join(part.ljust(width) for part, width in zip(cell, [*widths, 0], strict=True)) for cell in cells)
        return "\n".join(line.rstrip() for line in lines)

    def record(self) -> dict:
        """What the training's checkpoint keeps of its start."""
        known = {"checkpoint": str(self.options.checkpoint), "sha256": self.saved["sha256"]}
        return known | {"statistics": self.options.statistics, "tensors": [row._asdict() for row in self.rows]}

    def save_alone(self, output: Path, tensors: Mapping[str, Tensor], metadata: dict) -> dict[str, Tensor]:
        """The step's tensors; written are `output/adapters`, where some of a training's are factors of adapters, or
        `output/changes`, where parts were frozen."""
        factors = {name.removeprefix(ADAPTERS): t for name, t in tensors.items() if name.startswith(ADAPTERS)}
        step = {name: tensor for name, tensor in tensors.items() if not name.startswith(ADAPTERS)}
        if factors:
            about = metadata | {"adapters": {"scale": self.options.lora.alpha / self.options.lora.rank}}
            adapted.save(output / "adapters", step, factors, (self.tensors, self.saved), about)
        elif self.options.freeze:
            about = metadata | {"adapters": None}
            adapted.save(output / "changes", step, {}, (self.tensors, self.saved), about)
        return step


def check_kind(options: TrainOptions, saved: Mapping) -> None:
    """Raises `ValueError` where a checkpoint's network or prediction is of another kind than a training's."""
    theirs, name = saved["config"], options.start.checkpoint
    if theirs["network"]["kind"] != options.network["kind"]:
        raise ValueError(
            f"Expected a network of kind {theirs['network']['kind']!r}, as the checkpoint {name} that it starts from has, "
            f"got {options.network['kind']!r}"
        )
    if (predicts := theirs.get("predict", "change")) != options.predict:
        raise ValueError(
            f"Expected predict {predicts}, as the checkpoint {name} that it starts from has, got {options.predict}"
        )
    conditions = [
        list(getattr(registry.options(config), "condition", ())) for config in (theirs["network"], options.network)
    ]
    if conditions[0] and conditions[0] != conditions[1]:
        raise ValueError(
            f"Expected the conditions {', '.join(conditions[0])} of the checkpoint {name} that it starts from, got "
            f"{', '.join(conditions[1]) or 'none'}"
        )


def _network_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}


def _scales_of(constants: StepBuffers, layout: Layout) -> Scales:
    tensors = {"change_std": constants.change_std, "damping": constants.damping}
    tensors |= {} if constants.spread is None else {"spread": constants.spread}
    for name in ("state", "forcing", "diagnostic"):
        tensors |= {f"{name}_scale.{key}": t for key, t in getattr(constants, name).state_dict().items()}
    return Scales.of(tensors, signature_of(layout))


def _taken(old: Tensor, new: Tensor, origin: Sequence[int]) -> Tensor:
    """The old values of the channels that have an origin, the new ones of the others."""
    where = torch.tensor(origin, dtype=torch.long)
    picked = old.index_select(0, where.clamp(min=0)) if len(old) else new
    return torch.where((where >= 0).view(-1, *[1] * (new.ndim - 1)), picked, new)


def _of_inputs(inputs: Sequence[Channel], old: Scales, new: Scales) -> Affine:
    """From a new normalised input to the old one's units; 1 and 0 where nothing was normalised before."""
    before, now = ([-1] * len(inputs) for _ in range(2))
    for time in {channel.time for channel in inputs}:
        where = [n for n, channel in enumerate(inputs) if channel.time == time]
        newest = [dataclasses.replace(inputs[n], time=0) for n in where]
        for n, a, b in zip(where, matched(newest, old.channels), matched(newest, new.channels), strict=True):
            before[n], now[n] = a, b
    factor, offset = torch.ones(len(inputs), dtype=torch.float64), torch.zeros(len(inputs), dtype=torch.float64)
    for n, (a, b) in enumerate(zip(before, now, strict=True)):
        if a >= 0 and b >= 0:
            factor[n] = new.std[b] / old.std[a]
            offset[n] = (new.mean[b] - old.mean[a]) / old.std[a]
    return Affine(factor, offset)


def _of_outputs(outputs: Sequence[Channel], old: Scales, new: Scales, predicts: str) -> Affine:
    """From an old output to the new one's units."""
    made = [n for n, channel in enumerate(old.channels) if channel.role != "forcing"]
    before = [made[n] if n >= 0 else -1 for n in matched(outputs, [old.channels[n] for n in made])]
    (unit_old, zero_old), (unit_new, zero_new) = (_units(scales, predicts) for scales in (old, new))
    now = [*range(sum(c.role == "state" for c in outputs))]
    now += range(len(new.channels) - (len(outputs) - len(now)), len(new.channels))
    factor, offset = torch.ones(len(outputs), dtype=torch.float64), torch.zeros(len(outputs), dtype=torch.float64)
    for n, (a, b) in enumerate(zip(before, now, strict=True)):
        if a >= 0 and unit_new[b] > 0:
            factor[n] = unit_old[a] / unit_new[b]
            offset[n] = (zero_old[a] - zero_new[b]) / unit_new[b]
    return Affine(factor, offset)


def _units(scales: Scales, predicts: str) -> tuple[Tensor, Tensor]:
    """What an output of 1 more adds to a channel, and what an output of 0 means."""
    count, zero = len(scales.change), torch.zeros(len(scales.change), dtype=torch.float64)
    moments = scales.mean[:count], scales.std[:count]
    known = KnownOfStep(zero, zero, *moments, scales.change, zero, scales.spread, zero)
    nothing, one = (PREDICTIONS[predicts].following(known, value) for value in (zero, zero + 1))
    return torch.cat([one - nothing, scales.std[count:]]), torch.cat([nothing, scales.mean[count:]])
