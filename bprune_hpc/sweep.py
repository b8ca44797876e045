"""Prune a Bayesian network over a range of thresholds, on any number of ranks.

    mpirun -n 64 python -m bprune_hpc.sweep @ArgFilePrune.txt

What belongs here: from flags to an exit status. What does not: the sweep (``results.sweeping``).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=True)

from .config.flags import parser as parser
from .config.sweep_config import parse
from .job import deadline, launch_report, memory
from .mpi.comm import Comm, run
from .results import sweeping
from .runner import loop

STOPPED = 3
"""Exit status of a sweep that has stopped early; the same command goes on."""
FAILED = 4
"""Exit status of a sweep that is done, but for thresholds at which outputs were not finite."""


def sweep(comm: Comm, argv: Sequence[str], ask: loop.Ask | None = None) -> int:
    """Run a sweep, or the rest of one; every rank calls this.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name; read on rank 0.
    ask : callable, optional
        See :data:`bprune_hpc.runner.loop.Ask`; without, a vote on signals and the end of the job.

    Returns
    -------
    int
        Exit status, the same on every rank.
    """
    started = time.time()
    memory.keep_freed()
    config = comm.from_root(lambda: parse(argv))
    if config.verbose:
        logging.getLogger("bprune_hpc").setLevel(logging.DEBUG)
    end = comm.from_root(lambda: deadline.find(config.time_limit_min, started))
    launch_report.report(comm, config.num_intra, end)
    if config.plan:
        from .estimate.command import estimate

        return estimate(comm, config, argv)
    ask = ask or loop.StopVote(comm, end, config.stop_margin_s)
    why, n_failed = sweeping.run(comm, config, ask)
    return STOPPED if why is not None else FAILED if n_failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.sweep``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: sweep(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
