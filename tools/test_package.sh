#!/usr/bin/env bash
# Usage: test_package.sh DIST        (in an environment into which DIST/*.whl has been installed)
#
# Uses the wheel, then the sdist, which is installed without a compiler, as a user without the checkout
# does: the commands, a sweep on 2 ranks by an argument file of the package, job scripts. The table has
# to be the README's to the last digit.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dist=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
cd "$work"

fail() {
  echo "$1: $2" >&2
  exit 1
}

sed -n '/^SNR <= *pruned *accuracy/,/^results:/p' "$checkout/README.md" | grep -v ^results >table
[[ -s table ]] || fail README.md "has no table of the sweep that make demo runs"

use() { # NAME HAS_COMPILED
  local home
  home=$(python -c 'import bprune_hpc; print(bprune_hpc.__path__[0])')
  [[ $home == "$(python -c 'import sys; print(sys.prefix)')"/* ]] || fail "$1" "uses $home"
  [[ $(bprune --version) == "$(python -m bprune_hpc --version)" ]] || fail "$1" "two versions"
  python -c 'import sys; from bprune_hpc import compiled
sys.exit(bool(compiled.supported()) != (sys.argv[1] == "yes"))' "$2" ||
    fail "$1" "compiled module: not as expected ($2)"
  mpirun -n 2 bprune sweep @ArgFilePrune.txt --output="$1.h5" 2>log >"$1.txt" ||
    fail "$1" "the sweep fails: $(cat log)"
  bprune report "$1.h5" >"$1.report"
  diff table "$1.report" >&2 || fail "$1" "its table is not the README's"
  [[ $(bprune inspect --status "$1.h5") == complete ]] || fail "$1" "the sweep is not complete"
  bprune jobs --copy "$1-jobs" >/dev/null
  for script in "$1-jobs"/*.sh; do bash -n "$script"; done
  grep -qF ". \"$work/$1-jobs/common.sh\"" "$1-jobs/slurm.sh" ||
    fail "$1" "the job scripts do not find one another"
  echo "$1: the commands, the README's table and the job scripts are there (compiled module: $2)"
}

if command -v gcc >/dev/null || command -v cc >/dev/null; then use wheel yes; else use wheel no; fi
CC=false python -m pip install --disable-pip-version-check --quiet --no-deps --force-reinstall \
  "$dist"/*.tar.gz
use sdist no
