#!/usr/bin/env bash
# Usage: check_mpi.sh [LAUNCHER]
#
# Starts two ranks and asks mpi4py whether they know of each other. A launcher of one MPI with the
# library of another makes two lone processes that would both write the same files.
set -euo pipefail

launcher=${1:-mpirun}
if ! command -v "$launcher" >/dev/null; then
  echo "$launcher: not found on PATH; load an MPI module, give MPIRUN=LAUNCHER, or use MPI=wheel" >&2
  exit 1
fi

said=$("$launcher" -n 2 python -c '
from mpi4py import MPI

if MPI.COMM_WORLD.rank == 0:
    print("a world of", MPI.COMM_WORLD.size, "ranks")
' 2>&1) || true
if [[ $said != *"a world of 2 ranks"* ]]; then
  echo "$launcher -n 2: mpi4py does not find a world of 2 ranks; set MPI4PY_LIBMPI to the" \
    "libmpi.so of this $launcher. It said: ${said//$'\n'/ }" >&2
  exit 1
fi
