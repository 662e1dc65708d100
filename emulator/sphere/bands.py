"""The products of the spherical transform where several processes hold a state together, each a band of its rows.

Each transforms its own rows along longitude, all to all exchange rows of all orders for all rows of their orders, and each
sums over latitude for its own orders (`emulator.sphere.tables` says which). Backwards it is the transpose. A process sends
`2 nlat lmax C (P - 1) / P^2` numbers of C channels in one exchange of P - 1 messages per transform, whichever way.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch

from emulator.kernels import transform as native
from emulator.parallel.space import Space
from emulator.sphere.products import sums_over_degrees, sums_over_rows
from emulator.sphere.tables import Plan, own_rows


class Fold(NamedTuple):
    """Rows of the hemisphere, and where they and their mirror images come from: the process, and its rows.

    No mirror images: the equator.
    """

    half: slice
    north: tuple[int, slice]
    south: tuple[int, slice] | None


@functools.lru_cache(maxsize=32)
def folds(plan: Plan) -> tuple[Fold, ...]:
    """All rows of the hemisphere, as long as rows and mirror images come from one process each."""
    rows = [own_rows(plan._replace(rank=rank)) for rank in range(plan.size)]
    starts = [0, *itertools.accumulate(len(own) for own in rows)]
    where = {start + row: (rank, n) for rank, start in enumerate(starts[:-1]) for n, row in enumerate(rows[rank])}
    equator = plan.nlat % 2
    found = [Fold(slice(0, 1), _run(where[plan.nlat // 2], 1), None)] if equator else []
    pairs = [(where[row], where[plan.nlat - 1 - row]) for row in range(plan.nlat // 2)]
    place = equator
    for _, run in itertools.groupby(pairs, lambda pair: (pair[0][0], pair[1][0])):
        run = list(run)
        north, south = run[0]
        found.append(Fold(slice(place, place + len(run)), _run(north, len(run)), _run(south, len(run))))
        place += len(run)
    return tuple(found)


@functools.lru_cache(maxsize=64)
def row_places(plan: Plan, channels: int) -> native.RowPlaces:
    """Where the rows lie that a process gets of all, as the compiled kernels read them."""
    rows = np.array([len(own_rows(plan._replace(rank=rank))) for rank in range(plan.size)]) * channels
    orders = sum(stop - start for start, stop in plan.bounds)
    starts = 2 * orders * (np.cumsum(rows) - rows)
    places = np.full((4, plan.half), -1)
    for fold in folds(plan._replace(rank=0)):
        for n, side in enumerate(fold[1:]):
            if side is not None:
                process, own = side
                places[n, fold.half] = starts[process] + np.arange(own.start, own.stop) * channels
                places[n + 2, fold.half] = rows[process]
    return native.RowPlaces(*places)


def _run(first, count):
    process, row = first
    return process, slice(row, row + count)


class BandProducts:
    """`to_coefficients` and `to_cells` of `emulator.sphere.products` for the rows and orders of a process.

    Raises `ValueError` where there are not enough rows or orders for all processes.
    """

    def __init__(self, plan: Plan, space: Space):
        space.bounds(plan.nlat)
        if (least := 2 * space.size - 1) > plan.lmax:
            raise ValueError(f"Expected at least {least} degrees for {space.size} processes, got {plan.lmax}")
        plans = [plan._replace(rank=rank) for rank in range(space.size)]
        self.space = space
        self.rows = [len(own_rows(each)) for each in plans]
        self.orders = [sum(stop - start for start, stop in each.bounds) for each in plans]
        # orders as they are sent, process by process
        self.sent = [bounds for each in plans for bounds in each.bounds]
        places = {order: n for n, order in enumerate(itertools.chain(*(range(*bounds) for bounds in self.sent)))}
        self.places = tuple(places[order] for order in range(plan.lmax))
        self.folds = folds(plan._replace(rank=0))

    def to_coefficients(self, x, legendre, fourier, plan):
        """`(nlon * own rows, C)` cells -> `(count, C)` coefficients of the own orders; all contiguous."""
        plan = Plan(*plan)
        x = x.view(plan.nlon, -1, x.shape[1])
        flat = self._to_orders(self._row_spectra(x, plan))
        if not native.serves(flat, plan.nlon):
            return sums_over_rows(self._folded(flat, plan), legendre, plan)
        c = flat.new_empty(plan.count, x.shape[2])
        self._sum(c, flat, legendre, plan, backward=False)
        return c

    def to_cells(self, c, legendre, fourier, plan, onto=None):
        """Transpose of `to_coefficients`, added to cells `onto`."""
        plan = Plan(*plan)  # each step's argument is freed after it: of three such tensors two are there at a time
        spectrum = self._to_rows(self._sums(c, legendre, plan))
        return self._from_row_spectra(spectrum, plan, onto).flatten(0, 1)

    def to_spectra(self, x, plan):
        """Of cells, for each parity of degree, `(2, own order, row, C)` of all processes' rows."""
        flat = self._to_orders(self._row_spectra(x.view(plan.nlon, -1, x.shape[1]), plan))
        return self._folded(flat, plan)

    def from_spectra(self, spectra, plan, onto=None):
        """Transpose of `to_spectra`, added to cells `onto`."""
        return self._from_row_spectra(self._to_rows(self._unfolded(spectra, plan)), plan, onto).flatten(0, 1)

    def _sums(self, c, legendre, plan):
        """Sums over the degrees of the own orders, as `_to_rows` takes them."""
        if native.serves(c, plan.nlon):
            flat = c.new_empty(self.orders[plan.rank] * 2 * plan.nlat * c.shape[1])
            self._sum(c, flat, legendre, plan, backward=True)
            return flat
        spectra = [c.new_empty(2, self.orders[plan.rank], plan.half, c.shape[1]) for _ in (0, 1)]
        sums_over_degrees(c, spectra, legendre, plan)
        return self._unfolded(spectra, plan)

    def _sum(self, c, flat, legendre, plan, backward):
        places = row_places(plan, c.shape[1])
        native.legendre_of_rows(c, flat, legendre, places, plan.lmax, plan.bounds, backward)

    def _to_orders(self, spectrum):
        """`(order, 2, own row, C)` of all orders, as they are sent -> `(own order, 2, row, C)` of each process, flat."""
        rank = self.space.rank
        rows, channels = spectrum.shape[2:]
        sent = [orders * 2 * rows * channels for orders in self.orders]
        received = [self.orders[rank] * 2 * rows * channels for rows in self.rows]
        return self.space.exchanged(spectrum.flatten(), sent, received)

    def _to_rows(self, flat):
        """Transpose of `_to_orders`."""
        rank = self.space.rank
        channels = len(flat) // (2 * self.orders[rank] * sum(self.rows))
        sent = [self.orders[rank] * 2 * rows * channels for rows in self.rows]
        received = [orders * 2 * self.rows[rank] * channels for orders in self.orders]
        return self.space.exchanged(flat, sent, received).view(-1, 2, self.rows[rank], channels)

    def _row_spectra(self, x, plan):
        """`(nlon, own row, C)` -> `(order, 2, own row, C)` in the order in which they are sent."""
        out = x.new_empty(plan.lmax, 2, *x.shape[1:])
        if native.serves(x, plan.nlon):
            native.fourier_of_rows(x, out, self.places, backward=False)
            return out
        values = torch.view_as_real(torch.fft.rfft(x, dim=0)[: plan.lmax]).movedim(-1, 1)
        for (start, stop), target in zip(self.sent, out.split([b - a for a, b in self.sent]), strict=True):
            target.copy_(values[start:stop])
        return out

    def _from_row_spectra(self, spectrum, plan, onto):
        """Transpose of `_row_spectra`, added to cells `onto`."""
        if native.serves(spectrum, plan.nlon):
            x = spectrum.new_empty(plan.nlon, *spectrum.shape[2:])
            native.fourier_of_rows(x, spectrum, self.places, backward=True, onto=onto)
            return x
        full = spectrum.new_zeros(plan.nlon // 2 + 1, *spectrum.shape[2:], 2)
        for (start, stop), part in zip(self.sent, spectrum.split([b - a for a, b in self.sent]), strict=True):
            full[start:stop] = part.movedim(1, -1)
        full[1 : (plan.nlon + 1) // 2] *= 0.5  # as irfft adds the conjugates of these
        x = torch.fft.irfft(torch.view_as_complex(full), n=plan.nlon, dim=0, norm="forward")
        return x if onto is None else x.add_(onto.view(x.shape))

    def _parts(self, flat, plan):
        """Views `(own order, 2, row, C)` of each process's rows."""
        orders = self.orders[plan.rank]
        sizes = [rows * len(flat) // plan.nlat for rows in self.rows]
        return [part.view(orders, 2, rows, -1) for part, rows in zip(flat.split(sizes), self.rows, strict=True)]

    def _folded(self, flat, plan):
        """Sums and differences of the hemispheres, `(2, own order, row, C)` for each parity of degree."""
        parts = self._parts(flat, plan)
        orders, channels = len(parts[0]), parts[0].shape[3]
        spectra = [parts[0].new_empty(2, orders, plan.half, channels) for _ in (0, 1)]
        for fold in self.folds:
            north, south = (None if side is None else _rows(parts, side) for side in fold[1:])
            for a, same, other in _parities(spectra, fold.half):
                if south is None:
                    same.copy_(north[a::2])
                    other.zero_()
                else:
                    torch.add(north[a::2], south[a::2], out=same)
                    torch.sub(north[a::2], south[a::2], out=other)
        return spectra

    def _unfolded(self, spectra, plan):
        """Transpose of `_folded`."""
        _, orders, _, channels = spectra[0].shape
        flat = spectra[0].new_empty(orders * 2 * plan.nlat * channels)
        parts = self._parts(flat, plan)
        for fold in self.folds:
            north, south = (None if side is None else _rows(parts, side) for side in fold[1:])
            for a, same, other in _parities(spectra, fold.half):
                if south is None:
                    north[a::2] = same
                else:
                    torch.add(same, other, out=north[a::2])
                    torch.sub(same, other, out=south[a::2])
        return flat


def _rows(parts, side):
    process, rows = side
    return parts[process][:, :, rows]


def _parities(spectra, rows):
    """For each parity of the order where its sums and its differences lie, `(order, 2, row, C)`.

    Blocks begin with an even order, so that the parity of an order is that of its place.
    """
    for a in (0, 1):
        yield a, *(spectra[(a + p) % 2].transpose(0, 1)[a::2, :, rows] for p in (0, 1))
