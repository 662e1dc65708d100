"""Spherical-harmonic transform of real fields, fast on CPU and free of complex numbers.

Fields are `(nlat, nlon, *channels)`, latitude from north to south. Coefficients are real numbers, `(lmax, lmax, 2,
*channels)`: degree l, order m >= 0, then real and imaginary part; they are zero for l < m. They are torch-harmonics':
orthonormal harmonics with the Condon-Shortley phase,

    f(theta, phi) = Re sum_lm (2 - [m = 0]) c_lm P_lm(cos theta) exp(i m phi).

Networks that stay on one grid keep cells and coefficients in the order of the kernels (`emulator.sphere.tables`):
`arrange` once, then `analyse` and `synthesise`, at last `restore`.
"""

import functools
import math
import weakref

import torch

from emulator.kernels import library
from emulator.kernels import transform as native
from emulator.kernels.layers import cells_to_maps, maps_to_cells
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid
from emulator.sphere.bands import BandProducts
from emulator.sphere.products import AnalysisBesides, Transform, to_cells, to_coefficients
from emulator.sphere.tables import (
    GRIDS,
    Plan,
    block_width,
    cell_order,
    coefficient_order,
    fourier_table,
    legendre_table,
    own_rows,
    truncation,
)
from emulator.sphere.winds import WindProducts, winds_to_cells, winds_to_coefficients


class _Reorder(torch.autograd.Function):
    """Rows of `x` at `index`; `inverse` takes gradients back, faster than index_select's own scatter."""

    @staticmethod
    def forward(ctx, x, index, inverse):
        ctx.save_for_backward(index, inverse)
        # a matrix is turned faster; gathering strided rows takes thrice as long
        rows = x.reshape(len(x), -1).contiguous()
        return rows.index_select(0, index).view(len(index), *x.shape[1:])

    @staticmethod
    def backward(ctx, gradient):
        index, inverse = ctx.saved_tensors
        return _Reorder.apply(gradient, inverse, index), None, None


_TABLES: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


def _shared(key, make, dtype, device):
    """One tensor for each table, type and device in the process, alive as long as a module uses it."""
    full = (*key, dtype, str(device))
    table = _TABLES.get(full)
    if table is None:
        with torch.device("cpu"):  # whatever the caller's default is: what is made on the way is kept for all devices
            table = make()
        table = table.to(device=device, dtype=dtype if table.is_floating_point() else None)
        _TABLES[full] = table
    return table


