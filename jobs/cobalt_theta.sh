#!/bin/bash
#COBALT -n 8
#COBALT -t 60
#COBALT -q debug-cache-quad
#COBALT -A MyProject
#COBALT -O bprune-$jobid
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,theta-fs0
#
# A sweep on a Cray XC40 with Cobalt, as ALCF Theta was, where BPrune ran. Theta was switched off
# at the end of 2023: what is here follows its documentation. From the checkout's root:
#     qsub jobs/cobalt_theta.sh
#     qsub --env ARG_FILE=Mine.txt:OUTPUT=results/mine.h5 jobs/cobalt_theta.sh
# Cobalt reads directives up to the first other line. A sweep that does not fit into one job submits
# the next one by them, and that goes on where it stopped.
set -euo pipefail

# To be changed here, or given by --env.
BPRUNE_HOME=${BPRUNE_HOME:-$PWD}            # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                       # to load, as "gcc cray-mpich"
ARG_FILE=${ARG_FILE:-ArgFilePrune.txt}     # arguments of the sweep
MODEL_DIR=${MODEL_DIR:-}                   # the network, if not the one in there
OUTPUT=${OUTPUT:-results/sweep.h5}         # results; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                   # how often to go on
RANKS_PER_NODE=${RANKS_PER_NODE:-64}       # of 64 cores
THREADS=${THREADS:-1}                      # of a rank
THREADS_PER_CORE=${THREADS_PER_CORE:-1}    # hardware threads to use: 1, 2 or 4
# For a TensorFlow that was built with Intel's OpenMP; others pass it over.
KMP_BLOCKTIME=${KMP_BLOCKTIME:-0}

passed_on=(BPRUNE_HOME VENV MODULES ARG_FILE MODEL_DIR OUTPUT MAX_JOBS RANKS_PER_NODE THREADS
  THREADS_PER_CORE KMP_BLOCKTIME)
export "${passed_on[@]}"
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_cobalt.sh
. "$BPRUNE_HOME/jobs/common_cobalt.sh"
prepare
sweep aprun -n $((COBALT_JOBSIZE * RANKS_PER_NODE)) -N "$RANKS_PER_NODE" -d "$THREADS" \
  -j "$THREADS_PER_CORE" -cc depth -e OMP_NUM_THREADS="$THREADS" -e KMP_BLOCKTIME="$KMP_BLOCKTIME"
