"""A cycle on disk: analyses as an analysis store, members, feedback and records, window by window, each whole or not there.

    output/analysis.zarr           the mean of the members, with the forcing, as every stage reads analyses
    output/members.zarr            of an ensemble, its members
    output/feedback/TIME.parquet   what came of the observations of a time
    output/windows.jsonl           numbers of each analysis, once the cycle is complete

Until the cycle is complete the stores lie under the names of unfinished ones (`emulator.store.regions`); a window counts once
it is marked, which is written last. A cycle that goes on reads the states after the last marked window from the disk.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from torch import Tensor

from emulator.assimilation.cycle import Cycled
from emulator.assimilation.feedback import write_feedback
from emulator.data.channels import Layout
from emulator.files.whole_file import whole_file
from emulator.store.marks import mark, marks, partial_path
from emulator.store.regions import create, finish, finished_fingerprint, write_region

KEPT = ("vertical_coordinate", "constants", "time_step_seconds", "time_step_months", "emulator_schema", "Conventions")


@dataclasses.dataclass(frozen=True, eq=False)
class CycleStore:
    """Where a cycle is written.

    Attributes:
      folder: of the files. dataset: the store with forcing and fields that do not change. layout: of the model.
      times: of all windows. window: times in each. members: 1 without an ensemble.
      fingerprint: of everything that decides what the cycle is: another one starts over.
    """

    folder: Path
    dataset: xr.Dataset
    layout: Layout
    times: Sequence
    window: int
    members: int
    fingerprint: str

    @property
    def analysis(self) -> Path:
        return Path(self.folder) / "analysis.zarr"

    @property
    def ensemble(self) -> Path:
        return Path(self.folder) / "members.zarr"

    @property
    def windows(self) -> int:
        return len(self.times) // self.window

    def is_complete(self) -> bool:
        return finished_fingerprint(self.analysis) == self.fingerprint

    def begin(self, attributes: Mapping) -> int:
        """Makes what is not there yet, and tells how many windows are."""
        template = self._template(attributes)
        moving = {"time": 1}
        create(self.analysis, template, moving)
        done = self._done()
        if done == 0:  # of another cycle in the same folder
            for folder in ("feedback", "windows"):
                shutil.rmtree(Path(self.folder) / folder, ignore_errors=True)
        if self.members > 1 and not (done == self.windows and self._members_are_whole()):
            names = list(self.layout.prognostic.names)
            several = template[names].expand_dims({"member": np.arange(self.members)}, 1)
            fixed = template[[n for n in template.data_vars if "time" not in template[n].dims]]
            ordered = {n: several[n].transpose("time", "member", ...) for n in names}
            create(self.ensemble, fixed.assign(ordered).assign_attrs(template.attrs), moving)
        return done

    def _done(self) -> int:
        """Windows that are whole, without a gap."""
        done = marks(self.analysis)
        return next((k for k in range(self.windows) if _key(k) not in done), self.windows)

    def _members_are_whole(self) -> bool:
        return finished_fingerprint(self.ensemble) == self.fingerprint

    def states(self, window: int) -> Tensor:
        """The states after the last time of a window, `(member, channel, *space)` float32."""
        at, parts = (window + 1) * self.window - 1, []
        path = self.ensemble if self.members > 1 else self.analysis
        for name in self.layout.prognostic.names:
            values = zarr.open_array(partial_path(path), path=name, mode="r")[at]
            values = torch.from_numpy(np.asarray(values, np.float32))
            parts.append(values if self.members > 1 else values[None])
        return self.layout.prognostic.pack(dict(zip(self.layout.prognostic.names, parts, strict=True)))

    def write(self, window: int, cycled: Cycled, means: Sequence[Tensor]) -> None:
        """A window's results; `means` over the members of the states of each time, `(1, channel, *space)`."""
        first = window * self.window
        for offset, (result, mean) in enumerate(zip(cycled.results, means, strict=True)):
            at = {"time": first + offset}
            if self.members > 1:
                for name, field in self.layout.prognostic.unpack(result.state).items():
                    write_region(self.ensemble, name, _values(field)[None], at)
            fields = self.layout.prognostic.unpack(mean)
            fields |= self.layout.diagnostic.unpack(result.diagnostic.mean(0, keepdim=True))
            for name, field in fields.items():
                write_region(self.analysis, name, _values(field), at)
            given = self.dataset.sel(time=self.times[first + offset])
            for name in self.layout.forcing.names:
                if given[name].ndim:
                    write_region(self.analysis, name, np.asarray(given[name].values)[None], at)
        for time, told in zip(cycled.times, cycled.feedback, strict=True):
            columns = told.observations, told.rejected, told.background, told.analysis, told.members
            write_feedback(Path(self.folder) / "feedback" / f"{_label(time)}.parquet", time, *columns)
        record = {"window": window, "time": str(cycled.times[0]), **cycled.record}
        with whole_file(self._record(window)) as scratch:
            scratch.write_text(json.dumps(record))
        mark(self.analysis, _key(window))

    def finish(self) -> None:
        """Makes the stores whole, and one file of the windows' records."""
        lines = [self._record(window).read_text() for window in range(self.windows)]
        with whole_file(Path(self.folder) / "windows.jsonl") as scratch:
            scratch.write_text("\n".join(lines) + "\n")
        if self.members > 1 and not self._members_are_whole():
            finish(self.ensemble)
        finish(self.analysis, map(_key, range(self.windows)))

    def _record(self, window: int) -> Path:
        return Path(self.folder) / "windows" / f"{window:06d}.json"

    def _template(self, attributes: Mapping) -> xr.Dataset:
        """The store's fields that do not change, and the model's fields and forcing at the cycle's times."""
        groups = (self.layout.prognostic, self.layout.diagnostic, self.layout.forcing)
        moving = [name for group in groups for name in group.names]
        fixed = [n for n in self.dataset.data_vars if "time" not in self.dataset[n].dims]
        chosen = self.dataset[[*fixed, *moving]].sel(time=list(self.times)).drop_encoding()
        kept = {name: self.dataset.attrs[name] for name in KEPT if name in self.dataset.attrs}
        chosen.attrs = kept | {"fingerprint": self.fingerprint, "title": "emulator analyses"} | dict(attributes)
        return chosen


def _values(field: Tensor) -> np.ndarray:
    return field.detach().cpu().numpy()


def _key(window: int) -> str:
    return f"window-{window:06d}"


def _label(time) -> str:
    return str(np.datetime64(time, "s")).replace("-", "").replace(":", "")
