#!/bin/bash
#COBALT -n 8
#COBALT -t 60
#COBALT -q debug-cache-quad
#COBALT -A MyProject
#COBALT -O bprune-train-$jobid
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,theta-fs0
#
# Training on a Cray XC40 with Cobalt, as ALCF Theta was. Horovod, if installed, has to be built with
# Cray MPICH (tools/install_horovod.sh). From the checkout's root:
#     qsub jobs/cobalt_theta_train.sh
# A training that does not fit into one job submits the next one by these directives, and that goes
# on where it stopped. With a sweep of what was trained after it: jobs/pipeline.sh
set -euo pipefail

# To be changed here, or given by --env.
BPRUNE_HOME=${BPRUNE_HOME:-$PWD}            # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                       # to load, as "gcc cray-mpich"
TRAIN_ARG_FILE=${TRAIN_ARG_FILE:-train_digits.txt} # arguments of the training
MODEL_DIR=${MODEL_DIR:-results/trained}    # the network; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                   # how often to go on
RANKS_PER_NODE=${RANKS_PER_NODE:-4}        # of 64 cores
THREADS=${THREADS:-32}                     # of a rank
THREADS_PER_CORE=${THREADS_PER_CORE:-2}    # hardware threads to use: 1, 2 or 4
# For a TensorFlow that was built with Intel's OpenMP; others pass it over.
KMP_BLOCKTIME=${KMP_BLOCKTIME:-0}

passed_on=(BPRUNE_HOME VENV MODULES TRAIN_ARG_FILE MODEL_DIR MAX_JOBS RANKS_PER_NODE THREADS
  THREADS_PER_CORE KMP_BLOCKTIME)
# Of a pipeline, for the sweep.
for name in PIPELINE ARG_FILE OUTPUT TRAIN_FLAGS SWEEP_FLAGS; do
  if [[ -n ${!name:-} ]]; then passed_on+=("$name"); fi
done
export "${passed_on[@]}"
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_cobalt.sh
. "$BPRUNE_HOME/jobs/common_cobalt.sh"
prepare
train aprun -n $((COBALT_JOBSIZE * RANKS_PER_NODE)) -N "$RANKS_PER_NODE" -d "$THREADS" \
  -j "$THREADS_PER_CORE" -cc depth -e OMP_NUM_THREADS="$THREADS" -e KMP_BLOCKTIME="$KMP_BLOCKTIME"
