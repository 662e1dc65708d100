#!/usr/bin/env bash
# The perturbations that CorrelatedSphericalGaussian of earth2studio 0.19.0 gives to the members of an ensemble are consecutive
# times of one process, so that neighbouring members get nearly the same one, and the spread depends on the size of the batch.
#
# What one would expect: members are perturbed independently; `time_scale` (48 h by default) says how noise of one member would
# go on in time, and does nothing to a perturbation of initial states. What happens: the loop over the first dimension, which is the
# members' (`earth2studio.run.ensemble` puts them there, all in one batch unless told otherwise), takes a step of 6 hours of the AR(1) process
# from one member to the next. Members k apart correlate by exp(-6 k / 48): 0.88 for neighbours. The variance about the ensemble's mean is
# that of independent members times 1 minus the mean correlation: 0.30 for 8 members in one batch, and 1 for the same 8 in batches of one. A spread, a
# CRPS or a choice of the amplitude that was tuned with one batch size is another with the next, and where such
# noise seeds bred vectors the members start alike. The fields also have the standard deviation that was asked for
# (`sigma` times `noise_amplitude`) but near the poles, where it falls to 0.73 of it (see torch_harmonics_fields_calm_at_the_poles.sh).
# Perturb one member a call, or give a tiny `time_scale`: it leaves all else as it is.
#
# Output seen (1000 fields for each of 8 members, amplitude 1):
#   48 h:   correlation of member 0 with 1, 2, 4, 7: 0.88 0.78 0.61 0.42 (by AR(1): 0.88 0.78 0.61 0.42)
#           variance about the mean over that of the noise: 0.29 (by AR(1): 0.30)
#   0.01 h: correlation of member 0 with 1, 2, 4, 7: 0.00 0.01 0.00 0.00
#           variance about the mean over that of the noise: 1.00
#   standard deviation: 0.99 at the equator, 0.73 at the north pole
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip() { "$folder/env/bin/pip" "$@" --quiet --disable-pip-version-check 2>/dev/null; }
pip install torch==2.13.0 numpy==2.4.6 xarray==2026.4.0 rich==15.0.0
pip install --no-deps torch-harmonics==0.9.3 earth2studio==0.19.0
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import importlib.util
import math
import sys
from collections import OrderedDict
from pathlib import Path

import earth2studio
import numpy as np
import torch

# The file alone: the package's __init__ imports what needs more packages.
place = Path(earth2studio.__file__).parent / "perturbation" / "gaussian.py"
spec = importlib.util.spec_from_file_location("gaussian", place)
gaussian = sys.modules["gaussian"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gaussian)

members, fields, rows = 8, 1000, 16
sizes = {"ensemble": members, "time": 1, "lead_time": 1, "variable": fields}
coords = OrderedDict({name: np.arange(size) for name, size in sizes.items()})
coords |= {"lat": np.linspace(90, -90, rows), "lon": np.arange(2 * rows) * 180 / rows}
torch.manual_seed(0)
apart = [1, 2, 4, 7]
for hours, phi in ((48, math.exp(-6 / 48)), (0.01, 0.0)):
    perturb = gaussian.CorrelatedSphericalGaussian(1.0, length_scale=2e6, time_scale=hours)
    noise = perturb(torch.zeros([len(axis) for axis in coords.values()]), coords)[0].flatten(1, 3).double()
    size = noise.square().mean((1, 2, 3)).sqrt()
    found = [float((noise[0] * noise[k]).mean() / size[0] / size[k]) for k in apart]
    about_mean = float(noise.var(0).mean() / noise.square().mean())
    expected = [phi**k for k in apart]
    all_pairs = sum((members - k) * phi**k for k in range(1, members)) * 2 / members / (members - 1)
    by_theory = f" (by AR(1): {' '.join(f'{r:.2f}' for r in expected)})" if phi else ""
    shown = " ".join(f"{abs(r) if abs(r) < 0.005 else r:.2f}" for r in found)
    print(f"{f'{hours} h:':8}correlation of member 0 with {', '.join(map(str, apart))}: {shown}{by_theory}")
    by_theory = f" (by AR(1): {1 - all_pairs:.2f})" if phi else ""
    print(f"{'':8}variance about the mean over that of the noise: {about_mean:.2f}{by_theory}")
    assert np.allclose(found, expected, atol=0.04), "members are perturbed otherwise now"
    assert abs(about_mean - (1 - all_pairs)) < 0.02
deviation = noise.square().mean((0, 1, 3)).sqrt()
print(f"standard deviation: {deviation[rows // 2]:.2f} at the equator, {deviation[0]:.2f} at the north pole")
assert abs(deviation[rows // 2] - 1) < 0.05 and abs(deviation[0] - 0.5**0.5) < 0.04, "the poles have changed"
PYTHON
