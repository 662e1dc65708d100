"""The static covariance of background errors, `B = L L^T`, of spectral correlations, vertical modes and balance.

`L` takes independent numbers of unit variance to an increment in four steps: vertical modes of every total wavenumber, whose
sizes are the correlations in the horizontal and the vertical (not separable: broad scales are deep); spherical harmonics;
standard deviations that vary with latitude; and balance (`emulator.assimilation.balance`). All are estimated from samples of
background errors such as differences of forecasts (`emulator.assimilation.differences`), in float64.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.assimilation.balance import Groups, coriolis, regression
from emulator.data.channels import Channels
from emulator.files.whole_file import write_netcdf
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform, VectorTransform, expect_transformable

SCHEMA = "background-covariance-1"
LEAST_DEVIATION = 1e-3  # of the mean over latitudes: a place where samples never differ would have no increment at all


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """What the covariance is made of, float64.

    Attributes:
      wind: roots of the covariances of the toroidal and of the spheroidal coefficients between levels by degree,
        `(2, degree, level, mode)`; of no levels where the state lacks winds.
      scalar: the same of all other channels, normalised, group by group in the order of `Groups.scalars`,
        `(degree, channel, mode)` each.
      deviation: standard deviations of these, `(channel, nlat)` each.
      balance: of the mass channels on the rotational wind, `(mass, level)`.
    """

    wind: Tensor
    scalar: tuple[Tensor, ...]
    deviation: tuple[Tensor, ...]
    balance: Tensor


class SpectralCovariance:
    """See the file's docstring; fulfils `emulator.assimilation.window.Covariance`.

    Args:
      grid: global, Gaussian or equiangular. channels: of the state.
      tables: of that grid and these channels. scale: factor of the standard deviations.
    Raises `ValueError` for another grid.
    """

    def __init__(self, grid: Grid, channels: Channels, tables: Tables, scale: float = 1.0):
        expect_transformable(grid)
        self.grid, self.channels, self.tables, self.scale = grid, channels, tables, scale
        self.groups = Groups.of(channels)
        self.degrees = (tables.scalar[0] if tables.scalar else tables.wind[0]).shape[0]
        shape = (*grid.shape, grid.kind, grid.has_poles, self.degrees)
        self._scalars, self._winds = SphericalTransform(*shape).double(), VectorTransform(*shape).double()
        self._place, self._size = places(self.degrees)
        self._modes = [
            *(2 * [tables.wind.shape[-1]] if self.groups.winds else []),
            *(t.shape[-1] for t in tables.scalar),
        ]
        self._coriolis = coriolis(grid.latitude)

    @property
    def size(self) -> int:
        return sum(self._modes) * self.degrees**2

    def __call__(self, control: Tensor) -> Tensor:
        """`L v`, `(batch, size)` to `(batch, channel, nlat, nlon)`, float64."""
        parts = list(control.view(len(control), sum(self._modes), -1).split(self._modes, 1))
        rotation, fields = None, [None] * self.channels.count
        if self.groups.winds:
            rotation, divergence = (self._coefficients(parts.pop(0), root) for root in self.tables.wind)
            winds = self._winds.synthesis(divergence, rotation)
            for where, wind in zip(self.groups.winds, winds, strict=True):
                fields[where] = self._maps(wind).unbind(1)
        tables = self.tables.scalar, self.tables.deviation
        for channels, part, root, deviation in zip(self.groups.scalars, parts, *tables, strict=True):
            maps = self._maps(self._scalars.synthesis(self._coefficients(part, root))) * deviation[:, :, None]
            if channels == self.groups.mass and rotation is not None:
                maps = maps + self._balanced(rotation)
            for channel, field in zip(channels, maps.unbind(1), strict=True):
                fields[channel] = field
        return self.scale * torch.stack(fields, 1)

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """So many independent increments with this covariance, `(count, channel, nlat, nlon)` float64."""
        return self(torch.from_numpy(generator.standard_normal((count, self.size))))

    def _coefficients(self, part: Tensor, root: Tensor) -> Tensor:
        """`(batch, mode, degree^2)` of unit variance to `(l, m, 2, batch, channel)` with the covariance of `root`."""
        degrees = self.degrees
        full = part.new_zeros(2 * degrees**2, *part.shape[:2])
        full = full.index_copy(0, self._place, part.movedim(-1, 0) * self._size[:, None, None])
        return torch.einsum("lmpbj,lij->lmpbi", full.view(degrees, degrees, 2, *part.shape[:2]), root)

    def _maps(self, cells: Tensor) -> Tensor:
        return cells.movedim((2, 3), (0, 1))

    def _balanced(self, rotation: Tensor) -> Tensor:
        """What the rotational wind explains of the mass, `(batch, mass, nlat, nlon)`."""
        return torch.einsum("ij,bjxy->bixy", self.tables.balance, self.predictor(rotation))

    def predictor(self, rotation: Tensor) -> Tensor:
        """`sin(latitude) psi` of toroidal coefficients `(l, m, 2, batch, level)` is `(batch, level, nlat, nlon)`."""
        return self._maps(self._scalars.synthesis(rotation)) * self._coriolis

    def save(self, path: Path, attributes: Mapping[str, str] | None = None) -> None:
        """Writes the tables, without `scale`, as one NetCDF file."""
        groups = range(len(self.tables.scalar))
        values = {"wind": (("part", "degree", "wind_level", "wind_mode"), self.tables.wind.numpy())}
        values["balance"] = (("mass", "balance_level"), self.tables.balance.numpy())
        for k in groups:
            values[f"scalar_{k}"] = (("degree", f"channel_{k}", f"mode_{k}"), self.tables.scalar[k].numpy())
            values[f"deviation_{k}"] = ((f"channel_{k}", "latitude"), self.tables.deviation[k].numpy())
        told = {"schema": SCHEMA, "channels": json.dumps(dataclasses.asdict(self.channels)), "groups": len(groups)}
        at = {"latitude": self.grid.latitude, "longitude": self.grid.longitude}
        write_netcdf(xr.Dataset(values, at, {**told, **(attributes or {})}), path)

    @classmethod
    def load(cls, path: Path, grid: Grid, channels: Channels, scale: float = 1.0) -> "SpectralCovariance":
        """Raises `ValueError` for a file of something else, of another grid or of other channels."""
        with _opened(path) as opened:
            saved = opened.load()
        other = Channels(*(tuple(part) for part in json.loads(saved.attrs["channels"]).values()))
        at = Grid.from_coordinates(saved["latitude"].values, saved["longitude"].values)
        if other != channels or not at.same_as(grid):
            raise ValueError(
                f"Expected a covariance of {', '.join(channels.names)} on {grid.describe()}, {path} has "
                f"{', '.join(other.names)} on {at.describe()}"
            )
        groups = range(int(saved.attrs["groups"]))
        tensors = {name: torch.from_numpy(saved[name].values) for name in saved.data_vars}
        lists = (tuple(tensors[f"{name}_{k}"] for k in groups) for name in ("scalar", "deviation"))
        return cls(grid, channels, Tables(tensors["wind"], *lists, tensors["balance"]), scale)


def fingerprint_of(path: Path) -> str | None:
    """What `save` was told of what decides the covariance of a file. Raises `ValueError` for a file of something else."""
    with _opened(path) as saved:
        return saved.attrs.get("fingerprint")


def _opened(path: Path) -> xr.Dataset:
    try:
        saved = xr.open_dataset(path, engine="netcdf4")
    except (OSError, ValueError):
        raise ValueError(f"Expected a covariance of background errors at {path}, got no NetCDF") from None
    if saved.attrs.get("schema") != SCHEMA:
        saved.close()
        raise ValueError(f"Expected a covariance of background errors at {path}, got another file")
    return saved


def estimated(
    grid: Grid, channels: Channels, samples: Tensor, degrees: int | None = None, modes: int | None = None
) -> SpectralCovariance:
    """The covariance that samples of background errors have.

    Args:
      samples: `(sample, channel, nlat, nlon)`, their mean over the samples taken off.
      degrees: truncation; None: all that the grid resolves. modes: leading vertical modes kept of each group; None: all.
    Raises `ValueError` for fewer than two samples, values that are not finite, and a grid that cannot be transformed.
    """
    expect_transformable(grid)
    if len(samples) < 2 or not bool(torch.isfinite(samples).all()):
        raise ValueError(f"Expected at least two samples of finite background errors, got {len(samples)}")
    groups, samples = Groups.of(channels), samples.double()
    shape = (*grid.shape, grid.kind, grid.has_poles, degrees)
    scalars, winds = SphericalTransform(*shape).double(), VectorTransform(*shape).double()
    wind, balance = torch.zeros(2, scalars.lmax, 0, 0, dtype=torch.float64), torch.zeros(len(groups.mass), 0).double()
    explained = None
    if groups.winds:
        u, v = (samples[:, where].movedim((2, 3), (0, 1)) for where in groups.winds)
        divergence, rotation = winds.analysis(u, v)
        wind = torch.stack([root_of(rotation, modes), root_of(divergence, modes)])
        predictor = scalars.synthesis(rotation).movedim((2, 3), (0, 1)) * coriolis(grid.latitude)
        mass = samples[:, list(groups.mass)]
        balance = regression(mass, predictor, torch.as_tensor(grid.area))
        explained = torch.einsum("ij,sjxy->sixy", balance, predictor)
    roots, deviations = [], []
    for chosen in groups.scalars:
        fields = samples[:, list(chosen)]
        fields = fields - explained if chosen == groups.mass and explained is not None else fields
        fields = scalars.synthesis(scalars.analysis(fields.movedim((2, 3), (0, 1)))).movedim((0, 1), (2, 3))
        deviation = fields.square().mean((0, 3)).sqrt()  # of what the truncation keeps, which is all that L can make
        deviation = deviation.clamp(min=LEAST_DEVIATION * deviation.mean(1, keepdim=True)).clamp(min=1e-30)
        coefficients = scalars.analysis((fields / deviation[:, :, None]).movedim((2, 3), (0, 1)))
        roots.append(root_of(coefficients, modes))
        deviations.append(deviation)
    return SpectralCovariance(grid, channels, Tables(wind, tuple(roots), tuple(deviations), balance))


def root_of(coefficients: Tensor, modes: int | None = None) -> Tensor:
    """Roots A of the covariances between channels by degree, `A A^T`, `(degree, channel, mode)`, leading modes first.

    `coefficients`: `(l, m, 2, sample, channel)` of real fields that are alike in all directions: orders count alike.
    """
    degrees, samples = len(coefficients), coefficients.shape[3]
    orders = torch.full((degrees, 1, 1, 1), 2.0, dtype=coefficients.dtype)
    orders[0] = 1.0
    number = samples * (2 * torch.arange(degrees, dtype=coefficients.dtype) + 1)
    products = torch.einsum("lmpsi,lmpsj->lij", coefficients * orders, coefficients) / number[:, None, None]
    values, vectors = torch.linalg.eigh(products)
    return (vectors * values.clamp(min=0).sqrt()[:, None]).flip(-1)[:, :, :modes].contiguous()


def places(degrees: int) -> tuple[Tensor, Tensor]:
    """Where independent numbers stand among flat coefficients `(l, m, 2)`, and their standard deviations: `(degree^2,)` each.

    Real and imaginary part share the variance of orders above 0.
    """
    l, m, part = np.meshgrid(np.arange(degrees), np.arange(degrees), np.arange(2), indexing="ij")
    there = (m <= l) & ((m > 0) | (part == 0))
    size = np.where(m > 0, np.sqrt(0.5), 1.0)
    return torch.from_numpy(np.flatnonzero(there)), torch.from_numpy(size[there])
