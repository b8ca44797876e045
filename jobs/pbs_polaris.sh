#!/bin/bash -l
#PBS -N bprune
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
# A sweep on ALCF Polaris (PBS, PALS); Aurora's like, with other numbers. From the checkout's root:
#     qsub jobs/pbs_polaris.sh
#     qsub -v ARG_FILE=Mine.txt,OUTPUT=results/mine.h5 jobs/pbs_polaris.sh
# A sweep that does not fit into one job submits the next one by these directives, and that goes
# on where it stopped: put nodes and time here and not on qsub's command line.
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
RANKS_PER_NODE=${RANKS_PER_NODE:-32}       # of 32 cores with 2 hardware threads each
THREADS=${THREADS:-1}                      # of a rank

passed_on=(BPRUNE_HOME VENV MODULES ARG_FILE MODEL_DIR OUTPUT MAX_JOBS WALLTIME
  RANKS_PER_NODE THREADS)
export "${passed_on[@]}"
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_pbs.sh
. "$BPRUNE_HOME/jobs/common_pbs.sh"
prepare
sweep mpiexec -n $((n_nodes * RANKS_PER_NODE)) --ppn "$RANKS_PER_NODE" --depth="$THREADS" \
  --cpu-bind depth --envall --env OMP_NUM_THREADS="$THREADS"
