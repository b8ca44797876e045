# shellcheck shell=bash
# What the job scripts beside this file share; they source it first of all. Nothing to change here.
#
# A script sets BPRUNE_HOME, VENV, MODULES, THREADS, MAX_JOBS and a function `resubmit`, which prints
# the job's number; for a sweep ARG_FILE and OUTPUT, for training TRAIN_ARG_FILE and MODEL_DIR. Then
# it calls what stands below.

launched=      # process of the launcher, while it runs
asked_to_stop= # name of the first stop signal that this script got
more=()        # arguments of a sweep that a script adds

# as_path NAME...: what a user means by the names of files in these variables. Where a list of
# variables is given to qsub, no shell has put the home directory in place of ~; and a name that
# begins with a dash is no flag.
as_path() {
  local name
  for name; do
    if [[ -z ${!name:-} ]]; then continue; fi
    case ${!name} in
      \~ | \~/*) printf -v "$name" %s "$HOME${!name#\~}" ;;
      [-!\(]*) printf -v "$name" %s "./${!name}" ;;
    esac
  done
}
as_path VENV ARG_FILE TRAIN_ARG_FILE MODEL_DIR OUTPUT CASES RESULTS CHECKPOINT

# A stop signal means the same to every launcher as SIGUSR1: that one they all forward to all ranks,
# while on a SIGTERM mpirun leaves them a second or two. A run that is asked to stop finishes
# its stretch of work, writes its results and ends.
pass_on() {
  asked_to_stop=${asked_to_stop:-$1}
  [[ -z $launched ]] || kill -USR1 "$launched" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

say() { echo "$(date +%FT%T) job script: $*" >&2; }

# end_at SECONDS-SINCE-1970: when this job ends. Never what another job's environment brought along.
unset BPRUNE_END_TIME
end_at() {
  if [[ $1 =~ ^[0-9]+$ ]]; then export BPRUNE_END_TIME=$1; fi
}

# seconds_of [[HH:]MM:]SS
seconds_of() {
  local total=0 part parts
  IFS=: read -ra parts <<<"$1"
  for part in "${parts[@]}"; do total=$((60 * total + 10#$part)); done
  echo "$total"
}

# Modules, the virtual environment, threads.
prepare() {
  cd "$BPRUNE_HOME" || exit
  local -a modules
  read -ra modules <<<"${MODULES:-}"
  if ((${#modules[@]})); then module load "${modules[@]}"; fi
  if [[ -f $VENV/bin/activate ]]; then
    # shellcheck source=/dev/null
    . "$VENV/bin/activate"
  fi
  # The bits of a result are promised for one number of threads a rank: keep it from job to job.
  export OMP_NUM_THREADS=$THREADS OPENBLAS_NUM_THREADS=$THREADS MKL_NUM_THREADS=$THREADS
  # One process writes, under another name, and renames; and not every Lustre has flock.
  export HDF5_USE_FILE_LOCKING=${HDF5_USE_FILE_LOCKING:-FALSE}
  export PYTHONUNBUFFERED=1
}

# look_at_stripes DIRECTORY: results are one file of some MB, better off on one Lustre target.
look_at_stripes() {
  local stripes
  command -v lfs >/dev/null || return 0
  stripes=$(lfs getstripe -c -d "$1" 2>/dev/null) || return 0
  if [[ $stripes =~ ^-?[0-9]+$ && $stripes != [01] ]]; then
    say "$1: striped over $stripes Lustre targets; lfs setstripe -c 1 on a new directory is better"
  fi
}

# run LAUNCHER ARGUMENT...: in the background, so that this script hears signals meanwhile. Leaves
# the launcher's status in $status.
run() {
  status=0
  if [[ -n $asked_to_stop ]]; then
    say "SIG$asked_to_stop came before anything was started"
    return 0
  fi
  "$@" &
  launched=$!
  if [[ -n $asked_to_stop ]]; then # it came in between, and what has just begun would not hear it
    sleep 1
    pass_on "$asked_to_stop"
  fi
  # A signal ends `wait` early. Only a process that has gone has a status, which bash remembers.
  while kill -0 "$launched" 2>/dev/null; do wait "$launched" || true; done
  wait "$launched" || status=$?
  launched=
}

# What is in the results file: "complete", or "partial 120/200 cells", or nothing.
state_of_results() {
  python -m bprune_hpc.inspect --status "$OUTPUT" 2>/dev/null || true
}

# The number of a partial state; 0 where there is none.
amount_of() {
  if [[ $1 =~ ^partial\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi
}

# sweep LAUNCHER ARGUMENT...: run one job of a sweep and end the script: with 0 if the results are
# complete (4: with thresholds that failed); with 3 if another job has to go on, which is submitted
# here; else with the launcher's status. The results file says which, since launchers lose
# the status of a run.
sweep() {
  local before after
  if [[ -n ${MODEL_DIR:-} ]]; then more+=(--model_dir="$MODEL_DIR"); fi
  mkdir -p "$(dirname "$OUTPUT")"
  look_at_stripes "$(dirname "$OUTPUT")"
  before=$(state_of_results)
  say "job ${JOB_NUMBER:=1} of at most $MAX_JOBS for $OUTPUT (${before:-not begun})"
  run "$@" python -m bprune_hpc.sweep "@$ARG_FILE" --output="$OUTPUT" --num_intra="$THREADS" \
    "${more[@]}"
  after=$(state_of_results)
  say "launcher's status $status; $OUTPUT: ${after:-nothing that can be read}"
  case $after in
    complete*failed*) exit 4 ;;
    complete*) if ((status == 4)); then exit 4; else exit 0; fi ;;
    partial*) go_on "$(amount_of "$before")" "$(amount_of "$after")" ;;
    *) exit $((status ? status : 1)) ;;
  esac
}

# go_on BEFORE AFTER: submit the next job, unless that would go on for ever or is not wanted.
go_on() {
  local resubmitted=3 next
  if [[ $asked_to_stop == INT ]]; then
    say "interrupted: no other job is submitted; the same command continues"
  elif [[ $asked_to_stop == TERM ]] && (($(date +%s) < ${BPRUNE_END_TIME:-0} - 60)); then
    say "cancelled: no other job is submitted; the same command continues"
  elif (($2 <= $1)); then
    say "this job added nothing ($1 before, $2 now): no other job is submitted; see the log above"
  elif ((JOB_NUMBER >= MAX_JOBS)); then
    say "MAX_JOBS=$MAX_JOBS jobs have run: no other is submitted; the same command continues"
  elif export JOB_NUMBER=$((JOB_NUMBER + 1)) && next=$(resubmit); then
    say "job $next goes on"
    resubmitted=${STATUS_IF_RESUBMITTED:-3}
    follow "$next"
  else
    say "the next job could not be submitted from here; the same command continues"
  fi
  exit "$resubmitted"
}

# follow JOB: submit what is to come after the job that goes on.
follow() { :; }

# How far the training is: "complete", "complete (2 thresholds failed)" in sweeps of its stages,
# "partial 560/4400 steps", or nothing.
state_of_training() {
  python -m bprune_hpc.train "@$TRAIN_ARG_FILE" --model_dir="$MODEL_DIR" --status 2>/dev/null || true
}

# train LAUNCHER ARGUMENT...: run one job of a training and end the script, as `sweep` does.
train() {
  local before after
  # The sweep that waits for this job alone does not start, so that the next job needs one, too.
  if [[ -n ${PIPELINE:-} ]]; then
    follow() { "$BPRUNE_HOME/jobs/pipeline.sh" "${PIPELINE%% *}" "$1" || say "no sweep submitted"; }
  fi
  before=$(state_of_training)
  say "job ${JOB_NUMBER:=1} of at most $MAX_JOBS for $MODEL_DIR (${before:-not begun})"
  run "$@" python -m bprune_hpc.train "@$TRAIN_ARG_FILE" --model_dir="$MODEL_DIR" \
    --num_intra="$THREADS"
  after=$(state_of_training)
  say "launcher's status $status; $MODEL_DIR: ${after:-no training that can go on}"
  case $after in
    complete*)
      if ((status == 0)) && [[ $after == *failed* ]]; then status=4; fi
      # The sweep that waits for this job needs the network, which is whole.
      if ((status == 4)) && [[ -n ${PIPELINE:-} ]]; then status=0; fi
      exit "$status"
      ;;
    partial*) go_on "$(amount_of "$before")" "$(amount_of "$after")" ;;
    *) exit $((status ? status : 1)) ;;
  esac
}
