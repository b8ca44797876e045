"""Makes a directory and, last, the file that training ends with; `--fail=1` does not."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from mpi4py import MPI

    names = dict(argument.split("=", 1) for argument in sys.argv[2:] if "=" in argument)
    text = Path(sys.argv[1][1:]).read_text()
    if MPI.COMM_WORLD.rank == 0 and "--fail" not in text:
        directory = Path(names["--model_dir"])
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "train.json").write_text(f"{MPI.COMM_WORLD.size} ranks\n")
