#!/usr/bin/env bash
# The whole chain by hand: bash scripts/slurm/chain.sh EXPERIMENT.yaml [first stage]. `emulator submit` does the same from a
# site file, and leaves out what is complete.
set -euo pipefail
experiment="$1"
first="${2:-ingest}"
emulator run "$experiment" --check
after=""
started=""
for stage in simulate ingest stats train rollout verify report; do
    if [ "$stage" = "$first" ]; then started=yes; fi
    if [ -z "$started" ]; then continue; fi
    job="$(sbatch --parsable ${after:+--dependency=afterok:$after --kill-on-invalid-dep=yes} \
        "scripts/slurm/$stage.sbatch" "$experiment")"
    after="${job%%;*}"
    echo "$stage: job $after"
done
