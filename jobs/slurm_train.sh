#!/bin/bash
#SBATCH --job-name=bprune-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
##SBATCH --signal=B:USR1@90
# (Above: for clusters where a job cannot find out when it ends; the log says "no time limit".)
# Add --account, --partition and --qos as the site asks; no GPU is needed.
#
# Training on Slurm. Horovod, where it is installed, has to be built with the MPI whose launcher this is
# (tools/install_horovod.sh). From the root of the checkout:
#     sbatch jobs/slurm_train.sh
# A training that does not fit into one job submits the next one, and that goes on where it stopped.
# With a sweep of what was trained after it: jobs/pipeline.sh
set -euo pipefail

# To be changed here, or given in the environment.
BPRUNE_HOME=${BPRUNE_HOME:-$SLURM_SUBMIT_DIR}     # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                          # to load, as "gcc openmpi/5.0"
TRAIN_ARG_FILE=${TRAIN_ARG_FILE:-train_digits.txt} # arguments of the training
MODEL_DIR=${MODEL_DIR:-results/trained}       # the network; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                      # how often to go on
LAUNCHER=${LAUNCHER:-srun}                    # srun or mpirun
SRUN_MPI=${SRUN_MPI:-pmix}                    # of those in `srun --mpi=list`; Cray: cray_shasta
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-1}} # of a rank
# Those of Open MPI; another mpirun has others.
MPIRUN_FLAGS=${MPIRUN_FLAGS:---map-by slot:PE=$THREADS --bind-to core}

export BPRUNE_HOME VENV MODULES TRAIN_ARG_FILE MODEL_DIR MAX_JOBS LAUNCHER SRUN_MPI THREADS
export MPIRUN_FLAGS
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_slurm.sh
. "$BPRUNE_HOME/jobs/common_slurm.sh"
prepare
on_all_ranks train
