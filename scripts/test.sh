#!/usr/bin/env bash
# The default tests, in an environment of their own making, a file of them at a time on every core up to eight. Arguments go
# to pytest (for example: -m slow, or -n 0 for one process).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test,gcm,ocean,grib,cloud,slurm,observations,tensorboard,mlflow,docs,virtual
python -m pytest -n logical --maxprocesses 8 --dist loadfile "$@"
