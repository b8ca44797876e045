"""What two ranks of a training tell each other in a step, and how long that takes.

    mpirun -n 2 python -m studies.exchange_program N_TRAINED

Prints JSON on rank 0: median seconds from the moment that all ranks have their gradients until all
have the new weights, which take no time to make here.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

from bprune_hpc.mpi.comm import Comm, run

_REPEATS = 200


def main(n_trained: int, comm: Comm) -> int:
    """Measure on all ranks together."""
    bounds = [n_trained * rank // comm.size for rank in range(comm.size + 1)]
    exchange = comm.exchange([bounds])
    exchange.summand[...] = 1
    mine = slice(*bounds[comm.rank : comm.rank + 2])
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        (share,) = exchange.add_up()
        exchange.values[mine] = share
        exchange.publish()
        seconds.append(time.perf_counter() - start)
    slowest = comm.gather(median(seconds))
    if comm.is_root:
        sys.stdout.write(json.dumps({"seconds": max(slowest or [])}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(lambda comm: main(int(sys.argv[1]), comm)))
