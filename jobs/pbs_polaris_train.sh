#!/bin/bash -l
#PBS -N bprune-train
#PBS -A MyProject
#PBS -q debug
#PBS -l select=2:system=polaris
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -k doe
#PBS -j oe
#PBS -r y
#
# Training with Horovod on ALCF Polaris (PBS, PALS); Horovod has to be built with the MPI that PALS
# starts, Cray MPICH (tools/install_horovod.sh). From the checkout's root:
#     qsub jobs/pbs_polaris_train.sh
# With a sweep of what was trained after it: jobs/pipeline.sh
set -euo pipefail

# To be changed here, or given by -v.
BPRUNE_HOME=${BPRUNE_HOME:-$PBS_O_WORKDIR}  # the checkout
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                       # to load, as "gcc cray-mpich"
TRAIN_ARG_FILE=${TRAIN_ARG_FILE:-train_digits.txt} # arguments of the training
MODEL_DIR=${MODEL_DIR:-results/trained}    # the network; replaced if there is one
WALLTIME=${WALLTIME:-01:00:00}             # as in the directive: PBS does not tell the job
RANKS_PER_NODE=${RANKS_PER_NODE:-4}        # of 32 cores with 2 hardware threads each
THREADS=${THREADS:-8}                      # of a rank

# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_pbs.sh
. "$BPRUNE_HOME/jobs/common_pbs.sh"
prepare
train mpiexec -n $((n_nodes * RANKS_PER_NODE)) --ppn "$RANKS_PER_NODE" --depth="$THREADS" \
  --cpu-bind depth --envall --env OMP_NUM_THREADS="$THREADS"
