#!/bin/bash
#PBS -N bprune
#PBS -l select=1:ncpus=4:mpiprocs=4
#PBS -l walltime=01:00:00
#PBS -j oe
#PBS -r y
#
# A sweep on a cluster with PBS and Open MPI. From the checkout's root:
#     qsub jobs/pbs.sh
#     qsub -v ARG_FILE=Mine.txt,OUTPUT=results/mine.h5 jobs/pbs.sh
# Add -A, -q and other resources as the site asks. A sweep that does not fit into one job submits
# the next one by these directives, and that goes on where it stopped: put nodes and time here and
# not on qsub's command line.
set -euo pipefail

# To be changed here, or given by -v.
BPRUNE_HOME=${BPRUNE_HOME:-$PBS_O_WORKDIR}  # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                       # to load, as "gcc cray-mpich"
ARG_FILE=${ARG_FILE:-ArgFilePrune.txt}     # arguments of the sweep
MODEL_DIR=${MODEL_DIR:-}                   # the network, if not the one in there
OUTPUT=${OUTPUT:-results/sweep.h5}         # results; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                   # how often to go on
WALLTIME=${WALLTIME:-01:00:00}             # as in the directive: PBS does not tell the job
LAUNCHER=${LAUNCHER:-mpirun}
THREADS=${THREADS:-1}                      # of a rank: ncpus / mpiprocs
# Those of Open MPI; another mpirun has others, and may know the nodes by itself.
MPIRUN_FLAGS=${MPIRUN_FLAGS:---map-by slot:PE=$THREADS --bind-to core}

passed_on=(BPRUNE_HOME VENV MODULES ARG_FILE MODEL_DIR OUTPUT MAX_JOBS WALLTIME LAUNCHER
  THREADS MPIRUN_FLAGS)
export "${passed_on[@]}"
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_pbs.sh
. "$BPRUNE_HOME/jobs/common_pbs.sh"
prepare
# One line for each rank: mpiprocs of them for each node.
n_ranks=$(wc -l <"$PBS_NODEFILE")
read -ra flags <<<"$MPIRUN_FLAGS"
sweep "$LAUNCHER" -n "$n_ranks" --hostfile "$PBS_NODEFILE" "${flags[@]}"
