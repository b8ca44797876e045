#!/usr/bin/env bash
# Usage: down.sh ROOT
#
# Ends the Slurm that `up.sh ROOT` has started, its jobs first, and nothing else: a process is
# ended only if it is that of a pid file and goes by the daemon's name.
set -uo pipefail

root=$1
if [[ ! -e $root/env.sh ]]; then exit 0; fi
# shellcheck source=/dev/null
. "$root/env.sh"

if [[ -e $root/run/slurmctld.pid ]]; then
  timeout 10 scancel --signal=KILL --full --user="$(id -un)" 2>/dev/null
  timeout 10 scancel --user="$(id -un)" 2>/dev/null
  for _ in {1..100}; do
    if [[ -z $(timeout 5 squeue --noheader 2>/dev/null) ]]; then break; fi
    sleep 0.1
  done
fi

# is_daemon PID-FILE NAME: whether that process is there, and is what it was.
is_daemon() {
  local pid command
  pid=$(cat "$1" 2>/dev/null) || return
  command=$(ps -o comm= -p "$pid" 2>/dev/null) && [[ $command == "$2"* && $command != *defunct* ]]
}

# end NAME PID-FILE...: all at once, since each takes seconds.
end() {
  local name=$1 file
  shift
  for file; do if is_daemon "$file" "$name"; then kill "$(cat "$file")"; fi; done
  for file; do
    for _ in {1..100}; do
      is_daemon "$file" "$name" || continue 2
      sleep 0.1
    done
    kill -9 "$(cat "$file")"
  done
}
end slurmd "$root"/run/slurmd-*.pid &
end slurmctld "$root/run/slurmctld.pid" &
wait
end munged "$root/run/munged.pid"
rm -rf "$root/run" "$root/env.sh" "$root/slurm.conf"
