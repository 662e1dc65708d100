#!/usr/bin/env bash
# The whole chain by hand, from the folder that holds scripts/: bash scripts/slurm/chain.sh EXPERIMENT.yaml [first stage].
# Ingest and rollout run as arrays first. `emulator submit` does the same from a site file, and leaves out what is complete.
set -euo pipefail
experiment="$1"
first="${2:-ingest}"
emulator run "$experiment" --check
after=""
started=""
for stage in simulate ingest stats train rollout verify report; do
    if [ "$stage" = "$first" ]; then started=yes; fi
    if [ -z "$started" ]; then continue; fi
    for script in "$stage-parts" "$stage"; do
        if [ ! -e "scripts/slurm/$script.sbatch" ]; then continue; fi
        job="$(sbatch --parsable ${after:+--dependency=afterok:$after --kill-on-invalid-dep=yes} \
            "scripts/slurm/$script.sbatch" "$experiment")"
        after="${job%%;*}"
        echo "$script: job $after"
    done
done
if [ -z "$started" ]; then
    echo "Expected a stage of simulate ingest stats train rollout verify report, got $first" >&2
    exit 1
fi
