"""A sweep that says when its first draw began.

    mpirun -n 2 python -m benchmarks.first_draw_program LAUNCHED ARGUMENTS...

Prints, on rank 0, the seconds from ``LAUNCHED`` (of ``time.time``) until the last rank began its
first evaluation, and whether any rank had TensorFlow by then, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from bprune_hpc.job import startup

if __name__ == "__main__":
    startup.begin(saves=True)  # as the command does

from bprune_hpc.mpi.comm import run
from bprune_hpc.runner import worker
from bprune_hpc.sweep import sweep


def main(launched: float, arguments: list[str]) -> int:
    """Run the sweep, with its loop wrapped in a clock."""
    begun: list[tuple[float, bool]] = []
    evaluate = worker.evaluate

    def timed(*given: Any, **named: Any) -> None:
        if not begun:
            begun.append((time.time() - launched, "tensorflow" in sys.modules))
        evaluate(*given, **named)

    worker.evaluate = timed  # type: ignore[assignment]

    def command(comm: Any) -> int:
        status = sweep(comm, arguments)
        every = comm.gather(begun[0])
        if every is not None:
            seconds, with_tensorflow = zip(*every, strict=True)
            said = {"seconds": max(seconds), "with_tensorflow": sum(with_tensorflow)}
            sys.stdout.write(json.dumps(said) + "\n")
        return status

    return run(command)


if __name__ == "__main__":
    startup.end(lambda: main(float(sys.argv[1]), sys.argv[2:]))
