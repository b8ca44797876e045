"""Prune a Bayesian network over a range of thresholds, on any number of ranks.

    mpirun -n 64 python -m bprune_hpc.sweep @ArgFilePrune.txt

The story of a sweep stands here; each of its steps has a module of its own.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Sequence

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=True)

from .config.flags import parser as parser
from .config.sweep_config import SweepConfig, parse
from .estimate.command import estimate
from .job import deadline, environment, launch_report, memory
from .job.progress import progress
from .mpi.comm import Comm, of_root, on_root, run
from .results import resume
from .results.output import HeldFile, Output, open_output
from .runner import loop
from .runner.coordinator import Coordinator
from .runner.preparation import prepare
from .runner.worker import RankWorker

logger = logging.getLogger(__name__)

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
        return estimate(comm, config, argv)
    ask = ask or loop.StopVote(comm, end, config.stop_margin_s)
    with contextlib.ExitStack() as stack:
        file = on_root(comm, lambda: stack.enter_context(open_output(config)))
        return _sweep(comm, config, file, ask)


def _sweep(comm: Comm, config: SweepConfig, file: HeldFile | None, ask: loop.Ask) -> int:
    watch = environment.Stopwatch()
    with watch.time("read"):
        prepared = prepare(config, comm, lambda *case: resume.join(of_root(file).saved, *case))
    threads, used = (config.num_intra, config.num_inter), prepared.used_device
    run_facts = environment.describe_run(comm, watch, *threads, used)
    output = on_root(comm, lambda: Output(of_root(file), prepared, run_facts))
    coordinator = None
    if output is not None:
        states, write = output.sweep_states, output.write
        coordinator = Coordinator(prepared, states, comm.size, watch, write)
        logger.info(
            "%d weights, %d thresholds x %d draws x %d examples, on %d rank%s",
            prepared.network.posterior.n_weights, len(prepared.masks), prepared.plan.n_draws,
            len(prepared.datasets[0]), comm.size, "s" if comm.size > 1 else "",
        )  # fmt: skip
    n_items = comm.from_root(lambda: of_root(coordinator).n_items_left)
    with progress(-(-n_items // comm.size), "sweep", comm.is_root) as advance:
        why = loop.run(comm, RankWorker(comm, prepared, watch, advance), coordinator, watch, ask)

    run_facts = environment.describe_run(comm, watch, *threads, used)
    comm.from_root(lambda: of_root(output).finish(of_root(coordinator), run_facts, why))
    n_failed = comm.from_root(lambda: of_root(coordinator).n_failed)
    return STOPPED if why is not None else FAILED if n_failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.sweep``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: sweep(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
