#!/usr/bin/env bash
# Gauss-Legendre weights of NumPy 2.4.6 and SciPy 1.17.1 lose half of their digits in the rows beside the poles, while their
# sum is 2 to the last bit, so that the usual test sees nothing.
#
# What one would expect: weights good to a few units of the last place, as for 64 rows, for the 721 or 1440 rows of a global
# grid. What happens: at 721 rows the worst relative error is 3e-9 with numpy.polynomial.legendre.leggauss and 6e-9 with
# scipy.special.roots_legendre; at 1440 rows 1e-8 and 7e-8. The weights are formed from P_n'(x) in the variable x, where the
# nodes beside the poles crowd towards 1; Newton's method in the angle keeps all digits. The oracle here is mpmath with 40
# digits. Whoever builds areas, quadrature or Legendre transforms on such weights gets float32 accuracy at the poles.
#
# Output seen:
#   64 rows: numpy 1e-12, scipy 1e-12; sums off by 0 and 0
#   721 rows: numpy 3e-09, scipy 6e-09; sums off by 0 and 0
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 mpmath==1.3.0
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from mpmath import mp, mpf
from scipy.special import roots_legendre

mp.dps = 40


def polar_weight(n, x):
    """The weight of the node next to x, by Newton's method with 40 digits."""
    x = mpf(float(x))
    for _ in range(6):
        before, value = mpf(1), x
        for k in range(2, n + 1):
            before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
        slope = n * (x * value - before) / (x * x - 1)
        x -= value / slope
    return 2 / ((1 - x * x) * slope**2)


found = {}
for n in (64, 721):
    errors, sums = [], []
    for rule in (np.polynomial.legendre.leggauss, roots_legendre):
        nodes, weights = rule(n)
        errors.append(max(abs(float(weights[i] / polar_weight(n, nodes[i]) - 1)) for i in (-1, -2)))
        sums.append(abs(weights.sum() - 2))
    found[n] = errors, sums
    print(f"{n} rows: numpy {errors[0]:.0e}, scipy {errors[1]:.0e}; sums off by {sums[0]:.0g} and {sums[1]:.0g}")
assert max(found[64][0]) < 1e-11, "few rows are no longer right"
assert min(found[721][0]) > 5e-10, "the weights beside the poles are right now"
assert max(found[721][1]) < 1e-14, "the sum shows it now"
PYTHON
