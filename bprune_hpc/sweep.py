"""Prune a Bayesian network over a range of thresholds, on any number of ranks.

    mpirun -n 64 python -m bprune_hpc.sweep @ArgFilePrune.txt

The story of a sweep stands here; each of its steps has a module of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from typing import Any

from . import config as configuration
from . import problem as problems
from . import pruning, report, results
from .comm import Comm, run
from .contents import contents
from .criteria import CRITERIA
from .environment import Stopwatch, describe_run
from .evaluation import evaluate
from .network import GraphNetwork
from .plan import draws_per_unit, make_plan
from .progress import progress
from .reduction import reduce_draws, reduce_groups
from .units import tensors_of_units

GIB = 2**30

logger = logging.getLogger(__name__)


def sweep(comm: Comm, argv: Sequence[str]) -> int:
    """Run a sweep, write its results file and print its table; every rank calls this.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name; read on rank 0.

    Returns
    -------
    int
        Exit status, the same on every rank.
    """
    watch = Stopwatch()
    with watch.time("read"):
        config = comm.from_root(lambda: _asked_for(argv))
        if config.verbose:
            logging.getLogger("bprune_hpc").setLevel(logging.DEBUG)
        problem = problems.load(config, comm)
        config = _whole_units(config, problem, comm)
        network = GraphNetwork(
            problem.graph, problem.fixed, config.num_intra, config.num_inter, with_scale=True
        )

    # On rank 0 first, so that a network with nothing to prune as a whole is reported once.
    comm.from_root(lambda: tensors_of_units(problem.posterior, config.granularity))
    cuts = pruning.cuts(problem.posterior, config.grid_kind, config.grid, config.rule)
    task, n_examples = problem.task, len(problem.label)
    plan = make_plan(
        n_draws=config.n_draws,
        pairing=config.pairing,
        n_thresholds=len(cuts),
        n_examples=n_examples,
        bytes_per_cell=task.bytes_per_cell,
        n_ranks=comm.size,
        batch_size=config.batch_size,
        limit_bytes=config.state_limit_gb * GIB,
        noises_per_unit=task.noises_per_unit,
    )
    if comm.is_root:
        logger.info(
            "%d weights, %d thresholds x %d draws x %d examples, on %d ranks",
            problem.posterior.n_weights, len(cuts), plan.n_draws, n_examples, comm.size,
        )  # fmt: skip
    draw_sums = task.draw_sums(len(cuts), config.n_draws)
    statistics: Any = task.statistics(plan, n_examples, config.save_probabilities)

    n_steps = len(plan.shares[comm.rank]) * len(plan.blocks)
    with progress(n_steps, "sweep", comm.is_root) as advance:
        for block in plan.blocks:
            with watch.time("evaluate"):
                sums = evaluate(
                    network, problem, cuts, plan, comm.rank, block, draw_sums,
                    seed=config.seed, advance=advance,
                    pruned_scale=pruning.PRUNED_SCALE[config.pruned_weights],
                )  # fmt: skip
            with watch.time("reduce"):
                totals = reduce_groups(comm, plan, sums, task, (len(cuts), len(block)))
            if comm.is_root:
                statistics.add_block(totals, problem.label[block.start : block.stop])
    with watch.time("reduce"):
        all_draws = reduce_draws(comm, draw_sums)

    environment = describe_run(comm, watch, config.num_intra, config.num_inter)

    def publish() -> None:
        assert all_draws is not None  # on rank 0
        results.write(
            config.output, contents(config, problem, cuts, statistics, all_draws, environment)
        )
        heading = CRITERIA[config.criterion].heading
        report.show(report.table(*report.read_metrics(config.output), heading=heading))
        report.show(f"results: {config.output}")

    comm.from_root(publish)
    return 0


def _whole_units(
    config: configuration.SweepConfig, problem: problems.Problem, comm: Comm
) -> configuration.SweepConfig:
    """Draws rounded up to what the task takes together; the same on every rank."""
    size = draws_per_unit(config.pairing, problem.task.noises_per_unit)
    n_draws = -(-config.n_draws // size) * size
    if n_draws != config.n_draws and comm.is_root:
        logger.info("draws come %d at a time: --num_monte_carlo rounded up to %d", size, n_draws)
    return dataclasses.replace(config, n_draws=n_draws)


def _asked_for(argv: Sequence[str]) -> configuration.SweepConfig:
    config = configuration.parse(argv)
    results.check_writable(config.output)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bprune_hpc.sweep``."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(lambda comm: sweep(comm, arguments))


if __name__ == "__main__":
    sys.exit(main())
