"""What messages cost between ranks, by the calls that a sweep makes.

    mpirun -n 2 python -m benchmarks.message_program SUM_BYTES BROADCAST_BYTES

Prints JSON on rank 0: median seconds of sums that come to rank 0, of a broadcast, and of a vote, as
which all that has to be agreed on costs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from bprune_hpc.accumulators.classification import DrawSums
from bprune_hpc.mpi.comm import Comm, run
from bprune_hpc.runner.reduction import reduce_draws

_REPEATS = 15


def main(sum_bytes: int, broadcast_bytes: int, comm: Comm) -> int:
    """Measure on all ranks together."""
    summed = DrawSums(np.zeros((2, 1, max(sum_bytes // 16, 1)), np.int64))
    given = np.ones(broadcast_bytes // 4, np.float32)
    seconds = {
        "sum_s": _median(comm, lambda: reduce_draws(comm, summed)),
        "broadcast_s": _median(
            comm, lambda: comm.bcast_arrays({"x": given} if comm.is_root else None)
        ),
        "vote_s": _median(comm, lambda: comm.any_of(False)),
    }
    if comm.is_root:
        sys.stdout.write(json.dumps(seconds) + "\n")
    return 0


def _median(comm: Comm, message: Callable[[], object]) -> float:
    """From the moment that all are ready until the last one is done."""
    seconds = []
    for _ in range(_REPEATS):
        comm.gather(0)
        comm.from_root(lambda: None)
        start = time.perf_counter()
        message()
        every = comm.gather(time.perf_counter() - start)
        seconds.append(max(every or [0.0]))
    return median(seconds)


if __name__ == "__main__":
    _sum_bytes, _broadcast_bytes = map(int, sys.argv[1:])
    sys.exit(run(lambda comm: main(_sum_bytes, _broadcast_bytes, comm)))
