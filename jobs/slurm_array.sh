#!/bin/bash
#SBATCH --job-name=bprune-array
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
##SBATCH --signal=B:USR1@90
# (Above: for clusters where a job cannot find out when it ends; the log says "no time limit".)
# Add --account, --partition and --qos as the site asks; no GPU is needed (with --device=gpu:
# --ntasks-per-node=N --gpus-per-task=1, see docs/clusters.md).
#
# A sweep for each TensorFlow checkpoint below a directory, at most 4 at a time. From the root of
# the checkout, say for 12 of them:
#     CASES=/path/to/cases sbatch --array=0-11%4 jobs/slurm_array.sh
# How many there are:  find /path/to/cases -name '*.index' | wc -l
# Results: RESULTS/CASE.CHECKPOINT.h5, as results/lenet.model.ckpt-1562.h5.
set -euo pipefail

# To be changed here, or given in the environment.
BPRUNE_HOME=${BPRUNE_HOME:-$SLURM_SUBMIT_DIR}     # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                          # to load, as "gcc openmpi/5.0"
CASES=${CASES:-cases}                         # directory with checkpoints, however deep
ARG_FILE=${ARG_FILE:-ArgFilePrune.txt}        # arguments of the sweeps, beside the checkpoint
RESULTS=${RESULTS:-results}                   # directory for the results
MAX_JOBS=${MAX_JOBS:-20}                      # how often to go on
LAUNCHER=${LAUNCHER:-srun}                    # srun or mpirun
SRUN_MPI=${SRUN_MPI:-pmix}                    # of those in `srun --mpi=list`; Cray: cray_shasta
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-1}} # of a rank
# Those of Open MPI; another mpirun has others.
MPIRUN_FLAGS=${MPIRUN_FLAGS:---map-by slot:PE=$THREADS --bind-to core}

# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"

# The next job of this sweep takes the same checkpoint, even if there are new ones by then.
if [[ -z ${CHECKPOINT:-} ]]; then
  mapfile -d '' -t found < <(find "$CASES" -name '*.index' -print0 | LC_ALL=C sort -z)
  CHECKPOINT=${found[SLURM_ARRAY_TASK_ID]:?"$CASES: only ${#found[@]} checkpoints"}
  CHECKPOINT=$(realpath "$CHECKPOINT")
  CHECKPOINT=${CHECKPOINT%.index}
fi
case_dir=$(dirname "$CHECKPOINT")
OUTPUT=$RESULTS/$(basename "$case_dir").$(basename "$CHECKPOINT").h5

export BPRUNE_HOME VENV MODULES ARG_FILE CHECKPOINT RESULTS MAX_JOBS LAUNCHER SRUN_MPI THREADS
export MPIRUN_FLAGS
# shellcheck source=jobs/common_slurm.sh
. "$BPRUNE_HOME/jobs/common_slurm.sh"
more=(--model_dir="$case_dir" --model_ckpt="$(basename "$CHECKPOINT")")
prepare
on_all_ranks sweep
