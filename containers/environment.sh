#!/usr/bin/env bash
# Usage: environment.sh IMAGE TARGET [BIND...]
#
# Makes TARGET stand for a virtual environment: its `python` runs that of the image, with the site's
# MPI bound in. Load the module of that MPI first, then
#     containers/environment.sh bprune.sif /project/mine/env /project /scratch
#     VENV=/project/mine/env sbatch jobs/slurm.sh
# BINDs are directories that jobs read and write, besides those that Apptainer binds by itself.
# APPTAINER_FLAGS has more flags, such as --nv for GPUs.
set -euo pipefail

image=$(realpath -- "$1") target=$2
shift 2
here=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
libmpi=$(MPI4PY_LIBMPI='' "$here/../tools/find_libmpi.sh" mpirun)
if [[ -z $libmpi ]]; then
  echo "no MPI library belongs to the mpirun on PATH: load the module of the site's MPI" >&2
  exit 1
fi
prefix=$(dirname -- "$(dirname -- "$(realpath -- "$(command -v mpirun)")")")
if [[ $prefix == /usr ]]; then
  echo "the MPI in /usr would hide the image's own libraries: load one with a directory of its own" >&2
  exit 1
fi
mapfile -t binds < <(printf '%s\n' "$prefix" "$(dirname "$(realpath "$libmpi")")" "$@" | sort -u)

mkdir -p "$target/bin"
{
  echo '#!/usr/bin/env bash'
  echo '# Made by containers/environment.sh: the Python of an image.'
  printf 'binds=(%s)\n' "$(printf -- '--bind %q ' "${binds[@]}")"
  printf 'image=%q libmpi=%q\n' "$image" "$libmpi"
  cat <<'END'
read -ra more <<<"${APPTAINER_FLAGS:-}"
exec apptainer exec "${binds[@]}" "${more[@]}" --env "MPI4PY_LIBMPI=$libmpi" \
  --env "LD_LIBRARY_PATH=$(dirname "$libmpi"):${LD_LIBRARY_PATH:-}" "$image" python "$@"
END
} >"$target/bin/python"
chmod +x "$target/bin/python"
# shellcheck disable=SC2016
printf 'export PATH=%q:$PATH\n' "$(realpath -- "$target")/bin" >"$target/bin/activate"
