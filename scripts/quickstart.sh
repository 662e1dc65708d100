#!/usr/bin/env bash
# From a fresh machine to a trained, verified, conserving emulator and its report. Start it again after any interruption.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh gcm
emulator run conf/quickstart.yaml "$@"
