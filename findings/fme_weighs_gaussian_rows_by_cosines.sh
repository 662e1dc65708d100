#!/usr/bin/env bash
# Means of fme 2026.10.0 (Ai2's ACE) over Gaussian rows, which ACE2's are, are weighted by the cosine of latitude, and what its
# corrector conserves is that mean: neither dry air nor water by the areas of the rows.
#
# What one would expect: "all global means here are area-weighted" (its corrector), so that on Gaussian rows the weights are
# Gauss's, by which the mean of sin(latitude)^2 is 1/3 to rounding, and a forecast whose corrector conserves dry air conserves it
# in anyone's audit. What happens: `LatLonCoordinates.area_weights` is cos(latitude) on whatever rows. Rows beside the poles weigh
# 1.6 % too much of 12 and 1.8 % too much of 180 rows, with more rows no less, and where a correction has moved water or mass between
# latitudes the budget that it has closed by cosines is open by areas. On rows of equal angle both are the same, and nobody
# sees it.
#
# Output seen:
#   12 rows: beside the poles +1.60 %, mean of sin^2 off by 7.4e-04
#   180 rows: beside the poles +1.81 %, mean of sin^2 off by 1.0e-05
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir fme==2026.10.0
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import torch
from fme.core.coordinates import LatLonCoordinates

for rows in (12, 180):
    sine, area = np.polynomial.legendre.leggauss(rows)
    latitude, longitude = np.degrees(np.arcsin(sine)), np.arange(2 * rows) * 180 / rows
    grid = LatLonCoordinates(lat=torch.from_numpy(latitude), lon=torch.from_numpy(longitude))
    weight = grid.area_weights.double().sum(-1).numpy()
    weight /= weight.sum()
    pole, off = weight[0] / (area[0] / 2) - 1, weight @ sine**2 - 1 / 3
    print(f"{rows} rows: beside the poles {pole:+.2%}, mean of sin^2 off by {off:.1e}".replace("%", " %"))
    assert abs(area @ sine**2 / 2 - 1 / 3) < 1e-13, "Gauss's weights"
    assert pole > 0.01, "rows of Gaussian grids have their areas now"
PYTHON
