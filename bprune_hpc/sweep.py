"""Prune a Bayesian network over a range of thresholds, on any number of ranks.

    mpirun -n 64 python -m bprune_hpc.sweep @ArgFilePrune.txt

The story of a sweep stands here; each of its steps has a module of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence

from . import config as configuration
from . import problem as problems
from . import pruning, report, results
from .comm import Comm, run
from .contents import contents
from .environment import Stopwatch, describe_run
from .gathering import check_memory, draw_sums_of, gather, lay_out, n_cells
from .plan import draws_per_unit
from .progress import progress
from .units import tensors_of_units

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
        evaluator = problem.make_evaluator(config.num_intra, config.num_inter)

    # On rank 0 first, so that what is refused is reported once.
    comm.from_root(lambda: tensors_of_units(problem.posterior, config.granularity))
    rule = dataclasses.replace(config.rule, prior=problem.prior)
    cuts = pruning.cuts(problem.posterior, config.grid_kind, config.grid, rule)
    parts = lay_out(config, problem, len(cuts), comm.size)
    comm.from_root(lambda: check_memory(config, parts))
    if comm.is_root:
        logger.info(
            "%d weights, %d thresholds x %d draws x %d examples, on %d ranks",
            problem.posterior.n_weights, len(cuts), config.n_draws, len(problem.label), comm.size,
        )  # fmt: skip
    with progress(n_cells(parts, comm.rank), "sweep", comm.is_root) as advance:
        findings = gather(comm, evaluator, parts, cuts, config, watch, advance)

    environment = describe_run(comm, watch, config.num_intra, config.num_inter)

    def publish() -> None:
        draws = draw_sums_of(parts[0], findings)
        results.write(config.output, contents(config, problem, cuts, findings, draws, environment))
        report.show_table(config.output)
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
