#!/usr/bin/env bash
# Train, then sweep what was trained, if training went well. Submits two jobs; run it
# on a login node, from the root of the checkout:
#     jobs/pipeline.sh slurm
#     MODEL_DIR=results/mine OUTPUT=results/mine.h5 jobs/pipeline.sh pbs
#     jobs/pipeline.sh cobalt
# Arguments of sbatch or qsub for the two jobs: TRAIN_FLAGS, SWEEP_FLAGS.
# A training that goes on in another job has its sweep submitted anew, after that one:
#     jobs/pipeline.sh SCHEDULER JOB
set -euo pipefail

scheduler=${1:?"usage: pipeline.sh slurm|pbs|cobalt"}
train=${2:-}
BPRUNE_HOME=${BPRUNE_HOME:-$PWD}
BPRUNE_HOME=$(realpath -s -- "${BPRUNE_HOME/#\~\//$HOME/}")
export BPRUNE_HOME
export TRAIN_ARG_FILE=${TRAIN_ARG_FILE:-train_digits.txt} # arguments of the training
export MODEL_DIR=${MODEL_DIR:-results/trained}            # the network
export ARG_FILE=${ARG_FILE:-ArgFilePrune.txt}             # arguments of the sweep
export OUTPUT=${OUTPUT:-$MODEL_DIR.h5}                    # its results
read -ra train_flags <<<"${TRAIN_FLAGS:-}"
read -ra sweep_flags <<<"${SWEEP_FLAGS:-}"

jobs="$BPRUNE_HOME/jobs"
names=(BPRUNE_HOME TRAIN_ARG_FILE MODEL_DIR ARG_FILE OUTPUT)
# Others that are set go along too: by the user, and not by the job of the training that calls this.
others=(VENV MODULES THREADS RANKS_PER_NODE MAX_JOBS)
[[ $scheduler != slurm ]] || others+=(LAUNCHER SRUN_MPI MPIRUN_FLAGS)
if [[ -z ${PIPELINE:-} ]]; then
  export PIPELINE=$scheduler
  for name in "${others[@]}"; do
    if [[ -n ${!name:-} ]]; then PIPELINE+=" $name"; fi
  done
else
  unset JOB_NUMBER "${!SLURM_MEM_@}"
fi
for name in "${others[@]}"; do
  if [[ " $PIPELINE " == *" $name "* ]]; then names+=("$name"); else unset "$name"; fi
done
of_train=("${names[@]}" PIPELINE)
for name in TRAIN_FLAGS SWEEP_FLAGS; do
  if [[ -n ${!name:-} ]]; then of_train+=("$name"); fi
done

case $scheduler in
  slurm)
    [[ -n $train ]] || train=$(sbatch --parsable "${train_flags[@]}" "$jobs/slurm_train.sh")
    train=${train%%;*}
    sweep=$(sbatch --parsable --dependency="afterok:$train" --kill-on-invalid-dep=yes \
      "${sweep_flags[@]}" "$jobs/slurm.sh")
    ;;
  pbs)
    list=$(IFS=, && echo "${of_train[*]}")
    [[ -n $train ]] || train=$(qsub -v "$list" "${train_flags[@]}" "$jobs/pbs_polaris_train.sh")
    list=$(IFS=, && echo "${names[*]}")
    sweep=$(qsub -W depend=afterok:"$train" -v "$list" "${sweep_flags[@]}" "$jobs/pbs_polaris.sh")
    ;;
  cobalt)
    list=
    for name in "${of_train[@]}"; do list+=${list:+:}$name=${!name}; done
    [[ -n $train ]] || train=$(qsub --env "$list" "${train_flags[@]}" \
      "$jobs/cobalt_theta_train.sh" | tail -n 1)
    list=
    for name in "${names[@]}"; do list+=${list:+:}$name=${!name}; done
    sweep=$(qsub --dependencies "$train" --env "$list" "${sweep_flags[@]}" \
      "$jobs/cobalt_theta.sh" | tail -n 1)
    ;;
  *)
    echo "$scheduler: no such scheduler here; slurm, pbs or cobalt" >&2
    exit 2
    ;;
esac
echo "training: job $train; sweep: job $sweep"
