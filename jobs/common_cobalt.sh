# shellcheck shell=bash
# What the Cobalt scripts beside this file share; they source it after common.sh. Nothing to change.

end_at "${COBALT_ENDTIME:-}"

# A job that Cobalt makes wait for this one starts only if this one has ended well. In a pipeline that
# is a sweep, which is to wait; the training that goes on has to wait for nothing then.
wait_for=()
if [[ -z ${PIPELINE:-} ]]; then
  # shellcheck disable=SC2034 # read in common.sh
  STATUS_IF_RESUBMITTED=0
  wait_for=(--dependencies "$COBALT_JOBID")
fi

# environment NAME...: the variables as Cobalt's --env takes them.
environment() {
  local name text=
  for name; do
    if [[ ${!name} =~ :[A-Za-z0-9_]+= ]]; then
      say "$name: Cobalt would take '${!name}' for two variables"
      return 1
    fi
    text+=${text:+:}$name=${!name}
  done
  echo "$text"
}

# The same script again, with its own directives, once this job has ended; `passed_on` are the names
# of the variables that it is to get.
resubmit() {
  local text
  # shellcheck disable=SC2154 # set in the scripts
  text=$(environment "${passed_on[@]}" JOB_NUMBER) || return
  qsub "${wait_for[@]}" --env "$text" "$0" | tail -n 1
}
