#!/usr/bin/env bash
# Usage: find_python.sh PYTHON...        (3.12, python3.12, python3, or a path)
#
# Prints the first of these that is a Python from 3.10 to 3.13 with what makes an environment. Each is
# run, since a name on PATH may have no Python behind it (pyenv's are such); a version that does not
# run by its name is looked for where pyenv, uv, modules and distributions keep theirs.
set -euo pipefail
shopt -s nullglob

runs() { # CANDIDATE VERSION: prints its absolute name if it is of that version, or of any that will do
  "$1" -c '
import sys, ensurepip, venv

version = "%d.%d" % sys.version_info[:2]
wanted = sys.argv[1] or version
if version != wanted or not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
print(sys.executable)
' "$2" 2>/dev/null
}

for asked; do
  version=
  if [[ $asked =~ ^(python)?(3\.[0-9]+)$ ]]; then
    version=${BASH_REMATCH[2]}
    asked=python$version
  fi
  if runs "$asked" "$version"; then exit 0; fi
  [[ -n $version ]] || continue
  for candidate in /usr/bin/"$asked" /usr/local/bin/"$asked" \
    {"${PYENV_ROOT:-${HOME:-}/.pyenv}",/opt/pyenv}/versions/"$version"*/bin/"$asked" \
    "${XDG_DATA_HOME:-${HOME:-}/.local/share}"/uv/python/*-"$version"*/bin/"$asked" \
    /opt/{,*/}{bin,"$version"*/bin,python*"$version"*/bin}/"$asked" \
    /usr/local/*"$version"*/bin/"$asked"; do
    if runs "$candidate" "$version"; then exit 0; fi
  done
done
echo "none of these is a Python from 3.10 to 3.13 that runs and can make environments: $*;" \
  "install one (Debian: also python3-venv), or give PYTHON=/path/to/python" >&2
exit 1
