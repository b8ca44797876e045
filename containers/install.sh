#!/usr/bin/env bash
# Usage: install.sh SOURCE TARGET [COMBINATION]
#
# What both recipes beside this file do in the image; it does the same outside of one. SOURCE is a
# checkout, TARGET the virtual environment that is made. COMBINATION names the versions, a file of
# constraints/ (newest); `none` takes those that the base image has (its TensorFlow, say) and adds
# what is missing. No MPI is installed: the site's is bound in when the image runs.
set -euo pipefail

source=$1 target=$2 combination=${3:-newest}
flags=() constraints=()
if [[ $combination == none ]]; then
  flags=(--system-site-packages)
else
  constraints=(--constraint "$source/constraints/$combination.txt")
fi

# The compiled module needs a compiler; without one the package works, and takes longer.
if ! command -v gcc >/dev/null; then
  if command -v apt-get >/dev/null; then
    apt-get update
    apt-get install --yes --no-install-recommends gcc libc6-dev
    rm -rf /var/lib/apt/lists/*
  elif command -v dnf >/dev/null; then
    dnf install --assumeyes gcc
    dnf clean all
  fi
fi

python3 -m venv "${flags[@]}" "$target"
"$target/bin/python" -m pip install --disable-pip-version-check --no-cache-dir \
  "${constraints[@]}" "$source"
"$target/bin/python" -m bprune_hpc.sweep --model_dir=embedded:digits_fc --num_monte_carlo=4 \
  --thresholds=0,1 --output="$target/tried.h5"
rm "$target/tried.h5"