class _Tables(torch.nn.Module):
    """A transform between a grid and the triangular truncation of `lmax` degrees and orders.

    Its buffers are shared by all modules of the process, and made anew from float64 for every type and device.
    """

    kind = "scalar"

    def __init__(
        self,
        nlat: int,
        nlon: int,
        grid: str = "gaussian",
        poles: bool = False,
        lmax: int | None = None,
        space: Space = ALONE,
    ):
        super().__init__()
        if nlon < 4:
            raise ValueError(f"Expected at least 4 longitudes, got {nlon}")
        lmax = truncation(nlat, nlon, grid) if lmax is None else lmax
        if not 0 < lmax <= nlon // 2 + 1:
            raise ValueError(f"Expected between 1 and {nlon // 2 + 1} degrees for {nlon} longitudes, got {lmax}")
        self.nlat, self.nlon, self.grid, self.poles, self.lmax = nlat, nlon, grid, poles, lmax
        self._known = native.knows(nlon)
        self.plan = Plan(nlat, nlon, lmax, block_width(lmax), rank=space.rank, size=space.size)
        self.space, self._products = space, None if space.size == 1 else BandProducts(self.plan, space)
        self._recipes = {"fourier": ("fourier", functools.partial(fourier_table, self.plan))}
        for name, order in (("cell", cell_order), ("coefficient", coefficient_order)):
            for n, suffix in ((0, "index"), (1, "inverse")):
                self._recipes[f"{name}_{suffix}"] = (f"{name} {n}", functools.partial(_nth, order, self.plan, n))
        for name, analysis in (("analysis_table", True), ("synthesis_table", False)):
            make = functools.partial(legendre_table, (grid, poles), self.plan, self.kind, analysis)
            self._recipes[name] = (f"{self.kind} {analysis} {(grid, poles)}", make)
        self._link(torch.float32, torch.get_default_device())

    def _link(self, dtype, device):
        for name, (key, make) in self._recipes.items():
            self.register_buffer(name, _shared((key, self.plan), make, dtype, device), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if self.fourier.device.type != "meta":
            # half precision would cost 3e-4 (float16) to 2e-3 (bfloat16) of the field, so the tables stay in float32
            self._link(torch.promote_types(self.fourier.dtype, torch.float32), self.fourier.device)
        return self

    def __deepcopy__(self, memo):
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(self.__dict__)
        copied._buffers = dict(self._buffers)
        return copied

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the fields: those of the process's band."""
        return len(own_rows(self.plan)), self.nlon

    @property
    def band(self) -> slice:
        """The process's rows of the grid."""
        return self.space.band(self.nlat)

    def extra_repr(self) -> str:
        return f"{self.nlat} x {self.nlon}, {self.grid}, poles={self.poles}, lmax={self.lmax}"

    def arrange(self, field: torch.Tensor) -> torch.Tensor:
        """`(nlat, nlon, *channels)` -> cells in the kernels' order, `(cell, *channels)`."""
        _check_shape("a field", field, self.shape)
        return _Reorder.apply(field.flatten(0, 1), self.cell_index, self.cell_inverse)

    def restore(self, cells: torch.Tensor) -> torch.Tensor:
        """Inverse of `arrange`."""
        return _Reorder.apply(cells, self.cell_inverse, self.cell_index).unflatten(0, self.shape)

    def from_maps(self, maps: torch.Tensor) -> torch.Tensor:
        """`(batch, channel, nlat, nlon)` -> cells in the kernels' order, `(cell, batch, channel)`."""
        if library.alone(maps) and maps.is_contiguous():
            return maps_to_cells(maps, self.cell_inverse)
        return self.arrange(maps.permute(2, 3, 0, 1))

    def to_maps(self, cells: torch.Tensor) -> torch.Tensor:
        """Inverse of `from_maps`."""
        if library.alone(cells) and cells.is_contiguous():
            return cells_to_maps(cells, self.cell_inverse, self.shape)
        return self.restore(cells).permute(2, 3, 0, 1).contiguous()

    def pack(self, coefficients: torch.Tensor) -> torch.Tensor:
        """`(lmax, lmax, 2, *channels)` -> coefficients in the kernels' order, `(count, *channels)`."""
        _check_shape("coefficients", coefficients, (self.lmax, self.lmax, 2))
        if self._products:
            return coefficients.flatten(0, 2).index_select(0, self.coefficient_index)
        return _Reorder.apply(coefficients.flatten(0, 2), self.coefficient_index, self.coefficient_inverse)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Inverse of `pack`."""
        if self._products:
            dense = packed.new_zeros(2 * self.lmax**2, *packed.shape[1:]).index_copy(0, self.coefficient_index, packed)
        else:
            dense = _Reorder.apply(packed, self.coefficient_inverse, self.coefficient_index)
        return dense.unflatten(0, (self.lmax, self.lmax, 2))

    def analyse(self, cells: torch.Tensor) -> torch.Tensor:
        """`(cell, *channels)` -> `(count, *channels)`, both in the kernels' order."""
        return self._transform(cells, self.analysis_table)

    def analyse_besides(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`analyse`, and the cells for what else takes them in: gradients come back faster than from two uses of cells."""
        flat = cells.reshape(len(cells), -1)
        if flat.dtype != self.analysis_table.dtype or library.alone(flat):
            return self.analyse(cells), cells
        how = self.analysis_table, self.fourier, list(self.plan), self._products_for(cells)
        c, kept = AnalysisBesides.apply(flat.contiguous(), *how)
        return c.view(len(c), *cells.shape[1:]), kept.view(cells.shape)

    def synthesise(self, packed: torch.Tensor) -> torch.Tensor:
        """`(count, *channels)` -> `(cell, *channels)`, both in the kernels' order."""
        return self._transform(packed, self.synthesis_table, inverse=True)

    def _products_for(self, x):
        """What has the two products of `x`; None for those of `emulator.sphere.products`."""
        return self._products

    def _transform(self, x, table, inverse=False, plan=None):
        flat, plan = x.reshape(len(x), -1).to(table.dtype), plan or self.plan
        if self._products is None and library.alone(flat, table):
            y = self._alone(flat.contiguous(), table, plan, inverse, x.shape[-1])
        else:
            y = Transform.apply(flat, table, self.fourier, list(plan), inverse, self._products_for(x))
        return y.view(len(y), *x.shape[1:])

    def _alone(self, flat, table, plan, inverse, width):
        """`_transform` by kernels without torch's dispatch; `width` channels lie in the last axis."""
        return (to_cells if inverse else to_coefficients)(flat, table, self.fourier, plan)


class SphericalTransform(_Tables):
    """Transform of scalars between a grid and the triangular truncation of `lmax` degrees and orders.

    Args:
      nlat, nlon: rows and columns of the grid; columns without other primes than 2, 3 and 5 are fastest.
      grid: "gaussian" or "equiangular"; `poles`: whether an equiangular grid has rows at the poles.
      lmax: number of degrees, by default the most for which analysis inverts synthesis (`truncation`).
      space: the processes that hold a field together. Each gives and gets the rows of its band, and of coefficients those of
        its orders, where all others are zero. All call the same methods in the same order.
    Raises `ValueError` for an unknown grid, for a truncation that the longitudes cannot hold, and for more processes than
    rows or pairs of orders.
    """

    def analysis(self, field: torch.Tensor) -> torch.Tensor:
        """Coefficients `(lmax, lmax, 2, *channels)` of a field `(nlat, nlon, *channels)`.

        Compiled kernels read a field in its ordinary order as it is.
        """
        if not self._takes_natural():
            return self.unpack(self.analyse(self.arrange(field)))
        _check_shape("a field", field, self.shape)
        plan = self.plan._replace(natural=True)
        c = self._transform(field.flatten(0, 1), self.analysis_table, plan=plan)
        return c.unflatten(0, (self.lmax, self.lmax, 2))

    def synthesis(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Field `(nlat, nlon, *channels)` of coefficients `(lmax, lmax, 2, *channels)`."""
        if not self._takes_natural():
            return self.restore(self.synthesise(self.pack(coefficients)))
        _check_shape("coefficients", coefficients, (self.lmax, self.lmax, 2))
        plan = self.plan._replace(natural=True)
        field = self._transform(coefficients.flatten(0, 2), self.synthesis_table, True, plan)
        return field.unflatten(0, self.shape)

    def _takes_natural(self):
        return not self._products and self._known and library.takes(self.analysis_table)


class VectorTransform(_Tables):
    """Transform of winds: (u, v) <-> coefficients of the spheroidal and the toroidal part.

    On a sphere of radius a, divergence is -l (l + 1) / a times the spheroidal part and vorticity l (l + 1) / a times the
    toroidal part in torch-harmonics' basis, which `analysis` and `synthesis` have. In the kernels' order (`analyse`,
    `synthesise`) the coefficients are sqrt(l (l + 1)) times as large, those of orthonormal vector harmonics, so that no
    degree is louder than in the wind; channels are `(..., 2 * vectors)`, first the eastward components and the spheroidal
    coefficients, then the northward and the toroidal ones. Arguments as for `SphericalTransform`.
    """

    kind = "wind"

    def analysis(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spheroidal and toroidal coefficients, each `(lmax, lmax, 2, *channels)`, of eastward and northward wind."""
        wind = torch.stack([u, v], 2).flatten(2)
        c = self.unpack(self.analyse(self.arrange(wind))) / self._loudness(wind)
        return tuple(part.unflatten(-1, u.shape[2:]) if u.ndim > 2 else part[..., 0] for part in c.chunk(2, -1))

    def synthesis(self, spheroidal: torch.Tensor, toroidal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eastward and northward wind, each `(nlat, nlon, *channels)`, of the two parts' coefficients."""
        both = torch.stack([spheroidal, toroidal], 3).flatten(3)
        wind = self.restore(self.synthesise(self.pack(both * self._loudness(both))))
        shape = spheroidal.shape[3:]
        return tuple(part.unflatten(-1, shape) if shape else part[..., 0] for part in wind.chunk(2, -1))

    def _loudness(self, like):
        """sqrt(l (l + 1)) by degree, 1 for degree 0, `(lmax, 1, 1, 1)`."""
        l = torch.arange(self.lmax, dtype=like.dtype, device=like.device)
        return (l * (l + 1)).clamp(min=1).sqrt()[:, None, None, None]

    def _products_for(self, x):
        return WindProducts(x.shape[-1] // 2, self._products)

    def _alone(self, flat, table, plan, inverse, width):
        made = winds_to_cells if inverse else winds_to_coefficients
        return made(flat, table, self.fourier, plan, width // 2)


def _check_shape(what, x, expected):
    if tuple(x.shape[: len(expected)]) != expected:
        raise ValueError(f"Expected {what} of shape {(*expected, '*channels')}, got {tuple(x.shape)}")


def _nth(order, plan, n):
    return order(plan)[n]


def expect_transformable(grid: Grid) -> None:
    """Raises `ValueError` for a grid that is not global and Gaussian or equiangular."""
    if grid.kind not in GRIDS or not grid.is_global():
        raise ValueError(
            f"Expected a global Gaussian or equiangular grid to transform, got {grid.describe()}{grid.remedy}"
        )


def transform(grid: Grid, lmax: int | None = None, space: Space = ALONE) -> SphericalTransform:
    """The transform of fields on a grid, or the bands of it that processes hold, to `lmax` degrees or as many as it resolves.

    Raises `ValueError` for a grid that is not global and Gaussian or equiangular, and for too many degrees.
    """
    expect_transformable(grid)
    return SphericalTransform(*grid.shape, grid.kind, grid.has_poles, lmax, space)


def vector_transform(grid: Grid, lmax: int | None = None, space: Space = ALONE) -> VectorTransform:
    """The transform of winds on a grid, as `transform` of scalars."""
    expect_transformable(grid)
    return VectorTransform(*grid.shape, grid.kind, grid.has_poles, lmax, space)


def harmonics(transform: SphericalTransform, count: int) -> torch.Tensor:
    """Real harmonics (0, 0), (1, -1), (1, 0), ..., each scaled to a maximum of 1, `(cell, count)` in the kernels' order.

    Those beyond the transform's degrees are 0.
    """
    degrees = min(math.isqrt(count - 1) + 1, transform.lmax)
    if transform.space.size > 1:  # scaled by the maximum over the globe, which a transform of few degrees gives cheaply
        whole = SphericalTransform(transform.nlat, transform.nlon, transform.grid, transform.poles, degrees)
        whole = whole.to(transform.analysis_table)
        return transform.arrange(whole.restore(harmonics(whole, count))[transform.band])
    coefficients = torch.zeros(transform.lmax, transform.lmax, 2, count)
    for n in range(min(count, degrees**2)):
        degree = math.isqrt(n)
        order = n - degree**2 - degree
        coefficients[degree, abs(order), int(order < 0), n] = 1
    cells = transform.synthesise(transform.pack(coefficients))
    return cells / cells.abs().amax(0).clamp(min=1e-6)


def to_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """`(l, m, 2, *channels)` real -> `(*channels, l, m)` complex, torch-harmonics' layout."""
    return torch.view_as_complex(coefficients.movedim((0, 1, 2), (-3, -2, -1)).contiguous())
