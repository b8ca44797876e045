"""Counts steps, and writes last what a training ends with; stops and goes on as a training does.

``--fail=1`` does nothing; ``--at_most`` is the number of steps of one job.
"""

from __future__ import annotations

import sys
from pathlib import Path

N_STEPS = 40


def main() -> int:
    """Run, or say how far it is."""
    lines = Path(sys.argv[1][1:]).read_text().split()
    words = [word.split("=", 1) for word in [*lines, *sys.argv[2:]] if "=" in word]
    arguments: dict[str, str] = dict(words)  # type: ignore[arg-type]
    directory = Path(arguments["--model_dir"])
    steps = Path(f"{directory}.training")
    done = int(steps.read_text()) if steps.exists() else 0
    if "--status" in sys.argv:
        if done:
            print(f"partial {done}/{N_STEPS} steps")
        elif directory.exists():
            print("complete")
        return 0
    from mpi4py import MPI

    is_failing = any("--fail" in line for line in lines)
    if is_failing or MPI.COMM_WORLD.rank or directory.exists():
        MPI.COMM_WORLD.Barrier()
        return 0
    done += int(arguments.get("--at_most", N_STEPS))
    if done < N_STEPS:
        steps.write_text(f"{done}")
    else:
        steps.unlink(missing_ok=True)
        directory.mkdir(parents=True)
        (directory / "train.json").write_text(f"{MPI.COMM_WORLD.size} ranks\n")
    MPI.COMM_WORLD.Barrier()
    return 0  # launchers lose the status of a run


if __name__ == "__main__":
    sys.exit(main())
