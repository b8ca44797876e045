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

end() { # PID-FILE NAME
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 0
  if [[ $(ps -o comm= -p "$pid" 2>/dev/null) != "$2"* ]]; then return 0; fi
  kill "$pid"
  for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid"
}
for file in "$root"/run/slurmd-*.pid; do end "$file" slurmd; done
end "$root/run/slurmctld.pid" slurmctld
end "$root/run/munged.pid" munged
rm -rf "$root/run" "$root/env.sh" "$root/slurm.conf"
