"""One term of a field on the axes of its sources: which piece holds each slot, and how slots are read."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from emulator.ingestion.vertical import places
from emulator.sources.piece import Piece


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """How values of a term add up to means over steps.

    Attributes:
      index: which slots (of an analysis) or leads (of a forecast) are added up, -1 for none: `(slot, lead, n)`.
      factor: what each is multiplied by, +-1 for totals and +- seconds for means; 0 for none: `(slot, lead, n)`.
      seconds: length of the step, NaN where the values do not add up: `(slot, lead)`.
      across: the index counts slots, and not leads.
    """

    index: np.ndarray
    factor: np.ndarray
    seconds: np.ndarray
    across: bool

    def part(self, slots: np.ndarray) -> "Sums":
        """Of some slots alone, among which are all that they are made from."""
        index = self.index[slots]
        if self.across:
            index = np.where(index < 0, -1, np.searchsorted(slots, index))
        return dataclasses.replace(self, index=index, factor=self.factor[slots], seconds=self.seconds[slots])

    def used(self, slots: np.ndarray, leads: np.ndarray) -> np.ndarray:
        """All slots, or leads, that values at some slots and leads are made from, increasing."""
        index = np.unique(self.index[np.ix_(slots, leads)])
        return index[index >= 0]

    def mean(self, values: np.ndarray, used: np.ndarray, slot: int, lead: int) -> np.ndarray | None:
        """The mean over the step that ends at a slot and lead; None where the values do not add up.

        Totals are added in single precision as files have them, means in double. `values`: `(used, ...)`.
        """
        seconds, total = float(self.seconds[slot, lead]), None
        if not seconds > 0:
            return None
        for index, factor in zip(self.index[slot, lead].tolist(), self.factor[slot, lead].tolist(), strict=True):
            if index >= 0:
                own = values[np.searchsorted(used, index)]
                part = factor * (own if abs(factor) == 1 else own.astype(np.float64))
                total = part if total is None else total + part
        return (total / seconds).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """The pieces of a field, or of one term of it, on the axes of the sources.

    Attributes:
      pieces: what slots are read from.
      times: `(slot,)`, increasing; leads: `(lead,)` or one None.
      owner: which piece holds a slot, -1 for none: `(slot, lead, member, level)`.
      place: position of a slot along time and lead in its piece: `(slot, lead, 2)`.
      vertical: the vertical dimension, or None; levels: the values along it, one for none.
      sums: how slots add up to means over the store's steps (`emulator.ingestion.intervals`); None where they are such means.
    """

    pieces: Sequence[Piece]
    times: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    members: np.ndarray
    levels: np.ndarray
    has_member: bool
    vertical: str | None
    sums: Sums | None = None

    def part(self, slots: np.ndarray) -> "Term":
        """The same with only the pieces that some slots are read from, which is little to send to another process."""
        used = np.unique(self.owner[slots])
        used = used[used >= 0]
        renumber = np.full(len(self.pieces) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used))
        pieces = [self.pieces[n] for n in used]
        own = {"owner": renumber[self.owner[slots]], "place": self.place[slots]}
        if self.sums is not None:
            own["sums"] = self.sums.part(slots)
        return dataclasses.replace(self, pieces=pieces, times=self.times[slots], **own)

    def means(self, slots: np.ndarray, leads: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Means over the steps that end at slots and leads, by `sums`, as `read` gives values; NaN where there are none."""
        out = np.full((len(slots), len(leads), len(self.members), len(self.levels), *shape), np.nan, np.float32)
        used = self.sums.used(slots, leads)
        if not len(used):
            return out
        values = self.read(used, leads, shape)[:, 0] if self.sums.across else self.read(slots, used, shape)
        for row, slot in enumerate(slots):
            for column, lead in enumerate(leads):
                mean = self.sums.mean(values if self.sums.across else values[row], used, slot, lead)
                if mean is not None:
                    out[row, column] = mean
        return out

    def some_cells(self, slots: np.ndarray, leads: np.ndarray) -> np.ndarray:
        """Values of a few cells of the first level and member, `(slot, lead, cell)`, NaN where no piece has them."""
        out = None
        owner = self.owner[np.ix_(slots, leads)][:, :, 0, 0]
        for number in np.unique(owner[owner >= 0]):
            rows, columns = (np.unique(where) for where in np.nonzero(owner == number))
            place = self.place[np.ix_(slots[rows], leads[columns])]
            values = self.pieces[number].some_cells(place[:, 0, 0], place[0, :, 1])
            out = np.full((*owner.shape, values.shape[-1]), np.nan) if out is None else out
            out[np.ix_(rows, columns)] = values
        return np.full((*owner.shape, 0), np.nan) if out is None else out

    def read(self, slots: np.ndarray, leads: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Values at slots and leads, NaN where no piece has them: `(slot, lead, member, level, *shape)`, float32."""
        owner = self.owner[np.ix_(slots, leads)]
        if owner.size and (number := owner.flat[0]) >= 0 and (owner == number).all():
            piece = self.pieces[number]
            place = self.place[np.ix_(slots, leads)]
            values = piece.read(place[:, 0, 0], place[0, :, 1])
            if values.shape == (*owner.shape, *shape):  # all from one source: nothing to put together
                return values.astype(np.float32, copy=False)
        out = np.full((*owner.shape, *shape), np.nan, np.float32)
        for number in np.unique(owner[owner >= 0]):
            piece = self.pieces[number]
            rows, columns = (np.unique(where) for where in np.nonzero((owner == number).any(axis=(2, 3))))
            place = self.place[np.ix_(slots[rows], leads[columns])]
            values = piece.read(place[:, 0, 0], place[0, :, 1])
            member = np.searchsorted(self.members, piece.coordinates.get("member", self.members[:1]))
            level = places(self.levels, piece.coordinates.get(self.vertical, self.levels[:1]))
            out[np.ix_(rows, columns, member, level)] = values
        return out
