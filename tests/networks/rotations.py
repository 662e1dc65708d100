"""Rotations of band-limited scalars and winds: their harmonics are evaluated at the turned points, in float64."""

import math

import torch

from emulator.sphere.legendre import legendre
from emulator.sphere.tables import latitudes


class Rotation:
    """The rotation by an angle about an axis, of fields on the Gaussian grid of a transform, to its degrees.

    `every`: of how many rows and columns one is evaluated, for all degrees of a fine grid take much memory.
    """

    def __init__(self, transform, axis, angle, every=1):
        theta = latitudes(transform.nlat)[0]
        phi = torch.arange(transform.nlon, dtype=torch.float64) * (2 * math.pi / transform.nlon)
        theta, phi = torch.meshgrid(theta[::every], phi[::every], indexing="ij")
        self.shape, theta, phi = theta.shape, theta.flatten(), phi.flatten()
        axis = torch.tensor(axis, dtype=torch.float64)
        x, y, z = (axis / axis.norm()).tolist()
        cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        matrix = torch.linalg.matrix_exp(cross * angle)
        up, *at = _directions(theta, phi)
        before = up @ matrix  # the inverse rotation of every point
        theta, phi = torch.arccos(before[:, 2].clamp(-1, 1)), torch.atan2(before[:, 1], before[:, 0])
        self.transform, self.lmax = transform, transform.lmax
        self.basis = self._harmonics("scalar", theta, phi)
        self.slopes = self._harmonics("theta", theta, phi)
        turns = self._harmonics("phi", theta, phi)
        self.turns = torch.stack([turns[..., 1], -turns[..., 0]], -1)  # d / dphi is i m
        # southward and eastward there, turned, in the directions of here: `(point, there, here)`
        turned = torch.stack([direction @ matrix.T for direction in _directions(theta, phi)[1:]], 1)
        self.components = turned @ torch.stack(at, 2)

    def _harmonics(self, kind, theta, phi):
        """`(point, lmax, lmax, 2)`: what each real coefficient contributes at each point."""
        functions = legendre(kind, range(self.lmax), self.lmax, theta.numpy())
        table = torch.stack([torch.tensor(p.T) for p in functions], 1)  # (point, l, m)
        orders = torch.arange(self.lmax)
        angle = phi[:, None] * orders
        table = table * (2 - (orders == 0).double())
        return torch.stack([table * angle.cos()[:, None], -table * angle.sin()[:, None]], -1)

    def __call__(self, x):
        """`(batch, channel, nlat, nlon)`."""
        c = self.transform.analysis(x.permute(2, 3, 0, 1))
        return self._to_maps(torch.einsum("plmr,lmrbc->pbc", self.basis, c))

    def winds(self, u, v, transform):
        """Eastward and northward components, each as a scalar's; `transform`: of winds, on the same grid."""
        spheroidal, toroidal = transform.analysis(u.permute(2, 3, 0, 1), v.permute(2, 3, 0, 1))
        by = "plmr,lmrbc->pbc"
        south = torch.einsum(by, self.slopes, spheroidal) + torch.einsum(by, self.turns, toroidal)
        east = torch.einsum(by, self.turns, spheroidal) - torch.einsum(by, self.slopes, toroidal)
        turned = torch.einsum("ptbc,pth->phbc", torch.stack([south, east], 1), self.components)
        return self._to_maps(turned[:, 1]), -self._to_maps(turned[:, 0])

    def _to_maps(self, x):
        return x.unflatten(0, self.shape).permute(2, 3, 0, 1)


def _directions(theta, phi):
    """Up, southward and eastward, `(point, 3)` each."""
    s, c, a, b = theta.sin(), theta.cos(), phi.sin(), phi.cos()
    return torch.stack([s * b, s * a, c], -1), torch.stack([c * b, c * a, -s], -1), torch.stack([-a, b, 0 * a], -1)
