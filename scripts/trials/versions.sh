#!/usr/bin/env bash
# Tries the package on other versions of what it stands on: in an environment and a copy of the sources of their own, which are
# deleted at the end, those tests of stores, ingest, training, rollout, verification, report, transform and kernels that use
# the most of numpy, xarray, zarr, dask and torch. Prints the versions and pytest's last lines.
#
#   bash scripts/trials/versions.sh oldest                   # every dependency at its lower bound in pyproject.toml
#   bash scripts/trials/versions.sh newest                   # what pip chooses today
#   bash scripts/trials/versions.sh torch==2.11.0 numpy==2.1 # pins, the rest as pip chooses
#
# PYTHON=python3.13 takes another interpreter, TESTS="tests/store -k whole" other tests. Several gigabytes, several minutes.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
python="${PYTHON:-python3}"
tests="${TESTS:-tests/kernels/test_native.py tests/sphere/test_transform.py tests/sphere/test_against_torch_harmonics.py
    tests/sources/test_formats.py tests/ingestion/test_run.py tests/store/test_store.py tests/store/test_statistics.py
    tests/model/test_checkpoint.py tests/pipelines/test_chain.py tests/verify/test_scores_of_stores.py
    tests/report/test_figures.py}"
[ $# -gt 0 ] || { echo "Expected oldest, newest or pins such as torch==2.11.0" >&2; exit 2; }

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/checkout"
tar -C "$root" -c --exclude=./.git --exclude=./.venv* --exclude=./runs --exclude=./build --exclude=*.egg-info \
    --exclude=__pycache__ --exclude=*.so . | tar -C "$folder/checkout" -x
cd "$folder/checkout"
case "$1" in
oldest) "$python" - >"$folder/pins" <<'PYTHON'
import re, tomllib

for entry in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    requirement, _, marker = entry.partition(";")
    if "!=" not in marker:  # of the two entries of torch that for Linux
        print(re.sub(r">=([\w.]+).*", r"==\1", requirement))
PYTHON
    ;;
newest) : >"$folder/pins" ;;
*) printf '%s\n' "$@" >"$folder/pins" ;;
esac
"$python" -m venv "$folder/env"
export PATH="$folder/env/bin:$PATH" PYTHONPATH=
python -m pip install --quiet --no-cache-dir --disable-pip-version-check --editable . --requirement "$folder/pins" \
    pytest pytest-timeout hypothesis scores
python - <<'PYTHON'
import platform
from importlib.metadata import version

names = "numpy xarray pandas zarr dask torch torch-harmonics matplotlib netcdf4 h5py pydantic".split()
print("Python", platform.python_version(), *(f"{name} {version(name)}," for name in names))
PYTHON
# shellcheck disable=SC2086 # words are meant
python -m pytest --timeout 600 --durations 0 --durations-min 60 -W ignore $tests
