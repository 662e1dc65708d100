#!/usr/bin/env bash
# Random fields of torch-harmonics 0.9.3 (GaussianRandomFieldS2) are not isotropic: at the poles their variance is half of what an
# isotropic field has, and everywhere it is 1 / (2 pi) of what their documented covariance gives.
#
# What one would expect: a field whose covariance operator has the spectrum C_l, a function of the degree alone, has by the addition
# theorem the variance sum (2 l + 1) C_l / (4 pi) at every point. What happens: real and imaginary parts of all coefficients are drawn with
# variance 1, for m = 0 too, whose imaginary part a real field does not have, so that zonal coefficients get half of the power of the others. At the
# poles there are no others. The halves are spread over a cap that is wider for smoother fields: 0.84 of the variance at 60 degrees here.
# The level is another one by the normalisation of the inverse transform ("backward").
# Ensembles that are perturbed with such fields are least perturbed where a model is most fragile, and fields for a trial of
# equivariance are not drawn from a distribution that rotations leave alone. earth2studio 0.19.0 has the same class (SphericalGaussian) and draws
# its CorrelatedSphericalGaussian in the same way. Hand over `xi` of your own, with its column m = 0 times the square root of 2.
#
# The variances here are exact: the sum of squares of what each single coefficient gives.
#
# Output seen (37 equiangular rows, alpha 2, tau 3; variance over that of an isotropic field of the same coefficients with m > 0):
#   as drawn:           pole 0.500, 80 degrees 0.627, 60 degrees 0.844, equator 0.960
#   m = 0 times sqrt 2: pole 1.000, 80 degrees 1.000, 60 degrees 1.000, equator 1.000
#   the isotropic field's variance over that of the documented covariance: 0.1592 (1 / (2 pi) is 0.1592)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip() { "$folder/env/bin/pip" "$@" --quiet --disable-pip-version-check 2>/dev/null; }
pip install torch==2.13.0 numpy==2.4.6
pip install --no-deps torch-harmonics==0.9.3
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import math

import torch
from torch_harmonics.random_fields import GaussianRandomFieldS2

torch.set_default_dtype(torch.float64)
rows, alpha, tau = 37, 2.0, 3.0
field = GaussianRandomFieldS2(rows, alpha=alpha, tau=tau, dtype=torch.float64)
shape = field.isht.lmax, field.isht.mmax
count = shape[0] * shape[1]


def variance(zonal):
    """The variance at every row, where coefficients with m = 0 are drawn `zonal` times as large: (rows,)."""
    single = torch.eye(count).reshape(count, *shape)
    single[..., 0] *= zonal
    none = torch.zeros_like(single)
    parts = [field(count, xi=torch.complex(*pair)) for pair in ((single, none), (none, single))]
    return sum(part.square().sum(0) for part in parts).mean(-1)


def shown(values):
    at = {"pole": 0, "80 degrees": 2, "60 degrees": 6, "equator": rows // 2}
    return ", ".join(f"{name} {float(values[row]):.3f}" for name, row in at.items())


drawn, isotropic = variance(1.0), variance(math.sqrt(2))
whole = float(isotropic.mean())
print(f"as drawn:           {shown(drawn / whole)}")
print(f"m = 0 times sqrt 2: {shown(isotropic / whole)}")
degree = torch.arange(1, shape[0])  # the mean, of degree 0, is left out by the class
covariance = tau ** (2 * alpha - 2) * (degree * (degree + 1) + tau**2) ** -alpha
documented = float(((2 * degree + 1) * covariance).sum() / (4 * math.pi))
print("the isotropic field's variance over that of the documented covariance: ", end="")
print(f"{whole / documented:.4f} (1 / (2 pi) is {1 / (2 * math.pi):.4f})")
assert torch.allclose(isotropic, isotropic[0], rtol=1e-9), "more than m = 0 is amiss"
assert abs(float(drawn[0] / isotropic[0]) - 0.5) < 1e-9, "the poles have their variance now"
assert abs(whole / documented * 2 * math.pi - 1) < 1e-6, "the level has changed"
PYTHON
