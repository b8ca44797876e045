# shellcheck shell=bash
# What the PBS scripts beside this file share; they source it after common.sh. Nothing to change.

# PBS does not tell a job when it ends.
end_at $(($(date +%s) + $(seconds_of "$WALLTIME") - 30))
# shellcheck disable=SC2034 # read in the scripts
n_nodes=$(sort -u "$PBS_NODEFILE" | wc -l)

# The same script again, with its own directives, once this job has ended; `passed_on` are the names
# of the variables that it is to get.
resubmit() {
  local IFS=,
  # shellcheck disable=SC2154 # set in the scripts
  qsub -W depend=afterany:"$PBS_JOBID" -v "${passed_on[*]},JOB_NUMBER" "$0"
}
