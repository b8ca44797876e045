"""Prune a Bayesian network over a range of thresholds, on any number of ranks.

    mpirun -n 64 python -m bprune_hpc.sweep @ArgFilePrune.txt

The story of a sweep stands here; each of its steps has a module of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial

from .job import startup

if __name__ == "__main__":
    startup.begin(saves=True)

from .config.sweep_config import SweepConfig, parse
from .estimate.command import estimate
from .files.atomic_write import check_writable
from .job import deadline, launch_report, memory
from .job.environment import Stopwatch, describe_run
from .job.progress import progress
from .job.provenance import environment_of
from .mpi.comm import Comm, run
from .posterior import pruning
from .posterior.draws import draws_per_unit
from .posterior.pruning import tensors_of_units
from .results.output import Output, on, open_output
from .runner import loop
from .runner import problem as problems
from .runner.coordinator import Coordinator
from .runner.datasets import check_memory, lay_out
from .runner.evaluation import costs_of
from .runner.loop import Ask, StopVote
from .runner.nonfinite_search import find_layer
from .runner.statistics import with_block
from .runner.worker import RankWorker
from .runner.write_cost import WriteCost

logger = logging.getLogger(__name__)

STOPPED = 3
"""Exit status of a sweep that has stopped early; the same command goes on."""
FAILED = 4
"""Exit status of a sweep that is done, but for thresholds at which outputs were not finite."""


def sweep(comm: Comm, argv: Sequence[str], ask: Ask | None = None) -> int:
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
    config = comm.from_root(lambda: _asked_for(argv))
    if config.verbose:
        logging.getLogger("bprune_hpc").setLevel(logging.DEBUG)
    end = comm.from_root(lambda: deadline.find(config.time_limit_min, started))
    launch_report.report(comm, config.num_intra, end)
    if config.plan:
        return estimate(comm, config, argv)
    ask = ask or StopVote(comm, end, config.stop_margin_s)
    with contextlib.ExitStack() as stack:
        on_root: list[Output] = []
        comm.from_root(lambda: on_root.append(stack.enter_context(open_output(config))))
        return _sweep(comm, config, on_root[0] if on_root else None, ask)


def _sweep(comm: Comm, config: SweepConfig, output: Output | None, ask: Ask) -> int:
    watch = Stopwatch()
    with watch.time("read"):
        problem = problems.load(config, comm)
        size = draws_per_unit(config.pairing, problem.task.noises_per_unit)
        config = _whole_units(config, size, comm)
        config = comm.from_root(lambda: on(output).join(config, problem, problem.evaluator, size))
        evaluator = problem.make_evaluator(config.num_intra, config.num_inter)
        environment = environment_of(comm, config.num_intra, config.num_inter)

    # On rank 0 first, so that what is refused is reported once.
    comm.from_root(lambda: tensors_of_units(problem.posterior, config.granularity))
    rule = dataclasses.replace(config.rule, prior=problem.prior)
    cuts = pruning.cuts(problem.posterior, config.grid_kind, config.grid, rule)
    parts = lay_out(config, problem, len(cuts), comm.from_root(lambda: on(output).layout))
    comm.from_root(lambda: check_memory(config, parts))
    run_facts = describe_run(comm, watch, config.num_intra, config.num_inter)
    comm.from_root(lambda: on(output).begin(config, problem, cuts, parts, environment, run_facts))
    scale = pruning.PRUNED_SCALE[config.pruned_weights]
    costs = comm.from_root(lambda: costs_of(evaluator, problem.posterior, cuts, comm.size, scale))
    coordinator = None
    if output is not None:
        coordinator = Coordinator(
            config, parts, costs, output.sweep_states, comm.size,
            WriteCost.measure(parts, config.save_probabilities), watch, output.write,
            partial(with_block, parts, save_probabilities=config.save_probabilities),
            partial(find_layer, config, parts, cuts),
        )  # fmt: skip
        logger.info(
            "%d weights, %d thresholds x %d draws x %d examples, on %d ranks",
            problem.posterior.n_weights, len(cuts), config.n_draws, len(problem.label), comm.size,
        )  # fmt: skip
    n_items = comm.from_root(lambda: on(coordinator).n_items_left)
    with progress(-(-n_items // comm.size), "sweep", comm.is_root) as advance:
        worker = RankWorker(comm, evaluator, parts, cuts, costs, config, watch, advance)
        why = loop.run(comm, worker, coordinator, watch, ask)

    run_facts = describe_run(comm, watch, config.num_intra, config.num_inter)
    comm.from_root(lambda: on(output).finish(on(coordinator), run_facts, why))
    n_failed = comm.from_root(lambda: on(coordinator).n_failed)
    return STOPPED if why is not None else FAILED if n_failed else 0


def _whole_units(config: SweepConfig, size: int, comm: Comm) -> SweepConfig:
    """Draws rounded up to what the task takes together; the same on every rank."""
    n_draws = -(-config.n_draws // size) * size
    if n_draws != config.n_draws and comm.is_root:
        logger.info("draws come %d at a time: --num_monte_carlo rounded up to %d", size, n_draws)
    return dataclasses.replace(config, n_draws=n_draws)


def _asked_for(argv: Sequence[str]) -> SweepConfig:
    config = parse(argv)
    if not config.plan:
        check_writable(config.output)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.sweep``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: sweep(comm, arguments))


if __name__ == "__main__":
    startup.end(main)
