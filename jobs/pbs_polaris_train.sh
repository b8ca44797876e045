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
# Training on ALCF Polaris (PBS, PALS). Horovod, where installed, has to be built with the MPI that PALS
# starts, Cray MPICH (tools/install_horovod.sh). From the checkout's root:
#     qsub jobs/pbs_polaris_train.sh
# A training that does not fit into one job submits the next one by these directives, and that goes
# on where it stopped. With a sweep of what was trained after it: jobs/pipeline.sh
set -euo pipefail

# To be changed here, or given by -v.
BPRUNE_HOME=${BPRUNE_HOME:-$PBS_O_WORKDIR}  # where to work: results, .venv
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
VENV=${VENV:-$BPRUNE_HOME/.venv}
MODULES=${MODULES:-}                       # to load, as "gcc cray-mpich"
TRAIN_ARG_FILE=${TRAIN_ARG_FILE:-train_digits.txt} # arguments of the training
MODEL_DIR=${MODEL_DIR:-results/trained}    # the network; counts more than what the file says
MAX_JOBS=${MAX_JOBS:-20}                   # how often to go on
WALLTIME=${WALLTIME:-01:00:00}             # as in the directive: PBS does not tell the job
RANKS_PER_NODE=${RANKS_PER_NODE:-4}        # of 32 cores with 2 hardware threads each
THREADS=${THREADS:-8}                      # of a rank

passed_on=(BPRUNE_HOME VENV MODULES TRAIN_ARG_FILE MODEL_DIR MAX_JOBS WALLTIME
  RANKS_PER_NODE THREADS)
# Of a pipeline, for the sweep.
for name in PIPELINE ARG_FILE OUTPUT TRAIN_FLAGS SWEEP_FLAGS; do
  if [[ -n ${!name:-} ]]; then passed_on+=("$name"); fi
done
export "${passed_on[@]}"
# shellcheck source=jobs/common.sh
. "$BPRUNE_HOME/jobs/common.sh"
# shellcheck source=jobs/common_pbs.sh
. "$BPRUNE_HOME/jobs/common_pbs.sh"
prepare
train mpiexec -n $((n_nodes * RANKS_PER_NODE)) --ppn "$RANKS_PER_NODE" --depth="$THREADS" \
  --cpu-bind depth --envall --env OMP_NUM_THREADS="$THREADS"
