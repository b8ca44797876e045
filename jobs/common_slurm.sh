# shellcheck shell=bash
# What the Slurm scripts beside this file share; they source it after common.sh. Nothing to change.

# An array's first job has the array's number, which stands for all of them.
this_job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then this_job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
n_ranks=${SLURM_NTASKS:-$((SLURM_JOB_NUM_NODES * ${SLURM_NTASKS_PER_NODE:-1}))}

# field_of_job NAME: as squeue prints it, without blanks.
field_of_job() {
  local line
  line=$(squeue --noheader --jobs="$this_job" --Format="$1:64" 2>/dev/null | head -n 1) || true
  echo "${line//[[:space:]]/}"
}

# Some clusters do not let compute nodes ask; then the sweep looks further by itself.
end_at "$(date --date="$(field_of_job EndTime)" +%s 2>/dev/null || true)"

# log_of_next: beside this job's log, the next job's number in place of this one's; nothing where
# the log cannot be found.
log_of_next() {
  local log name number=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} stands_for=%j
  if [[ -n ${SLURM_ARRAY_JOB_ID:-} ]]; then stands_for=%A; fi
  log=$(readlink "/proc/$$/fd/1") || return 0
  [[ -f $log ]] || return 0
  name=${log##*/}
  if [[ $name =~ ^(.*[^0-9])?$number([^0-9].*)?$ ]]; then
    name=${BASH_REMATCH[1]}$stands_for${BASH_REMATCH[2]}
  fi
  echo "${log%/*}/$name"
}

# The same script again, as large and as long, once this job has ended.
resubmit() {
  local -a flags=(
    --parsable --dependency="afterany:$this_job" --job-name="$SLURM_JOB_NAME" --export=ALL
    --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$n_ranks" --cpus-per-task="$THREADS"
    --partition="$SLURM_JOB_PARTITION"
  )
  local limit log job
  log=$(log_of_next)
  if [[ -n $log ]]; then flags+=(--output="$log"); fi
  limit=$(field_of_job TimeLimit)
  if [[ -n $limit ]]; then flags+=(--time="$limit"); fi
  if [[ -n ${SLURM_NTASKS_PER_NODE:-} ]]; then
    flags+=(--ntasks-per-node="${SLURM_NTASKS_PER_NODE%%(*}")
  fi
  if [[ -n ${SLURM_JOB_ACCOUNT:-} ]]; then flags+=(--account="$SLURM_JOB_ACCOUNT"); fi
  if [[ -n ${SLURM_JOB_QOS:-} ]]; then flags+=(--qos="$SLURM_JOB_QOS"); fi
  if [[ -n ${SLURM_GPUS_PER_TASK:-} ]]; then flags+=(--gpus-per-task="$SLURM_GPUS_PER_TASK"); fi
  if [[ -n ${SLURM_GPUS_PER_NODE:-} ]]; then flags+=(--gpus-per-node="$SLURM_GPUS_PER_NODE"); fi
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then flags+=(--array="$SLURM_ARRAY_TASK_ID"); fi
  job=$(sbatch "${flags[@]}" "$0") && echo "${job%%;*}"
}

# on_all_ranks DO: `sweep` or `train` by the launcher that was asked for.
on_all_ranks() {
  local -a flags
  if [[ $LAUNCHER == srun ]]; then
    # Without --cpus-per-task srun has not heard of the job's; without --kill-on-bad-exit the
    # other ranks outlive one that has died.
    "$1" srun --mpi="$SRUN_MPI" --ntasks="$n_ranks" --cpus-per-task="$THREADS" \
      --cpu-bind=cores --kill-on-bad-exit=1
  else
    read -ra flags <<<"$MPIRUN_FLAGS"
    "$1" "$LAUNCHER" -n "$n_ranks" "${flags[@]}"
  fi
}
