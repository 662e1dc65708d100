"""Spherical-harmonic transform of real fields, fast on CPU and free of complex numbers.

Fields are `(nlat, nlon, *channels)`, latitude from north to south. Coefficients are real numbers, `(lmax, lmax, 2,
*channels)`: degree l, order m >= 0, then real and imaginary part; they are zero for l < m. They are torch-harmonics':
orthonormal harmonics with the Condon-Shortley phase,

    f(theta, phi) = Re sum_lm (2 - [m = 0]) c_lm P_lm(cos theta) exp(i m phi).

Networks that stay on one grid keep cells and coefficients in the order of `emulator.sphere.products`, in which every
step of the transform works on contiguous memory: `arrange` once, then `analyse` and `synthesise`, at last `restore`.
Tables and quadrature are made in float64 with torch-harmonics (Bonev et al. 2023), the oracle of the tests.
"""

import functools
import math
import weakref

import torch
from torch_harmonics.legendre import dlegpoly, legpoly
from torch_harmonics.quadrature import precompute_latitudes

from emulator.kernels import library
from emulator.kernels import transform as native
from emulator.sphere.products import AnalysisBesides, Plan, Transform, longitude_order

GRIDS = ("gaussian", "equiangular")


def latitudes(nlat: int, grid: str = "gaussian", poles: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Colatitudes in radians, north to south, and quadrature weights over cos(colatitude) summing to 2: `(nlat,)` float64.

    Gauss-Legendre (exact to degree 2 nlat - 1), Clenshaw-Curtis on an equiangular grid with poles and Fejer's first rule
    on one without (both exact to degree nlat - 1; Waldvogel 2006). Raises `ValueError` for another grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"Expected a grid among {GRIDS}, got {grid!r}")
    if nlat < 2:
        raise ValueError(f"Expected at least 2 latitudes, got {nlat}")
    if grid == "gaussian":
        return precompute_latitudes(nlat, grid="legendre-gauss")
    if poles:
        return precompute_latitudes(nlat, grid="equiangular")
    theta = (torch.arange(nlat, dtype=torch.float64) + 0.5) * (math.pi / nlat)
    j = torch.arange(1, nlat // 2 + 1, dtype=torch.float64)
    # the last cosine of an even rule vanishes on the nodes, so its factor does not matter
    series = torch.cos(2 * j * theta[:, None]) / (4 * j**2 - 1)
    return theta, (1 - 2 * series.sum(1)) * (2 / nlat)


def truncation(nlat: int, nlon: int, grid: str = "gaussian") -> int:
    """Largest number of degrees for which analysis inverts synthesis: bounded by the quadrature and by the longitudes."""
    exact = nlat if grid == "gaussian" else (nlat + 1) // 2
    return min(exact, (nlon + 1) // 2)


def _legendre_table(grid, plan, kind, analysis):
    """Flat table in the kernels' order, float64, with the quadrature's weights for analysis, 2 - [m = 0] for synthesis.

    `kind`: "scalar" for P_lm, "theta" for dP_lm / dtheta and "phi" for m P_lm / sin(theta), the latter two divided by
    l (l + 1) for analysis.
    """
    theta, weights = latitudes(plan.nlat, *grid)
    rows = torch.arange(plan.half).roll(plan.nlat % 2)  # the equator first
    theta, weights = theta[rows], weights[rows] * (2 * math.pi / plan.nlon)
    degrees, orders = torch.arange(plan.lmax), torch.arange(plan.lmax)
    if kind == "scalar":
        table = legpoly(plan.lmax, plan.lmax, torch.cos(theta))  # (m, l, row)
    else:
        table = dlegpoly(plan.lmax, plan.lmax, theta)[0 if kind == "theta" else 1]
    if analysis:
        table = table * weights
        if kind != "scalar":
            table = table / (degrees * (degrees + 1)).clamp(min=1)[:, None]
    else:
        single = (orders == 0) | (2 * orders == plan.nlon)
        table = table * (2 - single.double())[:, None, None]
    parts = [table[block.start : block.stop, block.start + q :: 2].flatten() for block in plan.blocks for q in (0, 1)]
    return torch.cat(parts)


def _fourier_table(plan):
    """(cos, -sin) by parity of the order, then by part, then by order and folded longitude, flat, float64."""
    if plan.fourier == "fast":
        return torch.zeros(0, dtype=torch.float64)
    j = torch.tensor(longitude_order(plan))[: plan.nlon // 2]
    angle = (torch.outer(torch.arange(plan.orders), j) % plan.nlon).double() * (2 * math.pi / plan.nlon)
    parts = []
    for a in (0, 1):
        cosine, sine = torch.cos(angle[a::2]), -torch.sin(angle[a::2])
        if plan.fourier == "quarter":
            # after the second fold, the sines' part stands for the longitudes that come before the quarter turn
            quarter = plan.nlon // 4
            cosine = cosine[:, : quarter + 1 - a]
            sine = sine[:, [*range(quarter, quarter + a), *range(1, quarter)]]
        parts += [cosine.flatten(), sine.flatten()]
    return torch.cat(parts)


@functools.lru_cache(maxsize=32)
def _cell_order(plan):
    """Index of every cell of the kernels' order in the field, and its inverse."""
    south = torch.arange(plan.half, plan.nlat).flip(0)
    rows = torch.cat([torch.arange(plan.half).roll(plan.nlat % 2), south])
    index = (torch.tensor(longitude_order(plan))[:, None] + plan.nlon * rows[None]).flatten()
    return index, torch.argsort(index)


@functools.lru_cache(maxsize=32)
def _coefficient_order(plan):
    """Index of every stored coefficient in `(lmax, lmax, 2)`, and of every one of those in the store.

    Where l < m, both point at an entry that is zero in both, so that either index also carries gradients back.
    """
    stored = []
    for block in plan.blocks:
        orders = torch.arange(block.start, block.stop)
        for q in (0, 1):
            degrees = torch.arange(block.start + q, plan.lmax, 2)
            entry = (degrees[:, None, None] * plan.lmax + orders) * 2 + torch.arange(2)[:, None]  # (l, part, m)
            stored.append(entry.flatten())
    stored = torch.cat(stored)
    below = (stored // 2 // plan.lmax < stored // 2 % plan.lmax).nonzero()
    dense = torch.full((2 * plan.lmax**2,), int(below[0]) if len(below) else 0)
    dense[stored] = torch.arange(len(stored))
    return stored, dense


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
    """Buffers that all modules of the process share, made anew from float64 for every type and device."""

    def __init__(self, nlat, nlon, grid, poles, lmax):
        super().__init__()
        if nlon < 4:
            raise ValueError(f"Expected at least 4 longitudes, got {nlon}")
        lmax = truncation(nlat, nlon, grid) if lmax is None else lmax
        if not 0 < lmax <= nlon // 2 + 1:
            raise ValueError(f"Expected between 1 and {nlon // 2 + 1} degrees for {nlon} longitudes, got {lmax}")
        self.nlat, self.nlon, self.grid, self.poles, self.lmax = nlat, nlon, grid, poles, lmax
        self._known = native.knows(nlon)
        self.plan = Plan(nlat, nlon, lmax, _block_width(lmax))
        self._recipes = {"fourier": ("fourier", functools.partial(_fourier_table, self.plan))}
        for name, order in (("cell", _cell_order), ("coefficient", _coefficient_order)):
            for n, suffix in ((0, "index"), (1, "inverse")):
                self._recipes[f"{name}_{suffix}"] = (f"{name} {n}", functools.partial(_nth, order, self.plan, n))

    def _add_legendre(self, name, plan, kind, analysis):
        grid = (self.grid, self.poles)
        make = functools.partial(_legendre_table, grid, plan, kind, analysis)
        self._recipes[name] = (f"{kind} {analysis} {grid}", make)

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
        return self.nlat, self.nlon

    def extra_repr(self) -> str:
        return f"{self.nlat} x {self.nlon}, {self.grid}, poles={self.poles}, lmax={self.lmax}"

    def arrange(self, field: torch.Tensor) -> torch.Tensor:
        """`(nlat, nlon, *channels)` -> cells in the kernels' order, `(cell, *channels)`."""
        _check_shape("a field", field, self.shape)
        return _Reorder.apply(field.flatten(0, 1), self.cell_index, self.cell_inverse)

    def restore(self, cells: torch.Tensor) -> torch.Tensor:
        """Inverse of `arrange`."""
        return _Reorder.apply(cells, self.cell_inverse, self.cell_index).unflatten(0, self.shape)

    def pack(self, coefficients: torch.Tensor) -> torch.Tensor:
        """`(lmax, lmax, 2, *channels)` -> coefficients in the kernels' order, `(count, *channels)`."""
        _check_shape("coefficients", coefficients, (self.lmax, self.lmax, 2))
        return _Reorder.apply(coefficients.flatten(0, 2), self.coefficient_index, self.coefficient_inverse)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Inverse of `pack`."""
        dense = _Reorder.apply(packed, self.coefficient_inverse, self.coefficient_index)
        return dense.unflatten(0, (self.lmax, self.lmax, 2))

    def _transform(self, x, table, inverse=False, plan=None):
        flat = x.reshape(len(x), -1).to(table.dtype)
        y = Transform.apply(flat, table, self.fourier, list(plan or self.plan), inverse)
        return y.view(len(y), *x.shape[1:])

    def _analysis(self, field, table, plan):
        """Of a field in its ordinary order, which compiled kernels read as it is."""
        if not (self._known and library.takes(table)):
            return self.unpack(self._transform(self.arrange(field), table, plan=plan))
        _check_shape("a field", field, self.shape)
        coefficients = self._transform(field.flatten(0, 1), table, plan=plan._replace(natural=True))
        return coefficients.unflatten(0, (self.lmax, self.lmax, 2))

    def _synthesis(self, coefficients, table, plan):
        if not (self._known and library.takes(table)):
            return self.restore(self._transform(self.pack(coefficients), table, True, plan))
        _check_shape("coefficients", coefficients, (self.lmax, self.lmax, 2))
        field = self._transform(coefficients.flatten(0, 2), table, True, plan._replace(natural=True))
        return field.unflatten(0, self.shape)


class SphericalTransform(_Tables):
    """Transform of scalars between a grid and the triangular truncation of `lmax` degrees and orders.

    Args:
      nlat, nlon: rows and columns of the grid; columns without other primes than 2, 3 and 5 are fastest.
      grid: "gaussian" or "equiangular"; `poles`: whether an equiangular grid has rows at the poles.
      lmax: number of degrees, by default the most for which analysis inverts synthesis (`truncation`).
    Raises `ValueError` for an unknown grid and for a truncation that the longitudes cannot hold.
    """

    def __init__(self, nlat: int, nlon: int, grid: str = "gaussian", poles: bool = False, lmax: int | None = None):
        super().__init__(nlat, nlon, grid, poles, lmax)
        self._add_legendre("analysis_table", self.plan, "scalar", True)
        self._add_legendre("synthesis_table", self.plan, "scalar", False)
        self._link(torch.float32, torch.get_default_device())

    def analysis(self, field: torch.Tensor) -> torch.Tensor:
        """Coefficients `(lmax, lmax, 2, *channels)` of a field `(nlat, nlon, *channels)`."""
        return self._analysis(field, self.analysis_table, self.plan)

    def synthesis(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Field `(nlat, nlon, *channels)` of coefficients `(lmax, lmax, 2, *channels)`."""
        return self._synthesis(coefficients, self.synthesis_table, self.plan)

    def analyse(self, cells: torch.Tensor) -> torch.Tensor:
        """`(cell, *channels)` -> `(count, *channels)`, both in the kernels' order."""
        return self._transform(cells, self.analysis_table)

    def analyse_besides(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`analyse`, and the cells for what else takes them in: gradients come back faster than from two uses of cells."""
        flat = cells.reshape(len(cells), -1)
        if flat.dtype != self.analysis_table.dtype:
            return self.analyse(cells), cells
        c, kept = AnalysisBesides.apply(flat.contiguous(), self.analysis_table, self.fourier, list(self.plan))
        return c.view(len(c), *cells.shape[1:]), kept.view(cells.shape)

    def synthesise(self, packed: torch.Tensor) -> torch.Tensor:
        """`(count, *channels)` -> `(cell, *channels)`, both in the kernels' order."""
        return self._transform(packed, self.synthesis_table, inverse=True)


class VectorTransform(_Tables):
    """Transform of winds: (u, v) <-> coefficients of the spheroidal and the toroidal part (torch-harmonics' basis).

    On a sphere of radius a, divergence is -l (l + 1) / a times the spheroidal part and vorticity l (l + 1) / a times the
    toroidal part. Arguments as for `SphericalTransform`.
    """

    def __init__(self, nlat: int, nlon: int, grid: str = "gaussian", poles: bool = False, lmax: int | None = None):
        super().__init__(nlat, nlon, grid, poles, lmax)
        self.flipped = self.plan._replace(flipped=True)  # d/dtheta of an even function is odd
        for name, analysis in (("analysis", True), ("synthesis", False)):
            self._add_legendre(f"{name}_theta", self.flipped, "theta", analysis)
            self._add_legendre(f"{name}_phi", self.plan, "phi", analysis)
        self._link(torch.float32, torch.get_default_device())

    def analysis(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spheroidal and toroidal coefficients, each `(lmax, lmax, 2, *channels)`, of eastward and northward wind."""
        wind = torch.stack([-v, u], 2)  # colatitude grows southward
        by_theta = self._analysis(wind, self.analysis_theta, self.flipped)
        by_phi = _times_i(self._analysis(wind, self.analysis_phi, self.plan))
        return by_theta[:, :, :, 0] - by_phi[:, :, :, 1], -by_phi[:, :, :, 0] - by_theta[:, :, :, 1]

    def synthesis(self, spheroidal: torch.Tensor, toroidal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eastward and northward wind, each `(nlat, nlon, *channels)`, of the two parts' coefficients."""
        both = torch.stack([spheroidal, toroidal], 3)
        by_theta = self._synthesis(both, self.synthesis_theta, self.flipped)
        by_phi = self._synthesis(_times_i(both), self.synthesis_phi, self.plan)
        return by_phi[:, :, 0] - by_theta[:, :, 1], -(by_theta[:, :, 0] + by_phi[:, :, 1])


def _check_shape(what, x, expected):
    if tuple(x.shape[: len(expected)]) != expected:
        raise ValueError(f"Expected {what} of shape {(*expected, '*channels')}, got {tuple(x.shape)}")


def _times_i(c):
    return torch.stack([-c[:, :, 1], c[:, :, 0]], 2)


def _nth(order, plan, n):
    return order(plan)[n]


def _block_width(lmax):
    """Orders in a block: few and large, for calls have their price, but enough to skip a third of the zeros at l < m."""
    return lmax + lmax % 2 if lmax <= 40 else 2 * math.ceil(lmax / 6)


def to_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """`(l, m, 2, *channels)` real -> `(*channels, l, m)` complex, torch-harmonics' layout."""
    return torch.view_as_complex(coefficients.movedim((0, 1, 2), (-3, -2, -1)).contiguous())


def from_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """`(*channels, l, m)` complex -> `(l, m, 2, *channels)` real."""
    return torch.view_as_real(coefficients).movedim((-3, -2, -1), (0, 1, 2))
