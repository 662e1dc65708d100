"""The random fields that a stochastic network is given at every step.

Every field is drawn from a sequence of random numbers of its own, named by what it is for: the seed, the initial time (or
the update and the place in its batch), the member and the step. So it is the same whatever is computed beside it, in which
process and after which restart, and a training or a forecast that goes on needs no state of a generator. Noise that is
correlated in time is a first-order autoregression over the steps' fields, begun at the first step; where a forecast goes on,
the steps before are drawn again.
"""

import copy
import threading
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from emulator.parallel.space import ALONE, Space
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import as_coefficients, degrees_on, number_of, of_length, sizes
from emulator.sphere.transform import transform, vector_transform

Key = tuple[int, ...]
HELD_BYTES = 256 << 20
NEGLIGIBLE = 1e-10  # share of the variance beyond the degrees that are drawn
# The last number of a key tells what it is for. (A key must not end in 0: numpy pads keys with zeros.)
FORECAST, UPDATE = 5, 6


def forecast_key(seed: int, time, member: int, step: int) -> Key:
    """Of the `step`-th step, counted from 1, of one member of the forecast from `time`."""
    return seed, number_of(time), member, step, FORECAST


def update_key(seed: int, update: int, place: int, member: int, step: int) -> Key:
    """Of a step, counted from 1, of one member of the sample at a place in the whole batch of an update of the training."""
    return seed, update, place, member, step, UPDATE


class Seeds:
    """Whole numbers in place of fields, from which a network draws what it leaves out of itself at random.

    Attributes:
      count: random fields, none. numbers: of every key.
    """

    count, numbers = 0, 3

    def rows(self, keys: Iterable[Key], amplitude: float = 1.0) -> Tensor:
        """Of several keys, `(row, numbers)` int64 of at least 0. Raises `ValueError` as `check_amplitude`."""
        self.check_amplitude(amplitude)
        drawn = [np.random.SeedSequence(key).generate_state(self.numbers, np.uint64) >> 1 for key in keys]
        return torch.from_numpy(np.stack(drawn).astype(np.int64))

    @staticmethod
    def check_amplitude(amplitude: float) -> None:
        """Raises `ValueError` for another amplitude than 1."""
        if amplitude != 1:
            raise ValueError(
                f"Expected ensemble.noise_amplitude 1 for members that differ by what a network leaves out, got {amplitude:g}"
            )


