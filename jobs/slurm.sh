#!/bin/bash
#SBATCH --job-name=bprune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
##SBATCH --signal=B:USR1@90
# (Above: for clusters where a job cannot find out when it ends; the log says "no time limit".)
# Add --account, --partition and --qos as the site asks; no GPU is needed (with --device=gpu:
# --ntasks-per-node=N --gpus-per-task=1, see docs/clusters.md).
#
# A sweep on Slurm. From the root of the checkout:
#     sbatch jobs/slurm.sh
#     ARG_FILE=Mine.txt OUTPUT=results/mine.h5 sbatch --nodes=4 --time=6:00:00 jobs/slurm.sh
# A sweep that does not fit into one job submits the next one, and that goes on where it stopped.
set -euo pipefail

# To be changed here, or given in the environment.
BPRUNE_HOME=${BPRUNE_HOME:-$SLURM_SUBMIT_DIR}     # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                          # to load, as "gcc openmpi/5.0"
ARG_FILE=${ARG_FILE:-ArgFilePrune.txt}        # arguments of the sweep
MODEL_DIR=${MODEL_DIR:-}                      # the network, if not the one in there
OUTPUT=${OUTPUT:-results/sweep.h5}            # results; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                      # how often to go on
LAUNCHER=${LAUNCHER:-srun}                    # srun or mpirun
SRUN_MPI=${SRUN_MPI:-pmix}                    # of those in `srun --mpi=list`; Cray: cray_shasta
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-1}} # of a rank
# Those of Open MPI; another mpirun has others.
MPIRUN_FLAGS=${MPIRUN_FLAGS:---map-by slot:PE=$THREADS --bind-to core}

export BPRUNE_HOME VENV MODULES ARG_FILE MODEL_DIR OUTPUT MAX_JOBS LAUNCHER SRUN_MPI THREADS
export MPIRUN_FLAGS
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_slurm.sh
. "$BPRUNE_HOME/jobs/common_slurm.sh"
prepare
on_all_ranks sweep
