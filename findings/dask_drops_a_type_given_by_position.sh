#!/usr/bin/env bash
# dask.array.full, zeros, ones and empty of Dask 2026.8.0 take NumPy's third (second) argument, the type, by position, say
# nothing, and make float64 all the same.
#
# What one would expect: `dask.array.full(shape, nan, numpy.float32)` is lazily what `numpy.full(shape, nan, numpy.float32)`
# is, or it is refused; the docstring says "Follows the signature of full_like exactly except that it also features optional
# keyword arguments chunks and name", where the type has that place too. What happens: the type is dropped. A template of a
# Zarr store that is made so is twice as large, and float32 fields written into it come back as float64; values are right, so
# that no comparison of values sees it. With `dtype=` all is well.
#
# Output seen:
#   numpy: full float32, zeros float32, ones float32, empty float32
#   dask by position: full float64, zeros float64, ones float64, empty float64
#   dask by name: full float32, zeros float32, ones float32, empty float32
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check "dask[array]==2026.8.0" numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import dask.array
import numpy as np


def types(library, by_name):
    """The type of what each function makes."""
    given = ([], {"dtype": np.float32}) if by_name else ([np.float32], {})
    made = {"full": library.full((2, 3), np.nan, *given[0], **given[1])}
    for name in ("zeros", "ones", "empty"):
        made[name] = getattr(library, name)((2, 3), *given[0], **given[1])
    return {name: array.dtype.name for name, array in made.items()}


found = {"numpy": types(np, False), "dask by position": types(dask.array, False), "dask by name": types(dask.array, True)}
for how, kinds in found.items():
    print(f"{how}: {', '.join(f'{name} {kind}' for name, kind in kinds.items())}")
assert set(found["numpy"].values()) == set(found["dask by name"].values()) == {"float32"}
assert set(found["dask by position"].values()) == {"float64"}, "the type is taken by position now"
PYTHON
