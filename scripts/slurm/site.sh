# Sourced by every job: what has to happen on this cluster before the program can run. Edit.
# module load python/3.11 cuda
source .venv/bin/activate
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun takes them from nowhere else since Slurm 22.05
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0   # the interface between nodes, where it is not found

# run STAGE EXPERIMENT: one stage as a job step.
run() { step run "$2" --only "$1"; }

# part STAGE EXPERIMENT: this array task's share of a stage.
part() { step "$1" "$2" --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"; }

# step ARGUMENTS: the program as a job step. Exit code 75 means: stopped after saving; the job then goes back into the queue,
# unless somebody cancelled it.
step() {
    trap : TERM USR1 # the program saves and stops; this shell lives on
    local code=0 me="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
    me="${me:-$SLURM_JOB_ID}"
    srun --kill-on-bad-exit=1 emulator "$@" || code=$?
    if [ "$code" -eq 75 ] && [[ "$(scontrol show job "$me")" == *JobState=RUNNING* ]]; then
        scontrol requeue "$me" && sleep 60
    fi
    exit "$code"
}
