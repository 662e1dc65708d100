"""One term of a field on the axes of its sources: which piece holds each slot, and how slots are read."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from emulator.ingestion.vertical import places
from emulator.sources.piece import Piece


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """The pieces of a field, or of one term of it, on the axes of the sources.

    Attributes:
      pieces: what slots are read from.
      times: `(slot,)`, increasing; leads: `(lead,)` or one None.
      owner: which piece holds a slot, -1 for none: `(slot, lead, member, level)`.
      place: position of a slot along time and lead in its piece: `(slot, lead, 2)`.
      vertical: the vertical dimension, or None; levels: the values along it, one for none.
    """

    pieces: Sequence[Piece]
    times: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    members: np.ndarray
    levels: np.ndarray
    has_member: bool
    vertical: str | None

    def part(self, slots: np.ndarray) -> "Term":
        """The same with only the pieces that some slots are read from, which is little to send to another process."""
        used = np.unique(self.owner[slots])
        used = used[used >= 0]
        renumber = np.full(len(self.pieces) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used))
        pieces = [self.pieces[n] for n in used]
        return dataclasses.replace(
            self, pieces=pieces, times=self.times[slots], owner=renumber[self.owner[slots]], place=self.place[slots]
        )

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
