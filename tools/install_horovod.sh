#!/usr/bin/env bash
# Usage: install_horovod.sh        (with the environment's python and the MPI first on PATH)
#
# Installs Horovod for TensorFlow, built against the MPI whose mpicxx is on PATH. There is no
# binary release, so it is compiled (90 s on 2 cores) and the wheel kept in
# ${XDG_CACHE_HOME:-~/.cache}/bprune_hpc/wheels, under all that it was compiled against.
set -euo pipefail

version=0.28.1
needed=(gcc g++ make cmake mpicxx)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

cd "$(dirname "${BASH_SOURCE[0]}")/.."

works() {
  python - >/dev/null 2>"$build/works.log" <<'PY'
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow  # Horovod's library resolves its symbols in TensorFlow's
import horovod.tensorflow as hvd
hvd.init()
raise SystemExit(0 if hvd.mpi_built() and hvd.size() == 1 else 1)
PY
}

install() {
  python -m pip uninstall --disable-pip-version-check --quiet --yes horovod 2>/dev/null
  python -m pip install --disable-pip-version-check --quiet --constraint constraints/horovod.txt "$1"
}

missing=()
for tool in "${needed[@]}"; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done

tensorflow=$(python -c 'from importlib.metadata import version; print(version("tensorflow"))')
mpi=$( (mpirun --version 2>/dev/null || true) | head -n 1 | tr -cs '[:alnum:].\n' '-')
# A system's MPI is found by absolute path; the wheel's by its place in the environment.
if [[ -x $(python -c 'import sys; print(sys.prefix)')/bin/mpicxx ]]; then
  where=wheel
else
  where=$(command -v mpicxx | cksum | cut -d ' ' -f 1)
fi
key="$version-tensorflow-$tensorflow-$mpi-$where-$(python -c 'import sys; print(sys.implementation.cache_tag)')-$(uname -m)"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bprune_hpc/wheels/$key

for wheel in "$cache"/horovod-*.whl; do
  if [[ -e $wheel ]] && install "$wheel" && works; then
    echo "Horovod $version: from $cache"
    exit 0
  fi
done

if [[ ${#missing[@]} -gt 0 ]]; then
  echo "Horovod $version has to be compiled, and these are missing: ${missing[*]};" \
    "install them (Debian: apt-get install g++ make cmake) or load the site's modules" >&2
  exit 1
fi

echo "Horovod $version: compiling against TensorFlow $tensorflow and $(command -v mpicxx), about 90 s."
# The first place to look for libmpi is the lib directory of whichever environment the wheel is
# installed in; only then comes the one it was compiled in, which mpicxx adds by itself.
# CMake 4 refuses the minimum versions that Horovod's third-party code asks for, unless told.
# shellcheck disable=SC2016  # $ORIGIN is for the loader, not for this shell
HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
  HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1 CMAKE_POLICY_VERSION_MINIMUM=3.5 \
  LDFLAGS='-Wl,-rpath,$ORIGIN/../../../..' MAKEFLAGS="-j$(nproc)" \
  python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-cache-dir \
  --no-build-isolation --wheel-dir "$build" "horovod==$version" >"$build/log" 2>&1 || {
  tail -n 60 "$build/log" >&2
  echo "Horovod $version: the build failed; its last lines stand above" >&2
  exit 1
}

install "$build"/horovod-*.whl
if ! works; then
  tail -n 5 "$build/works.log" >&2
  echo "Horovod $version: built, but it does not start with this TensorFlow and MPI" >&2
  exit 1
fi
mkdir -p "$cache"
cp "$build"/horovod-*.whl "$cache"/
