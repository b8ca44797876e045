#!/usr/bin/env bash
# Usage: find_libmpi.sh [LAUNCHER]
#
# Prints the MPI library that belongs to the launcher (default: mpirun) on PATH, for
# MPI4PY_LIBMPI: where two MPIs are installed, mpi4py would take whichever the linker finds first,
# and the ranks would not know of one another. Prints nothing where it cannot tell; then mpi4py
# looks by itself, and check_mpi.sh has the last word.
set -euo pipefail

launcher=$(command -v "${1:-mpirun}") || exit 0
prefix=$(dirname "$(dirname "$(readlink -f "$launcher")")")

case $("$launcher" --version 2>/dev/null) in
  *"Open MPI"* | *OpenRTE* | *PRRTE*) names=(libmpi.so.40) ;;
  *HYDRA* | *Intel*) names=(libmpi.so.12 libmpich.so.12) ;;
  *) exit 0 ;;
esac

for directory in "$prefix"/lib "$prefix"/lib64 "$prefix"/lib/*-linux-gnu "$prefix"/lib/release; do
  for name in "${names[@]}"; do
    if [[ -e $directory/$name ]]; then
      echo "$directory/$name"
      exit 0
    fi
  done
done