class NetworkNoise:
    """Gaussian random fields of unit variance and several length scales.

    Args:
      grid: global, Gaussian or equal-angle.
      length_scales: in km along the Earth's surface, where the correlation has fallen to exp(-1/2); 0 is white noise.
      channels: independent fields of every length scale.
      correlation: of one step's fields with the step's before, at least 0 and below 1.
      space: the processes that hold a state together. Each draws whole fields, which are so the same whatever their number,
        and keeps its rows.
      style: fields beside these that are one number everywhere; the others are the same with and without.
      winds: positions of the eastward and the northward component of vectors, both of one length scale. Their numbers are
        coefficients of the vector's spheroidal and toroidal part in orthonormal vector harmonics, with the spectrum of the
        length scale from degree 1 on. So every component has unit variance everywhere, and a vector is smooth at the poles.
    Raises `ValueError` for another grid, for a length that is negative, and for another correlation.

    Attributes:
      power: as it was given to `colour`, float64, else None.
    """

    def __init__(
        self,
        grid: Grid,
        length_scales: Sequence[float],
        channels: int,
        correlation: float = 0.0,
        space: Space = ALONE,
        style: int = 0,
        winds: Sequence[tuple[int, int]] = (),
    ):
        if not 0 <= correlation < 1:
            raise ValueError(f"Expected a correlation between steps of at least 0 and below 1, got {correlation}")
        if min(length_scales, default=-1.0) < 0 or channels < 1:
            raise ValueError(
                f"Expected length scales of at least 0 and at least one channel, got {list(length_scales)} and {channels}"
            )
        lengths = [1e3 * length / ERA5.earth_radius for length in length_scales]
        lowest = [0, 1] if winds else [0]
        power = np.stack([[of_length(degrees_on(grid), length, low) for length in lengths] for low in lowest])
        beyond = 1 - power.cumsum(-1).min((0, 1))  # of the shortest length, whose spectrum reaches furthest
        needed = min(int((beyond > NEGLIGIBLE).sum()) + 1, power.shape[-1])
        share = power[..., :needed] / power[..., :needed].sum(-1, keepdims=True)
        numbers = np.eye(1, needed).repeat(style, 0)  # all variance in degree 0
        fields = [np.concatenate([each.repeat(channels, 0), numbers]) for each in share]
        self._winds = [n for side in zip(*winds, strict=True) for n in side]  # first all eastward, then all northward
        fields[0][self._winds] = fields[-1][self._winds]
        self.count, self.channels, self.style = len(lengths) * channels + style, channels, style
        self.correlation, self.power = correlation, None
        self._numbered, self._kept = self.count, slice(None)  # of so many fields' numbers the kept ones
        self._held: dict[Key, tuple[int, np.ndarray]] = {}  # the last steps that were drawn, oldest use first
        self._lock = threading.Lock()
        self._size = sizes(fields[0]).astype(np.float32)
        self._transform, self._space, self._shape = transform(grid, needed), space, grid.shape
        self._of_winds = vector_transform(grid, needed) if winds else None

    def colour(self, power: Tensor) -> None:
        """Give fields spectra of their own; those that were `picked` from the first on have them too.

        With a length of 0 they may have all degrees.

        `power`: by total wavenumber `(field, degree)`, of any sum, for so many fields, as many after them, and so on. One
        without any power stays white. Raises `ValueError` for other degrees than are drawn.
        """
        fields, degrees = power.shape
        if degrees != self._size.shape[1]:
            raise ValueError(f"Expected spectra of the {self._size.shape[1]} degrees that are drawn, got {degrees}")
        power = power.double().cpu().numpy()
        white = np.tile(of_length(degrees, 0.0), (fields, 1))
        share = np.where(power.sum(-1, keepdims=True) > 0, power, white)
        size = sizes(share / share.sum(-1, keepdims=True))
        for begin in range(0, self.count - fields + 1, fields):
            self._size[begin : begin + fields] = size
        self.power = power

    def picked(self, fields: Sequence[int]) -> "NetworkNoise":
        """The noise of some fields alone, by increasing positions and of winds both, bit for bit the same at every step.

        All random numbers before the last of them are drawn, which its bits come after; of others nothing is made.
        """
        fewer, fields = copy.copy(self), list(fields)
        fewer.count, fewer.style = len(fields), sum(n >= self.count - self.style for n in fields)
        fewer._kept = np.arange(self._numbered)[self._kept][fields]
        first = slice(len(fields)) if fields == [*range(len(fields))] else fields  # of the first a view, for `colour`
        fewer._numbered, fewer._size = int(fewer._kept[-1]) + 1, self._size[first]
        fewer._winds = [fields.index(n) for n in self._winds if n in fields]
        fewer._held, fewer._lock = {}, threading.Lock()
        return fewer

    def draw(self, key: Key) -> Tensor:
        """The fields of a key, `(count, own rows, nlon)` float32: all of the first length scale, the next, then the style."""
        values = self._since_the_first_step(key) if self.correlation else self._fresh(key)
        return self._space.cut(self._synthesised(as_coefficients(values)))

    def _synthesised(self, coefficients: Tensor) -> Tensor:
        """The fields `(field, nlat, nlon)` of coefficients `(l, m, 2, field)`."""
        if not self._winds:
            return self._transform.synthesis(coefficients).movedim(-1, 0).contiguous()
        scalars, vectors = sorted({*range(self.count)} - {*self._winds}), self._of_winds
        fields = coefficients.new_empty(self.count, *self._shape)
        if scalars:
            fields[scalars] = self._transform.synthesis(coefficients[..., scalars]).movedim(-1, 0)
        components = vectors.restore(vectors.synthesise(vectors.pack(coefficients[..., self._winds])))
        fields[self._winds] = components.movedim(-1, 0)
        return fields

    def _fresh(self, key: Key) -> np.ndarray:
        numbers = np.random.default_rng(key).standard_normal((self._numbered, *self._size.shape[1:]), np.float32)
        return numbers[self._kept] * self._size

    def _since_the_first_step(self, key: Key) -> np.ndarray:
        *front, step, purpose = key
        name, rest = (*front, purpose), np.float32((1 - self.correlation**2) ** 0.5)
        with self._lock:  # a loader's thread and a validation may ask at the same time
            at, values = self._held.pop(name, (0, None))
            if at > step:
                at, values = 0, None
            for number in range(at + 1, step + 1):
                new = self._fresh((*front, number, purpose))
                values = new if number == 1 else np.float32(self.correlation) * values + rest * new
            self._held[name] = step, values
            while len(self._held) > 1 and len(self._held) * values.nbytes > HELD_BYTES:
                del self._held[next(iter(self._held))]
        return values

    def rows(self, keys: Iterable[Key], amplitude: float = 1.0) -> Tensor:
        """Fields of several keys, `(row, count, nlat, nlon)`; each made alone, so that its bits depend on its key only.

        `amplitude`: factor of all but the style; the network of 0 is the one without noise.
        """
        drawn = torch.stack([self.draw(key) for key in keys])
        if amplitude != 1:
            drawn[:, : self.count - self.style] *= amplitude
        return drawn

    def none(self, rows: int, steps: int) -> Tensor:
        """No noise for several rows and steps, `(row, step, count, own rows, nlon)` of zeros."""
        return self._space.cut(torch.zeros(1).expand(rows, steps, self.count, *self._shape))
