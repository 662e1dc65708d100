#!/usr/bin/env bash
# The default tests, in an environment of their own making. Arguments go to pytest (for example: -m slow).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test,gcm,grib,cloud,slurm,observations,tensorboard,mlflow
python -m pytest "$@"
